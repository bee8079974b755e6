"""How soon a typo is answered: no torch is imported on the way to the error."""

import platform
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ROUNDS = 5


def seconds(command: list[str], expected_code: int) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if done.returncode != expected_code:
        raise RuntimeError(
            f"{command} should end with {expected_code}. Found {done.returncode}: {done.stderr.decode()}"
        )
    return time.perf_counter() - start


def run() -> list[dict[str, Any]]:
    typo, peer = [sys.executable, "train.py", "encoder=typo"], [sys.executable, "-c", "import lightning"]
    pairs = [(seconds(typo, 2), seconds(peer, 0)) for _ in range(ROUNDS)]
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    return [
        {
            "name": "python train.py encoder=typo",
            "sizes": {"rounds": ROUNDS},
            "versions": {"python": platform.python_version(), "hydra-core": metadata.version("hydra-core")},
            "ours": f"{ours:.2f} s",
            "peer": f"{theirs:.2f} s (python -c 'import lightning', what an answer after the imports would cost)",
            "ratio": round(ours / theirs, 3),
            "goal": "under 2 s",
            "holds": ours < 2,
        }
    ]
