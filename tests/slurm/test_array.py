"""From the array index to one run's overrides; arrays and submitit on a real SLURM.

`.ci/run slurm` starts one and sets HSL_SLURM, so that nothing is skipped there.
"""

import contextlib
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from hsl.cli import conf_dir

ROOT = Path(__file__).parents[2]
SCRIPT = Path("slurm") / "array.sbatch"
PATIENCE_S = 150.0
TINY = [
    "data.reader.num_pictures=40", "data.image_size=64", "data.batch_size=8", "data.num_workers=0",
    "encoder.weights=null", "trainer.accelerator=cpu", "trainer.max_epochs=10",
    "callbacks.tta_evaluation=null", "logger=none",
]  # fmt: skip
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        shutil.which("sinfo") is None and "HSL_SLURM" not in os.environ,
        reason="no SLURM on this machine; `bash .ci/run slurm` starts one",
    ),
]
PICK = Path(__file__).parents[2] / "slurm" / "pick.py"
TINY_JOB = [
    "encoder=mobilenetv3_small", "encoder.weights=null", "data.reader.num_pictures=40", "data.image_size=64",
    "data.batch_size=8", "data.num_workers=0", "trainer.accelerator=cpu", "trainer.max_epochs=1",
    "callbacks.tta_evaluation=null", "logger=none",
]  # fmt: skip


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Standard output of a command that succeeds."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def submit(cwd: Path, logs: Path, *arguments: str, array: str = "") -> str:
    """Number of the job; its logs are ``logs/<index>.log``."""
    options = ["--parsable", "--cpus-per-task=1", "--mem=2G", f"--output={logs}/%a.log"]
    array_option = [f"--array={array}"] if array else []
    return run("sbatch", *options, *array_option, SCRIPT, *arguments, cwd=cwd).strip()


def job(name: str) -> dict[str, str]:
    """What SLURM says about one job, or one element ``<job>_<index>`` of an array."""
    line = run("scontrol", "--oneliner", "show", "job", name).splitlines()[0]
    return dict(pair.split("=", 1) for pair in line.split() if "=" in pair)


