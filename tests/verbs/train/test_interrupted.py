"""A signal ends a run within seconds wherever it is, with the code of the shell, and it can be resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[3]
TINY = [
    "encoder=mobilenetv3_small", "encoder.weights=null", "data.reader.num_pictures=36", "data.image_size=64",
    "data.batch_size=4", "data.num_workers=1", "trainer.accelerator=cpu", "trainer.max_epochs=2", "logger=none",
    "callbacks.tta_evaluation=null", "callbacks.evaluation.num_examples=0",
]  # fmt: skip
SLOW_PREDICTOR = """
import sys, time
stage = sys.argv.pop(1)
from hsl.data.prepared import DataSource
from hsl.tasks.segmentation import SegmentationTask
predict, read = SegmentationTask._predict, DataSource.read

def slow(where):
    if where == stage:
        print("there", flush=True)
        time.sleep(120)

def slow_predict(self, batch, predictor=None):
    slow(self.trainer.state.stage.value)
    return predict(self, batch, predictor)

def slow_read(self):
    slow("data")
    return read(self)

SegmentationTask._predict, DataSource.read = slow_predict, slow_read
from hsl.cli import main
main()
"""


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "HSL_RUN_DIR"}
    return {**kept, "PYTHONPATH": str(ROOT / "src")}


def interrupted(tmp_path: Path, stage: str, number: int, *words: str) -> tuple[int, float, str]:
    """Exit code, seconds from the signal to the end, and what was said on stderr."""
    program = tmp_path / "slow.py"
    program.write_text(SLOW_PREDICTOR)
    command = [sys.executable, str(program), stage, "train", *words, *TINY]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while (line := process.stdout.readline()) not in ("there\n", ""):
            pass
        if not line:
            pytest.fail(process.stderr.read())
        start = time.monotonic()
        process.send_signal(number)
        _, said = process.communicate(timeout=100)
        return process.returncode, time.monotonic() - start, said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "number", "epochs_known"),
    [
        ("data", signal.SIGTERM, None),
        ("sanity_check", signal.SIGINT, None),
        ("validate", signal.SIGTERM, 0),
        ("validate", signal.SIGHUP, 0),
        ("test", signal.SIGINT, 2),
    ],
)
def test_a_signal_ends_a_run_within_seconds(tmp_path: Path, stage: str, number: int, epochs_known: int | None) -> None:
    code, seconds, said = interrupted(tmp_path, stage, number)
    assert code == 128 + number, said
    assert seconds < 30
    assert "Traceback" not in said
    folders = list(tmp_path.glob("outputs/*/fold0/2*"))
    assert len(folders) == (0 if stage == "data" else 1)
    if stage == "data":
        return
    assert json.loads((folders[0] / "provenance.json").read_text())["status"] == "interrupted"
    assert (folders[0] / "checkpoints" / "last.ckpt").is_file() is (epochs_known is not None)
    train = [sys.executable, str(ROOT / "train.py"), *TINY, "resume=last"]
    done = subprocess.run(train, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert pd.read_csv(folders[0] / "history.csv")["epoch"].tolist() == [0, 1]
    assert pd.read_csv(folders[0] / "history.csv")["train/loss"].notna().all()
    assert list(tmp_path.glob("outputs/*/fold0/2*")) == folders


@pytest.mark.slow
def test_a_sweep_stops_with_the_run_that_is_interrupted(tmp_path: Path) -> None:
    code, _, said = interrupted(tmp_path, "validate", signal.SIGTERM, "-m", "fold=0,1")
    assert code == 143, said
    assert not list(tmp_path.glob("outputs/*/fold1/2*"))


@pytest.mark.slow
def test_two_processes_leave_a_validation_together(tmp_path: Path) -> None:
    words = ("trainer=ddp", "trainer.devices=2", "data.batch_size=8")
    program = tmp_path / "slow.py"
    source = SLOW_PREDICTOR.replace("time.sleep(120)", "time.sleep(3)").replace("sys.argv.pop(1)", "'validate'")
    program.write_text(source.replace("import main\nmain()", "import run_verb\nrun_verb('train')"))  # as train.py does
    kept = [word for word in TINY if not word.startswith("data.batch_size")]
    command = [sys.executable, str(program), *kept, *words, "trainer.accelerator=cpu"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.stdout.readline() not in ("there\n", ""):
            pass
        process.send_signal(signal.SIGTERM)  # only the first of the two hears it
        _, said = process.communicate(timeout=100)
    assert process.returncode == 143, said
    (last,) = tmp_path.glob("outputs/*/fold0/2*/checkpoints/last.ckpt")
    assert last.is_file()
