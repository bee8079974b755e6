"""What a mistake and the verbs that read cost in processor time: none of them imports torch.

The peer is `import lightning, torchmetrics`, what an answer after the imports would cost at least. Reports are made on
three runs, trained here for one epoch, unless ``HSL_BENCHMARK_RUNS`` is a glob of others; the audit is of the drawn
pictures, whose scan is stored before it is timed.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
HSL = "from hsl.cli import main; main()"
ROUNDS = 3
PICTURES = 160
MISTAKES = {
    "wrong option": ["train", "encoder=typo"],
    "wrong key": ["train", "data.rot=pictures"],
    "no data.root": ["train", "data=folder"],
    "data.root that is not there": ["train", "data=folder", "data.root=nowhere"],
    "wrong monitor": ["train", "monitor=val/typo"],
    "wrong fold": ["train", "fold=9"],
    "wrong run of evaluate": ["evaluate", "run=nowhere"],
    "wrong run of predict": ["predict", "run=nowhere", "input=x", "output=y"],
    "wrong runs of report": ["report", "runs=nowhere"],
    "wrong metric of report": ["report", "runs=nowhere", "metric=typo"],
    "wrong root of audit": ["audit", "data=folder", "data.root=nowhere"],
}
TINY = ["encoder=mobilenetv3_small", "encoder.weights=null", "trainer=cpu", "trainer.max_epochs=1", "logger=none",
        "callbacks.progress=null", "metrics=none", "data.image_size=64", "data.num_workers=0",
        f"data.reader.num_pictures={PICTURES}"]  # fmt: skip


def run() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        peer = median_s(["-c", "import lightning, torchmetrics"], 0, folder)
        rows = [row(f"startup: {name}", words, 2, 2.0, peer, folder) for name, words in MISTAKES.items()]
        audit = ["audit", f"data.reader.num_pictures={PICTURES}"]
        cpu_s(["-c", HSL, *audit], 0, folder)  # draws the pictures and scans them
        rows.append(row("startup: hsl audit, warm", audit, 0, 4.0, peer, folder))
        runs = os.environ.get("HSL_BENCHMARK_RUNS") or trained(folder)
        for verb, limit in (("runs", 2.0), ("options", 2.0)):
            rows.append(row(f"startup: hsl {verb}", [verb], 0, limit, peer, folder))
        rows.append(row("startup: hsl report on 3 runs", ["report", f"runs={runs}"], 0, 12.0, peer, folder))
    return rows


def trained(folder: str) -> str:
    """Three folds of a small model."""
    for fold in range(3):
        cpu_s(["-c", HSL, "train", *TINY, f"fold={fold}"], 0, folder)
    return "outputs/segmentation-*"


def row(name: str, words: list[str], code: int, limit: float, peer: float, folder: str) -> dict[str, Any]:
    ours = median_s(["-c", HSL, *words], code, folder)
    packages = ("hydra-core", "torch", "lightning", "torchmetrics")
    return {
        "name": name,
        "sizes": {"rounds": ROUNDS, "words": " ".join(words), "unit": "seconds of user and system time"},
        "versions": {"python": platform.python_version(), **{each: metadata.version(each) for each in packages}},
        "ours": round(ours, 2),
        "peer": round(peer, 2),
        "ratio": round(peer / ours, 2),
        "goal": f"under {limit:g} s",
        "holds": ours < limit,
    }


def median_s(command: list[str], code: int, folder: str) -> float:
    return statistics.median(cpu_s(command, code, folder) for _ in range(ROUNDS))


def cpu_s(command: list[str], code: int, folder: str) -> float:
    """Of a process of Python and its children."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(
        [sys.executable, *command], cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        told = process.stderr.read() if process.stderr else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != code:
        raise RuntimeError(f"{command} should end with {code}. Found {process.returncode}: {told.decode()[-2000:]}")
    return usage.ru_utime + usage.ru_stime
