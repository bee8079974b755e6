"""`kill -9` in the middle of a run: nothing is broken, and the run goes on where it was."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

ROOT = Path(__file__).parents[3]
TINY = [
    "encoder=mobilenetv3_small", "encoder.weights=null", "data.reader.num_pictures=45", "data.image_size=64",
    "data.batch_size=4", "data.num_workers=1", "trainer.accelerator=cpu", "trainer.max_epochs=4",
    "callbacks.tta_evaluation=null",
]  # fmt: skip
PATIENCE_S = 240


def command(*more: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *TINY, *more]


@pytest.mark.slow
def test_a_killed_run_leaves_no_broken_file_and_goes_on(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "HSL_RUN_DIR"}
    with subprocess.Popen(command(), cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) as run:
        deadline = time.monotonic() + PATIENCE_S
        while not list(tmp_path.glob("outputs/*/fold0/*/checkpoints/last.ckpt")):
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(run.pid, signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL

    (folder,) = tmp_path.glob("outputs/*/fold0/*/")
    epochs_done = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] + 1
    assert 1 <= epochs_done < 4
    assert json.loads((folder / "provenance.json").read_text())["status"] == "running"
    json.loads((folder / "splits.json").read_text())
    assert len(pd.read_csv(folder / "history.csv")) in (epochs_done, epochs_done + 1)
    assert not (folder / "metrics.json").exists()

    done = subprocess.run(
        command("resume=last"), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("outputs/*/fold0/*/")) == [folder]
    assert pd.read_csv(folder / "history.csv")["epoch"].tolist() == [0, 1, 2, 3]
    assert f"epoch {epochs_done}/4" not in done.stdout  # what was done is not done again
    assert json.loads((folder / "provenance.json").read_text())["status"] == "finished"
    assert not list((folder / "checkpoints").glob(".*"))
