"""`hsl serve` as a process of its own: settings, faults, hostile pictures, and the page in a browser."""

import http.client
import io
import json
import os
import random
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from tests.conftest import compose_tiny, composed

from hsl.errors import ConfigError
from hsl.exporting.manifest import MANIFEST
from hsl.verbs.predict.predict import predict
from hsl.verbs.serve import OpenArtefact, access_of, opener_of
from hsl.verbs.train.train import train

TOKEN = "0123456789abcdef"
ANNOUNCED = {503, 504}


def settings(**given: Any) -> DictConfig:
    base = {"model": "x", "gate": None, "host": "127.0.0.1", "hosts": [], "token": None, "token_file": None}
    return OmegaConf.create({**base, "insecure": False, **given})


def test_other_machines_need_a_token_or_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"`host = 0\.0\.0\.0` and none"):
        access_of(settings(host="0.0.0.0"))
    assert access_of(settings(host="0.0.0.0", insecure=True)).token is None
    assert "no token" in capsys.readouterr().err
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    opened = access_of(settings(host="0.0.0.0", hosts=["Leaves.example"], token_file=str(tmp_path / "token")))
    assert opened.token == TOKEN
    assert opened.hosts == {"localhost", "127.0.0.1", "::1", "leaves.example"}
    assert "192.0.2.1" in access_of(settings(host="192.0.2.1", token=TOKEN)).hosts


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"token": "short"}, "at least 16"),
        ({"token": "with blanks in between it"}, "no blanks"),
        ({"token_file": "nowhere"}, "`token_file` should be a file"),
        ({"token": TOKEN, "token_file": "x"}, "not both"),
    ],
)
def test_tokens_that_are_none(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        access_of(settings(**given))


def test_a_model_that_is_none() -> None:
    with pytest.raises(ConfigError, match="`model` should be a run folder"):
        opener_of(settings(model="nowhere"))


def test_an_artefact_brings_its_own_gate(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text("{}")
    assert isinstance(opener_of(settings(model=str(tmp_path))), OpenArtefact)
    with pytest.raises(ConfigError, match="`gate` should be left away"):
        opener_of(settings(model=str(tmp_path), gate="x"))


# From here on with the extras, and a process of its own.


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, demo_root: Path) -> Path:
    folder = tmp_path_factory.mktemp("served")
    overrides = ["encoder=mobilenetv3_small", "trainer.max_epochs=1", f"run_dir={folder / 'run'}"]
    train(compose_tiny(folder, demo_root, *overrides))
    return next((folder / "run").iterdir())


class Process:
    """`hsl serve` of a run."""

    def __init__(self, run: Path, *words: str, **options: Any) -> None:
        program = "from hsl.cli import main; main()"
        command = [sys.executable, "-c", program, "serve", f"model={run}", "port=0", *words]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
        assert self.process.stdout is not None
        self.said = [self.process.stdout.readline()]
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", self.said[0])
        assert found, self.said[0] + self.process.stdout.read()
        self.port = int(found[1])
        self.reader = threading.Thread(target=lambda: self.said.extend(self.process.stdout or ()), daemon=True)
        self.reader.start()

    @property
    def workers(self) -> list[int]:
        """Processes that compute, the latest last."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(c) for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        named = {"Content-Type": "image/png"} if body is not None else {}
        try:
            connection.request("GET" if body is None else "POST", path, body, named | headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def batched(self) -> float:
        """Pictures that were handed to a worker."""
        return float(re.search(rb"^hsl_batched_pictures (.*)$", self.ask("/metrics")[1], re.MULTILINE)[1])  # type: ignore[index]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(60)
        finally:
            self.process.kill()
        self.reader.join(10)
        self.process.stdout.close()  # type: ignore[union-attr]
        return code


@pytest.fixture(scope="module")
def served(trained: Path) -> Iterator[Process]:
    process = Process(trained, "queue=8", "batch=4", "upload_mb=2", "max_megapixels=12")
    yield process
    assert process.stop() == 0
    log = "".join(process.said)
    assert "Traceback" not in log
    assert "secret" not in log


def photo(seed: int = 0, size: tuple[int, int] = (64, 48), kind: str = "PNG", **options: Any) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return saved(Image.fromarray(noise), kind, **options)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def pixels(content: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(content))).astype(int)


LARGE = saved(Image.new("RGB", (2000, 1500), (90, 160, 80)), "PNG")
"""Takes the model a third of a second."""


@pytest.mark.extras
def test_masks_are_those_of_predict(served: Process, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i, size in enumerate([(64, 48), (200, 90), (33, 71)]):
        (tmp_path / "in" / f"p{i}.png").write_bytes(photo(i, size))
    predict(composed([f"run={trained}", f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}"], "predict"))
    for path in sorted((tmp_path / "in").iterdir()):
        status, mask = served.ask("/segment", path.read_bytes())
        assert status == 200
        assert mask == (tmp_path / "out" / "masks" / path.name).read_bytes()
        overlay = pixels(served.ask("/segment?format=overlay", path.read_bytes())[1])
        expected = pixels((tmp_path / "out" / "overlays" / path.name).read_bytes())
        assert np.abs(overlay - expected).max() <= 1  # a batch of others rounds confidences otherwise


@pytest.mark.extras
def test_a_killed_worker_costs_one_question(served: Process) -> None:
    with ThreadPoolExecutor() as pool:
        first, before = served.workers[-1], served.batched()
        lost = pool.submit(served.ask, "/segment?format=overlay", LARGE)
        while served.batched() == before:
            time.sleep(0.01)
        os.kill(first, signal.SIGKILL)
        status, body = lost.result()
        assert (status, json.loads(body)["code"]) == (503, "worker_lost")
        waiting = [pool.submit(served.ask, "/segment", photo(seed)) for seed in range(4)]
        assert [each.result()[0] for each in waiting] == [200] * 4
    assert served.workers[-1] != first


@pytest.mark.extras
def test_a_full_queue_and_a_reload(served: Process) -> None:
    with ThreadPoolExecutor(40) as pool:
        many = [pool.submit(served.ask, "/segment", LARGE) for _ in range(24)]
        statuses = [each.result()[0] for each in many]
        assert set(statuses) == {200, 429}
        before = served.workers[-1]
        served.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 60
        done = []
        while served.workers[-1] == before or len(served.workers) > 1:
            done.append(served.ask("/segment", photo())[0])
            assert time.monotonic() < end
        assert set(done) == {200}
    assert b"hsl_reloads 1.0" in served.ask("/metrics")[1]


@pytest.mark.extras
def test_a_full_disk_changes_nothing_and_the_end_answers_what_was_taken(trained: Path) -> None:
    process = Process(trained)
    for pid in (process.process.pid, *process.workers):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, 0))  # no file may grow
    boundary = {"Content-Type": "multipart/form-data; boundary=x"}
    head = b'--x\r\nContent-Disposition: form-data; name="picture"; filename="../../secret.png"\r\n\r\n'
    noise = photo(size=(1500, 1100))  # more than what others keep in memory
    assert len(noise) > 2**21
    assert process.ask("/segment?format=overlay", head + noise + b"\r\n--x--\r\n", **boundary)[0] == 200
    before = process.batched()
    with ThreadPoolExecutor() as pool:
        taken = [pool.submit(process.ask, "/segment", LARGE) for _ in range(3)]
        while process.batched() < before + 3:
            time.sleep(0.01)
        assert process.stop() == 0
        assert [each.result()[0] for each in taken] == [200] * 3


@pytest.mark.extras
def test_half_open_connections_and_slow_senders_block_nobody(served: Process) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 100000\r\n\r\n"
    beginnings = [b"", b"POST /predict HT", head[:60], head + photo()[:50]]
    opened = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(200)]
    try:
        for i, connection in enumerate(opened):
            connection.sendall(beginnings[i % 4])
        start = time.monotonic()
        assert served.ask("/segment", photo())[0] == 200
        assert time.monotonic() - start < 10
        time.sleep(11)
        closed = sum(is_closed(connection) for connection in opened)
        assert closed == 150  # but those whose pictures come slowly, which have longer
    finally:
        for connection in opened:
            connection.close()
    assert served.ask("/ready")[0] == 200


def is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


# Pictures of people who mean harm, from a seeded generator.


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, bits: int, colour: int, rows: bytes, *more: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def tiff_of(draw: random.Random, entries: int = 12) -> bytes:
    tags = [
        (256, 4),
        (257, 4),
        (258, 3),
        (259, 3),
        (262, 3),
        (273, 4),
        (277, 3),
        (278, 4),
        (279, 4),
        (284, 3),
        (330, 4),
    ]
    body = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", entries)
    for _ in range(entries):
        tag, kind = draw.choice(tags)
        number = draw.choice([1, 8, 3, 40_000, 2**31 - 1, 2**32 - 1, draw.randrange(2**32)])
        body += struct.pack("<HHII", tag, kind, draw.choice([1, 1, 3, 2**28]), number)
    return body + struct.pack("<I", draw.choice([0, 8, 2**31])) + draw.randbytes(200)


def mutated(draw: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.randrange(1, 12)):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed[: draw.randrange(8, len(changed))] if draw.random() < 0.3 else changed)


def hostile() -> dict[str, bytes]:
    draw, zeros = random.Random(0), zlib.compress(bytes(10**8), 9)
    frames = [Image.new("P", (200, 200), i) for i in range(40)]
    good = {kind: photo(3, (40, 30), kind) for kind in ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF")}
    exif = Image.Exif()
    exif[0x010E] = "<script>secret()</script>" * 20
    exif[274] = 6
    made = {
        "bomb of 1 bit": png_of(30_000, 30_000, 1, 0, bytes(3751 * 3000)),
        "bomb of 16 bits": png_of(20_000, 20_000, 16, 6, bytes(10**7)),
        "rows that lack": png_of(3000, 3000, 8, 2, bytes(1000)),
        "rows without end": png_of(10, 10, 8, 2, bytes(10**7)),
        "no size": png_of(0, 0, 8, 2, b""),
        "largest size": png_of(2**31 - 1, 2**31 - 1, 8, 2, b""),
        "text without end": png_of(10, 10, 8, 2, bytes(310), chunk(b"zTXt", b"a\0\0" + zeros)),
        "chunks without end": b"\x89PNG\r\n\x1a\n" + chunk(b"tEXt", b"") * 100_000,
        "profile without end": png_of(10, 10, 8, 2, bytes(310), chunk(b"iCCP", b"a\0\0" + zeros)),
        "palette that lacks": png_of(10, 10, 8, 3, bytes(110)),
        "animated GIF": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "GIF of a huge screen": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0xF7, 0, 0) + bytes(900),
        "animated WebP": saved(frames[0].convert("RGB"), "WEBP", save_all=True, append_images=frames[1:9]),
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "XML with entities": b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa">]><svg>&a;</svg>',
        "zip": b"PK\x03\x04" + draw.randbytes(2000),
        "gzip bomb": zlib.compress(bytes(10**8), 9, 31)[:100_000],
        "pdf": b"%PDF-1.7" + draw.randbytes(2000),
        "html": b"<html><script>secret()</script></html>",
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(secret) run",
        "video": b"\0\0\0\x18ftypheic" + draw.randbytes(500),
        "nothing": b"",
        "zeros": bytes(10_000),
        "noise": draw.randbytes(10_000),
        "too large": draw.randbytes(3_000_000),
        "JPEG with a script": saved(Image.new("RGB", (30, 20)), "JPEG", exif=exif.tobytes()),
        "JPEG of a huge size": good["JPEG"].replace(struct.pack(">HH", 30, 40), struct.pack(">HH", 65500, 65500), 1),
        "JPEG that ends": good["JPEG"][:-20],
        "JPEG without scans": b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(20) + b"\xff\xd9",
        "JPEG of 12 bits": good["JPEG"].replace(b"\x08\0\x1e\0\x28", b"\x0c\0\x1e\0\x28"),
        "BMP of a huge size": good["BMP"][:18] + struct.pack("<ii", 2**31 - 1, -(2**31)) + good["BMP"][26:],
        "WebP of a huge size": b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\xff" * 10,
        "float TIFF": saved(Image.fromarray(np.full((9, 9), np.nan, np.float32)), "TIFF"),
        "TIFF in a circle": b"II*\0\x08\0\0\0\0\0\x08\0\0\0" + bytes(20),
    }  # fmt: skip
    for i in range(8):
        made[f"TIFF {i} with false numbers"] = tiff_of(draw)
    for kind, data in good.items():
        for i in range(3):
            made[f"changed {kind} {i}"] = mutated(draw, data)
    return made


@pytest.mark.extras
def test_hostile_pictures(served: Process) -> None:
    inputs = hostile()
    assert len(inputs) >= 50
    before, first = memory(served.workers[-1]), served.workers[-1]
    for name, data in inputs.items():
        for path in ("/predict", "/segment?format=polygons"):
            status, body = served.ask(path, data)
            assert status in (200, 413, 415, 422), (name, status, body)
            assert b"secret" not in body, name
            assert b"/" not in json.loads(body).get("error", "").replace("n/a", "").encode() or "`/" in body.decode(), (
                name
            )
            if status != 200:
                assert set(json.loads(body)) >= {"code", "error"}
    assert served.ask("/segment", photo())[0] == 200
    assert served.workers[-1] == first  # none ended it
    assert memory(first) - before < 600


def memory(pid: int) -> float:
    """Mebibytes at most."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024  # type: ignore[index]


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
def test_the_openapi_is_kept(served: Process) -> None:
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, seed
    from hypothesis import settings as bounds
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import positive_data_acceptance  # few random bytes are a picture

    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{served.port}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) == 5
    for operation in operations:

        @seed(0)
        @bounds(
            max_examples=15,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def try_one(case: Any) -> None:
            response = case.call()
            assert response.status_code < 500 or response.status_code in ANNOUNCED
            case.validate_response(response, excluded_checks=[not_a_server_error, positive_data_acceptance])

        try_one()
