"""A sweep through `hydra/launcher=local`, for real: each run in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from hsl.cli import conf_dir

ROOT = Path(__file__).parents[2]
TINY = [
    "encoder=mobilenetv3_small", "encoder.weights=null", "data.reader.num_pictures=40", "data.image_size=64",
    "data.batch_size=8", "data.num_workers=0", "trainer.accelerator=cpu", "trainer.max_epochs=1",
    "callbacks.tta_evaluation=null", "logger=none",
]  # fmt: skip


def sweep(outputs: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "train.py", "-m", "hydra/launcher=local", *TINY, *overrides]
    return subprocess.run(
        [*command, f"output_root={outputs}"], cwd=outputs.parent, capture_output=True, text=True, check=False
    )


def provenances(outputs: Path) -> list[dict[str, object]]:
    files = sorted(outputs.glob("segmentation-mobilenetv3_small/fold*/*/provenance.json"))
    return [json.loads(path.read_text()) for path in files]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_runs_in_jobs_and_runs_again_only_what_is_not_finished(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    done = sweep(outputs, "fold=0,1")
    assert done.returncode == 0, done.stderr
    first = provenances(outputs)
    assert [(p["fold"], p["status"]) for p in first] == [(0, "finished"), (1, "finished")]
    assert [str(p["command"]).split()[-2] for p in first] == ["fold=0", "fold=1"]

    again = sweep(outputs, "fold=1,2")
    assert again.returncode == 0, again.stderr
    second = provenances(outputs)
    assert second[:2] == first
    assert [(p["fold"], p["status"]) for p in second[2:]] == [(2, "finished")]
    logs = "".join(path.read_text() for path in outputs.glob(".sweeps/*/.submitit/*/*_log.out"))
    assert logs.count("finished already") == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_mistake_in_a_job_is_one_sentence(tmp_path: Path) -> None:
    done = sweep(tmp_path / "outputs", "fold=9,8")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: `fold` should be in [0, ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("option", "kind", "expected"),
    [
        (
            "slurm",
            "SlurmLauncher",
            {"timeout_min": 1440, "max_num_timeout": 100, "partition": None, "gpus_per_node": 1},
        ),
        ("local", "LocalLauncher", {"timeout_min": 10080, "tasks_per_node": 1, "gpus_per_node": None}),
    ],
)
def test_the_options_are_the_plugin_s_with_other_defaults(option: str, kind: str, expected: dict[str, object]) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        launcher = compose("train", [f"hydra/launcher={option}"], return_hydra_config=True).hydra.launcher
    assert launcher._target_.endswith(f".{kind}")
    assert {key: launcher[key] for key in expected} == expected
