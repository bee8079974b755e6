"""Several processes and signals: a run ends when told to, goes on where it was, and counts the same on two."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

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


# `kill -9` in the middle of a run: nothing is broken, and the run goes on where it was.


TINY_KILLED = [
    "encoder=mobilenetv3_small", "encoder.weights=null", "data.reader.num_pictures=45", "data.image_size=64",
    "data.batch_size=4", "data.num_workers=1", "trainer.accelerator=cpu", "trainer.max_epochs=4",
    "callbacks.tta_evaluation=null",
]  # fmt: skip
PATIENCE_S = 240


def command(*more: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *TINY_KILLED, *more]


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


# `trainer=ddp`: two processes on the CPU give the metrics of one.


TINY_DDP = [
    "encoder=mobilenetv3_small", "encoder.weights=null",
    "data.reader.num_pictures=36", "data.reader.views_per_panel=3",
    "data.image_size=64", "data.batch_size=8", "data.num_workers=0", "trainer=ddp", "trainer.accelerator=cpu",
    "trainer.max_epochs=2", "callbacks.tta_evaluation=null", "logger=none",
]  # fmt: skip

VALIDATE = """
import json, sys
from pathlib import Path
import lightning
from hydra.utils import instantiate
from omegaconf import OmegaConf
from hsl.verbs.opening.building import build_task
from hsl.verbs.opening.building import load_checkpoint_weights

run, devices = Path(sys.argv[1]), int(sys.argv[2])
cfg = OmegaConf.load(run / "config.yaml")
data = instantiate(cfg.data)
data.prepare()
task = build_task(cfg, data.prepared)
load_checkpoint_weights(task, run / "checkpoints" / "best.ckpt")
trainer = lightning.Trainer(
    accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto",
    use_distributed_sampler=False, logger=False, enable_progress_bar=False, enable_checkpointing=False,
    default_root_dir=run,
)
(scores,) = trainer.validate(task, datamodule=data, verbose=False)
if trainer.is_global_zero:
    scores |= {"devices": trainer.world_size, "pictures": len(data.prepared.parts["val"])}
    Path(sys.argv[3]).write_text(json.dumps(scores))
"""


def run(*command: str | Path, cwd: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "HSL_RUN_DIR"}
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def validated(run_dir: Path, devices: int, folder: Path) -> dict[str, Any]:
    script, answer = folder / "validate.py", folder / f"{devices}.json"
    script.write_text(VALIDATE)
    run(script, run_dir, str(devices), answer, cwd=folder)
    scores: dict[str, Any] = json.loads(answer.read_text())
    assert scores.pop("devices") == devices
    return scores


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_of_distributed_runs_scores_like_one_process(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    run(ROOT / "train.py", "-m", *TINY_DDP, "fold=1,2", f"output_root={outputs}", cwd=tmp_path)
    for fold in (1, 2):
        (run_dir,) = (outputs / "segmentation-mobilenetv3_small" / f"fold{fold}").iterdir()
        metrics = json.loads((run_dir / "metrics.json").read_text())
        rows = list(csv.DictReader((run_dir / "history.csv").read_text().splitlines()))
        pooled = [float(row["val/miou"]) for row in rows]  # over two processes, while training
        alone = metrics["parts"]["val"]["plain"]  # by one process, of the best checkpoint
        assert len(pooled) == 2
        assert metrics["monitor"]["value"] == pytest.approx(max(pooled), abs=1e-7)
        assert alone["miou"] == pytest.approx(max(pooled), abs=1e-6)

    one, two = validated(run_dir, 1, tmp_path), validated(run_dir, 2, tmp_path)
    assert one["pictures"] % 2 == 1, "an odd number: the processes' shares are not equal"
    assert one.keys() == two.keys()
    for name in (
        "val/miou",
        "val/micro_iou",
        "val/mean_dice",
        "val/pixel_accuracy",
    ):  # a loss depends on the batches
        assert two[name] == pytest.approx(one[name], abs=1e-6), name
    assert one["val/miou"] == pytest.approx(alone["miou"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sigterm_ends_all_processes_in_order_and_the_run_goes_on(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    command = [ROOT / "train.py", *TINY_DDP, "trainer.max_epochs=6", "resume=last", f"output_root={outputs}"]
    first = subprocess.Popen([sys.executable, *command], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not list(outputs.glob("*/fold0/*/history.csv")):
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.1)
    first.send_signal(signal.SIGTERM)
    _, errors = first.communicate(timeout=120)  # where Lightning answers the signal, the two wait for each other
    assert first.returncode == 143, errors
    (run_dir,) = outputs.glob("*/fold0/*")
    assert json.loads((run_dir / "provenance.json").read_text())["status"] == "interrupted"

    run(*command, cwd=tmp_path)
    assert [run_dir] == list(outputs.glob("*/fold0/*"))
    rows = list(csv.DictReader((run_dir / "history.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == list(range(6))
    assert json.loads((run_dir / "provenance.json").read_text())["status"] == "finished"
