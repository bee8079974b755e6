"""`hsl serve` beside a plain FastAPI endpoint that calls the same model per request, and LitServe, at 1, 8, 32 clients.

All answer masks of the same pictures with the same code, in turns of two seconds, so that what else the machine does
falls on all alike. Then 2 000 requests, one in 20 hostile.
"""

import base64
import contextlib
import http.client
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLIENTS, TURNS, SECONDS, PICTURES = (1, 8, 32), 4, 2.0, 16
SIZE, SIDE = (160, 120), 96
REQUESTS, HOSTILE = 2000, 20
GOAL, MEMORY_MIB = 1.5, 512.0
TRAIN = [
    "encoder=mobilenetv3_small", "encoder.weights=null", "data.reader.num_pictures=16", "data.reader.size=96",
    f"data.image_size={SIDE}", "data.batch_size=4", "data.num_workers=0", "data.audit.missing_classes=warn",
    "trainer.accelerator=cpu", "trainer.max_epochs=1", "logger=none", "callbacks.tta_evaluation=null",
]  # fmt: skip
COMMON = """
import sys
from omegaconf import OmegaConf
from hsl.cli import conf_dir
from hsl.config.targets import named_targets
from hsl.serving.answers import answer_of
from hsl.serving.served import Question
from hsl.verbs.predict.served import ServedRun

def open_model():
    settings = {"model": sys.argv[1], "gate": None, "trust": [], "targets": named_targets(conf_dir()),
                "inference": None, "keep": "all", "value_range": None, "max_megapixels": 25,
                "evaluation_size": None, "encoder": {}}
    return ServedRun.open(OmegaConf.create(settings))

def answers(model, bodies):
    images = [model.decode(body, "picture") for body in bodies]
    asked = Question("segment", b"", 0, head="segmentation")
    return [answer_of(asked, i, said, None).body for i, said in zip(images, model.predict_many(images))]
"""
PLAIN = (
    COMMON
    + """
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

model, app = open_model(), FastAPI()

@app.post("/segment")
async def segment(request: Request):
    body = await request.body()
    return Response((await run_in_threadpool(answers, model, [body]))[0], media_type="image/png")

@app.get("/ready")
def ready():
    return {}

uvicorn.run(app, port=int(sys.argv[2]), log_level="error")
"""
)
LITSERVE = (
    COMMON
    + """
import base64
import litserve

class Api(litserve.LitAPI):
    def setup(self, device):
        self.model = open_model()
    def decode_request(self, request):
        return base64.b64decode(request["picture"])
    def batch(self, inputs):
        return inputs
    def predict(self, bodies):
        return answers(self.model, bodies)
    def unbatch(self, output):
        return output
    def encode_response(self, output):
        return {"mask": base64.b64encode(output).decode()}

if __name__ == "__main__":
    api = Api(max_batch_size=8, batch_timeout=0.005, api_path="/segment", enable_async=False)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1, healthcheck_path="/ready")
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="error")
"""
)
Ask = Callable[[http.client.HTTPConnection, bytes], bytes]


def post(connection: http.client.HTTPConnection, body: bytes, kind: str = "image/png") -> tuple[int, bytes]:
    connection.request("POST", "/segment", body, {"Content-Type": kind})
    response = connection.getresponse()
    return response.status, response.read()


def ask_plainly(connection: http.client.HTTPConnection, body: bytes) -> bytes:
    return post(connection, body)[1]


def ask_litserve(connection: http.client.HTTPConnection, body: bytes) -> bytes:
    coded = json.dumps({"picture": base64.b64encode(body).decode()}).encode()
    return base64.b64decode(json.loads(post(connection, coded, "application/json")[1])["mask"])


def pictures() -> list[bytes]:
    found = []
    for seed in range(PICTURES):
        small = np.random.default_rng(seed).integers(0, 255, (15, 20, 3), dtype=np.uint8)
        content = io.BytesIO()
        Image.fromarray(small).resize(SIZE, Image.Resampling.BICUBIC).save(content, "PNG")
        found.append(content.getvalue())
    return found