def wait(what: str, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in {PATIENCE_S} s\n{run('squeue')}"
        time.sleep(0.05)


def state(name: str) -> str:
    return job(name)["JobState"]


def warn(name: str) -> None:
    """Send what `--signal=B:USR1@120` sends before the time limit.

    While several elements of the array wait, scancel 22.05 delivers it, reports that it could not, and
    sends it again 5 s later.
    """
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(["scancel", "--batch", "--signal=USR1", name], check=False, timeout=3)


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    """A repository whose train.py writes down its arguments and then waits for SIGTERM, as a run does."""
    shutil.copytree(ROOT / "slurm", tmp_path / "slurm")
    (tmp_path / "train.py").write_text(
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "print(*sys.argv[1:], flush=True)\n"
        "signal.pause()\n"
    )
    return tmp_path


@pytest.fixture(autouse=True)
def this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSL_PYTHON", sys.executable)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def only_run(outputs: Path, encoder: str, fold: int) -> Path:
    (folder,) = (outputs / f"segmentation-{encoder}" / f"fold{fold}").iterdir()
    return folder


def epochs(outputs: Path, encoder: str, fold: int) -> list[int]:
    """Epochs in history.csv so far."""
    files = list((outputs / f"segmentation-{encoder}" / f"fold{fold}").glob("*/history.csv"))
    return [int(row["epoch"]) for path in files for row in csv.DictReader(path.read_text().splitlines())]


def curves(folder: Path) -> list[dict[str, str]]:
    """The rows of history.csv, without the mean over the batches since the start of the process."""
    rows = csv.DictReader((folder / "history.csv").read_text().splitlines())
    return [{name: value for name, value in row.items() if not name.startswith("train/loss")} for row in rows]


def test_an_array_of_four_with_one_requeued_equals_the_uninterrupted_run(tmp_path: Path) -> None:
    encoders = ("mobilenetv3_small", "efficientnet_lite0")
    outputs, twin = tmp_path / "array", tmp_path / "twin"
    overrides = [f"encoder={','.join(encoders)}", "fold=0,1", *TINY, f"data.root={tmp_path}/data"]
    array = submit(ROOT, tmp_path, *overrides, f"output_root={outputs}", array="0-3")
    first = f"{array}_0"
    wait("two epochs", lambda: len(epochs(outputs, encoders[0], 0)) >= 2)
    warn(first)
    wait("requeueing", lambda: job(first)["Restarts"] == "1")
    interrupted = only_run(outputs, encoders[0], 0)
    done = epochs(outputs, encoders[0], 0)
    assert json.loads((interrupted / "provenance.json").read_text())["status"] == "interrupted"
    assert done[-1] < 9, "nothing is left to resume"
    wait("its end", lambda: state(first) != "COMPLETING")
    run("scontrol", "update", f"JobId={first}", "StartTime=now")  # SLURM lets it wait two minutes
    one = [f"encoder={encoders[0]}", "fold=0", *overrides[2:], f"output_root={twin}"]
    run(sys.executable, "train.py", *one)
    for index in range(4):
        wait(f"the end of run {index}", lambda name=f"{array}_{index}": state(name) == "COMPLETED")

    assert [job(f"{array}_{index}")["Restarts"] for index in range(4)] == ["1", "0", "0", "0"]
    log = (tmp_path / "0.log").read_text()
    assert "start 1: encoder=mobilenetv3_small fold=0 " in log
    assert "start 2: encoder=mobilenetv3_small fold=0 " in log
    for index, (encoder, fold) in enumerate([(e, f) for e in encoders for f in (0, 1)]):
        folder = only_run(outputs, encoder, fold)
        assert json.loads((folder / "provenance.json").read_text())["status"] == "finished"
        assert epochs(outputs, encoder, fold) == list(range(10))
        assert f"encoder={encoder} fold={fold} " in (tmp_path / f"{index}.log").read_text()
    resumed, whole = only_run(outputs, encoders[0], 0), only_run(twin, encoders[0], 0)
    for name in ("metrics.json", "per_image.csv"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes(), name
    assert curves(resumed) == curves(whole)


def test_workers_of_a_study_share_its_trials(tmp_path: Path) -> None:
    words = [
        "study",
        "study=demo",
        *TINY_JOB,
        f"data.root={tmp_path}/data",
        f"output_root={tmp_path}/out",
        "pruner=none",
    ]
    settings = ["pruner=none", "study.folds=[0]", "study.num_trials=3", "study.confirm.top=0"]
    array = submit(ROOT, tmp_path, *words, *settings, array="0-1")
    for index in range(2):
        wait(f"the end of worker {index}", lambda name=f"{array}_{index}": state(name) == "COMPLETED")
    shown = run(sys.executable, "-c", "from hsl.cli import main; main()", "study", "show", "name=demo_study",
                f"output_root={tmp_path}/out", "json=true")  # fmt: skip
    assert [(row["trial"], row["state"]) for row in json.loads(shown)] == [(n, "complete") for n in range(3)]


def test_scancel_is_final(stub: Path) -> None:
    cancelled = submit(stub, stub, "fold=0")
    log = stub / "4294967294.log"  # what SLURM calls the index of a job without an array
    wait("the start", lambda: log.is_file() and "resume=last fold=0" in log.read_text())
    run("scancel", cancelled)
    wait("the end", lambda: state(cancelled) == "CANCELLED")
    assert job(cancelled)["Restarts"] == "0"


def test_an_index_without_a_run_says_how_many_there_are(stub: Path) -> None:
    wrong = submit(stub, stub, "encoder=a,b", "fold=0,1", array="4")
    wait("the end", lambda: state(wrong) == "FAILED")
    assert job(wrong)["ExitCode"] == "2:0"
    assert (stub / "4.log").read_text() == (
        "error: the array index should be in [0, 4), one for each run of `encoder=a,b fold=0,1`. "
        "Found 4. Submit with `--array=0-3`.\n"
    )


def test_a_sweep_without_an_array_is_refused(stub: Path) -> None:
    wrong = submit(stub, stub, "fold=0,1")
    wait("the end", lambda: state(wrong) == "FAILED")
    assert "Submit with --array=" in (stub / "4294967294.log").read_text()


def test_submitit_sends_a_sweep_to_slurm(tmp_path: Path) -> None:
    options = ("gpus_per_node=null", "cpus_per_task=1", "mem_gb=2", "timeout_min=10")
    launcher = ["hydra/launcher=slurm", *(f"hydra.launcher.{option}" for option in options)]
    changes = ["encoder=mobilenetv3_small", "fold=0,1", *TINY, "trainer.max_epochs=1", "resume=last"]
    outputs = tmp_path / "outputs"
    run(
        sys.executable,
        "train.py",
        "-m",
        *launcher,
        *changes,
        f"data.root={tmp_path}/data",
        f"output_root={outputs}",
    )
    for fold in (0, 1):
        folder = only_run(outputs, "mobilenetv3_small", fold)
        provenance = json.loads((folder / "provenance.json").read_text())
        assert provenance["status"] == "finished"
        assert re.match(rf"hsl train encoder=mobilenetv3_small fold={fold} ", provenance["command"])
    assert len(list(outputs.glob(".sweeps/*/.submitit/*/*_result.pkl"))) == 2


def pick(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, PICK, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (0, ["encoder=a", "fold=0"]),
        (2, ["encoder=a", "fold=2"]),
        (3, ["encoder=b", "fold=0"]),
        (5, ["encoder=b", "fold=2"]),
    ],
)
def test_the_last_list_varies_fastest(index: int, expected: list[str]) -> None:
    assert pick(str(index), "encoder=a,b", "fold=0,1,2").stdout.splitlines() == expected


def test_only_sweeps_are_taken_apart() -> None:
    arguments = ["data.image_size=[128,160]", "+note='a,b'", "~logger", "fold=range(2)", "data.root=/a b/c"]
    expected = ["data.image_size=[128,160]", "+note='a,b'", "~logger", "fold=1", "data.root=/a b/c"]
    assert pick("1", *arguments).stdout.splitlines() == expected


@pytest.mark.parametrize("index", ["6", "-1"])
def test_an_index_without_a_run_is_an_error(index: str) -> None:
    done = pick(index, "encoder=a,b", "fold=0,1,2")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"in [0, 6), one for each run of `encoder=a,b fold=0,1,2`. Found {index}." in done.stderr


def test_a_broken_override_is_an_error() -> None:
    done = pick("0", "encoder=a,[b")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")


def sweep(outputs: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "train.py", "-m", "hydra/launcher=local", *TINY_JOB, *overrides]
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
