"""`trainer=ddp`: two processes on the CPU give the metrics of one."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
TINY = [
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
    run(ROOT / "train.py", "-m", *TINY, "fold=1,2", f"output_root={outputs}", cwd=tmp_path)
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
    command = [ROOT / "train.py", *TINY, "trainer.max_epochs=6", "resume=last", f"output_root={outputs}"]
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