@contextlib.contextmanager
def process(command: Sequence[str], folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server and its port, once it is ready."""
    port = random.Random(os.getpid() + time.monotonic_ns()).randrange(20_000, 60_000)
    words = [word.replace("PORT", str(port)) for word in command]
    with (folder / "log.txt").open("a") as log:
        server = subprocess.Popen(words, stdout=log, stderr=log, text=True, cwd=folder, start_new_session=True)
    try:
        end = time.monotonic() + 120
        while time.monotonic() < end and server.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/ready")
                if connection.getresponse().status == 200:
                    break
            time.sleep(0.2)
        else:
            raise RuntimeError((folder / "log.txt").read_text()[-2000:])
        yield server, port
    finally:
        server.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # LitServe leaves processes behind
        server.wait()


def load(port: int, ask: Ask, clients: int, expected: dict[bytes, bytes]) -> tuple[list[float], float]:
    """Seconds of each request of clients that ask again as soon as they are answered, and of all together."""
    bodies, times = list(expected), []
    start = time.monotonic()

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for place in range(number, 10**9):
            begin = time.monotonic()
            if begin > start + SECONDS:
                return
            body = bodies[place % len(bodies)]
            differing = differing_pixels(ask(connection, body), expected[body])
            if differing > 1e-3:
                raise RuntimeError(f"An answer should be that of `hsl predict`. Found {differing:.2%} other pixels.")
            times.append(time.monotonic() - begin)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))
    return times, time.monotonic() - start


Server = tuple["subprocess.Popen[str]", int, Ask]


def in_turns(servers: dict[str, Server], clients: int, expected: dict[bytes, bytes]) -> dict[str, dict[str, float]]:
    """Requests a second, milliseconds of one, and those of the processor that the server took for one."""
    times: dict[str, list[float]] = {name: [] for name in servers}
    seconds, processor = dict.fromkeys(servers, 0.0), dict.fromkeys(servers, 0.0)
    for _ in range(TURNS):
        for name, (server, port, ask) in servers.items():
            before = processor_seconds(server.pid)
            more, took = load(port, ask, clients, expected)
            times[name] += more
            seconds[name] += took
            processor[name] += processor_seconds(server.pid) - before
    found = {}
    for name, each in times.items():
        p50, p95 = (1000 * np.percentile(each, [50, 95])).round(1).tolist()
        cpu = round(1000 * processor[name] / len(each), 2)
        found[name] = {"per_second": round(len(each) / seconds[name], 1), "p50_ms": p50, "p95_ms": p95, "cpu_ms": cpu}
    return found


def processes_of(pid: int) -> list[int]:
    """A process and all below it."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return [pid, *(each for child in children for each in processes_of(child))]


def processor_seconds(pid: int) -> float:
    stats = [Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split() for each in processes_of(pid)]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


def differing_pixels(found: bytes, expected: bytes) -> float:
    """Share of pixels; masks that are equal byte by byte are not decoded."""
    if found == expected:
        return 0.0
    masks = [np.asarray(Image.open(io.BytesIO(content))) for content in (found, expected)]
    return float((masks[0] != masks[1]).mean())


def hostile(draw: random.Random) -> bytes:
    body = bytearray(pictures_kept[draw.randrange(PICTURES)])
    kinds = [
        lambda: draw.randbytes(draw.randrange(5000)),
        lambda: bytes(body[: draw.randrange(len(body))]),
        lambda: bytes(body[:16]) + draw.randbytes(8) + bytes(body[24:]),
        lambda: bytes(21_000_000),
        lambda: b"PK\x03\x04" + draw.randbytes(900),
    ]
    return draw.choice(kinds)()


pictures_kept: list[bytes] = []


def survive(port: int, pids: Sequence[int], expected: dict[bytes, bytes]) -> dict[str, Any]:
    """2 000 requests of 32 clients: what became of them, and how the memory of the server grew."""
    draw, bodies = random.Random(0), list(expected)
    asked = [hostile(draw) if i % HOSTILE == 0 else bodies[i % len(bodies)] for i in range(REQUESTS)]
    statuses: list[int] = []
    other, before, local = [0], resident(pids), threading.local()

    def one(body: bytes) -> None:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            status, answer = post(local.connection, body)
        except (OSError, http.client.HTTPException):  # closed after a refusal; asked once more
            local.connection.close()
            status, answer = post(local.connection, body)
        if body in expected:
            other[0] += differing_pixels(answer, expected[body]) > 1e-3 if status == 200 else 0
        statuses.append(status)

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(one, asked))
    good, number = REQUESTS - len(range(0, REQUESTS, HOSTILE)), len(statuses)
    if statuses.count(200) < good or other[0] or any(status >= 500 for status in statuses) or number != REQUESTS:
        raise RuntimeError(f"Every good request should be answered. Found {statuses.count(200)}, {other[0]} otherwise.")
    return {"grown_mib": round(resident(pids) - before, 1), "answered": statuses.count(200), "refused": number - good}


def resident(pids: Sequence[int]) -> float:
    """Mebibytes of processes at most, so far."""
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return sum(int(found[1]) for text in texts if (found := re.search(r"VmHWM:\s+(\d+)", text))) / 1024


def run() -> list[dict[str, Any]]:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    python, hsl = sys.executable, "from hsl.cli import main; main()"
    pictures_kept[:] = pictures()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = [*TRAIN, f"run_dir={folder / 'run'}", f"data.root={folder / 'data'}"]
        subprocess.run([python, "-c", hsl, "train", *words], check=True, cwd=folder, capture_output=True)
        model = next((folder / "run").iterdir())
        expected = predicted(python, hsl, model, folder)
        for title, code in (("plain", PLAIN), ("litserve", LITSERVE)):
            (folder / f"{title}.py").write_text(code)
        servers = {
            "ours": ([python, "-c", hsl, "serve", f"model={model}", "port=PORT"], ask_plainly),
            "plain": ([python, str(folder / "plain.py"), str(model), "PORT"], ask_plainly),
            "litserve": ([python, str(folder / "litserve_.py"), str(model), "PORT"], ask_litserve),
        }
        (folder / "litserve.py").rename(folder / "litserve_.py")
        with contextlib.ExitStack() as stack:
            started: dict[str, Server] = {}
            for title, (command, ask) in servers.items():
                server, port = stack.enter_context(process(command, folder))
                started[title] = server, port, ask
                load(port, ask, 4, expected)
            measured = {clients: in_turns(started, clients, expected) for clients in CLIENTS}
            server, port, _ = started["ours"]
            survived = survive(port, processes_of(server.pid), expected)
    return rows(measured, survived)


def predicted(python: str, hsl: str, model: Path, folder: Path) -> dict[bytes, bytes]:
    """Picture -> the mask of `hsl predict`."""
    (folder / "in").mkdir()
    for i, body in enumerate(pictures_kept):
        (folder / "in" / f"{i:02d}.png").write_bytes(body)
    words = [f"run={model}", f"input={folder / 'in'}", f"output={folder / 'out'}"]
    subprocess.run([python, "-c", hsl, "predict", *words], check=True, cwd=folder, capture_output=True)
    return {body: (folder / "out" / "masks" / f"{i:02d}.png").read_bytes() for i, body in enumerate(pictures_kept)}


def rows(measured: dict[int, dict[str, dict[str, float]]], survived: dict[str, Any]) -> list[dict[str, Any]]:
    versions = {name: version(name) for name in ("torch", "fastapi", "uvicorn", "litserve")}
    base = {"picture": list(SIZE), "network": SIDE, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    found = []
    for peer, goal in (("plain", GOAL), ("litserve", 1.0)):
        for clients in CLIENTS:
            own, other = measured[clients]["ours"], measured[clients][peer]
            sizes = base | {"clients": clients, "ours": own, "peer": other, "unit": "requests per second"}
            ratio = own["per_second"] / other["per_second"]
            wanted = goal if clients == max(CLIENTS) else 0.0
            found.append((f"throughput by that of {peer}, {clients} clients", sizes, own["per_second"],
                          other["per_second"], ratio, wanted))  # fmt: skip
    for peer, goal in (("plain", GOAL), ("litserve", 0.0)):
        own, other = (measured[max(CLIENTS)][name]["cpu_ms"] for name in ("ours", peer))
        sizes = base | {"clients": max(CLIENTS), "unit": "milliseconds of the processor for a request"}
        found.append(
            (f"processor time of {peer} by ours, {max(CLIENTS)} clients", sizes, own, other, other / own, goal)
        )
    sizes = base | {"requests": REQUESTS, "hostile": REQUESTS // HOSTILE, **survived, "unit": "MiB"}
    grown = max(1.0, survived["grown_mib"])
    found.append(("2 000 requests, none lost: 512 MiB by what the memory grew", sizes, grown, MEMORY_MIB,
                  MEMORY_MIB / grown, 1.0))  # fmt: skip
    return [
        {"name": f"serve, {name}", "sizes": sizes, "versions": versions, "ours": ours, "peer": peer,
         "ratio": round(ratio, 3), "goal": goal, "holds": ratio >= goal}
        for name, sizes, ours, peer, ratio, goal in found
    ]  # fmt: skip
