"""`hsl sweep plan`: the order, and scripts that run everything and go on after an interruption."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hsl.cli import run_verb

ROOT = Path(__file__).parents[2]
MEMORY = {"big": 300, "tiny": 10, "middle": 120}
# Stands for python: writes down what train.py is started with, fails for the middle one, skips what is finished.
PYTHON = """#!/bin/bash
if [[ $1 != train.py ]]; then exec "{real}" "$@"; fi
if grep -qxF -- "$*" "{folder}/finished" 2>/dev/null; then echo "finished already"; exit 0; fi
echo "$*" >> "{folder}/calls"
if [[ $* == *encoder=middle* && -e "{folder}/broken" ]]; then exit 3; fi
echo "$*" >> "{folder}/finished"
"""


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    entries = {
        name: {
            "tier": "light" if memory < 100 else "heavy", "bytes_per_picture": memory * 2**20, "parameters": 10**6,
            "overrides": ["callbacks=[default,oom_backoff]", f"callbacks.oom_backoff.micro_batch={memory}"],
            "image_size": 32, "precision": "32-true",
        }
        for name, memory in MEMORY.items()
    }  # fmt: skip
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "profiles.json").write_text(json.dumps({"format": 1, "encoders": entries}))
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> int:
    given = [f"output_root={folder}", "data.image_size=32", "batch_sizes=[2,3]", "encoders=[big,tiny,middle]"]
    keys = {argument.split("=")[0] for argument in arguments}
    given = [argument for argument in given if argument.split("=")[0] not in keys]
    monkeypatch.setattr(sys, "argv", ["hsl", *given, *arguments])
    monkeypatch.setenv("HSL_ONE_SENTENCE", "")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    try:
        run_verb("sweep_plan")
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def execute(script: Path, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    python = folder / "python"
    python.write_text(PYTHON.format(real=sys.executable, folder=folder))
    python.chmod(0o755)
    environment = {**os.environ, "HSL_PYTHON": str(python), **variables}
    return subprocess.run(["bash", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_light_ones_first_resumable_and_a_failure_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, profiles: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, profiles, "folds=[0,2]", 'overrides=["data.root=a b"]') == 0
    printed = capfd.readouterr().out
    assert printed.index("tiny") < printed.index("middle") < printed.index("big")
    script = profiles / "sweep" / "sweep.sh"
    (profiles / "broken").touch()
    first = execute(script, profiles)
    assert first.returncode == 1
    assert [line for line in first.stderr.splitlines() if line.startswith("failed: encoder=middle")]
    calls = (profiles / "calls").read_text().splitlines()
    expected = [
        f"train.py resume=last encoder={name} callbacks=[default,oom_backoff] "
        f"callbacks.oom_backoff.micro_batch={MEMORY[name]} fold={fold} data.root=a b"
        for name in ("tiny", "middle", "big")
        for fold in (0, 2)
    ]
    assert calls == expected
    (profiles / "broken").unlink()
    second = execute(script, profiles)
    assert second.returncode == 0
    assert (profiles / "calls").read_text().splitlines()[6:] == expected[2:4]


@pytest.mark.parametrize("code", [129, 130, 143])
def test_a_run_that_a_signal_ends_ends_the_sweep(monkeypatch: pytest.MonkeyPatch, profiles: Path, code: int) -> None:
    assert call(monkeypatch, profiles) == 0
    python = profiles / "python-of-the-sweep"
    python.write_text(f"#!/bin/sh\necho once >> {profiles}/calls\nexit {code}\n")
    python.chmod(0o755)
    script = ["bash", str(profiles / "sweep" / "sweep.sh")]
    done = subprocess.run(script, env={**os.environ, "HSL_PYTHON": str(python)}, check=False)
    assert (done.returncode, (profiles / "calls").read_text()) == (code, "once\n")


def test_array_runs_one_task_each_heavy_last(monkeypatch: pytest.MonkeyPatch, profiles: Path) -> None:
    assert call(monkeypatch, profiles, "folds=[0,2]", 'overrides=["data.root=a b"]') == 0
    script = profiles / "sweep" / "array.sbatch"
    assert "#SBATCH --array=0-5" in script.read_text().splitlines()
    for index, started in ((1, "encoder=tiny"), (5, "encoder=big")):
        done = execute(script, profiles, SLURM_ARRAY_TASK_ID=str(index))
        assert done.returncode == 0, done.stderr
        call_made = (profiles / "calls").read_text().splitlines()[-1]
        assert call_made.startswith(f"train.py resume=last {started} callbacks=[default,oom_backoff]")
        assert call_made.endswith("fold=2 data.root=a b")


def test_what_the_user_sets_is_not_set_twice(monkeypatch: pytest.MonkeyPatch, profiles: Path) -> None:
    assert call(monkeypatch, profiles, 'overrides=["callbacks=[default,oom_backoff,rollback_gate]"]') == 0
    lines = (profiles / "sweep" / "sweep.sh").read_text().splitlines()
    tiny = next(line for line in lines if line.startswith("run encoder=tiny"))
    assert tiny.count("callbacks=[") == 1
    assert "rollback_gate" in tiny
    assert "callbacks.oom_backoff.micro_batch=10" in tiny


def test_what_was_not_measured_is(monkeypatch: pytest.MonkeyPatch, profiles: Path) -> None:
    assert call(monkeypatch, profiles, "encoders=[mobilenetv3_small,tiny]") == 0
    kept = json.loads((profiles / "profiles" / "profiles.json").read_text())["encoders"]
    assert set(kept) == {*MEMORY, "mobilenetv3_small"}
    assert kept["mobilenetv3_small"]["image_size"] == 32
    assert "run encoder=mobilenetv3_small decoder=deeplabv3plus" in (profiles / "sweep" / "sweep.sh").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["encoders=[]"], "`encoders` should name at least one, none twice. Found `encoders = []`."),
        (["folds=[1,1]"], "Found `folds = [1, 1]`"),
        (['overrides=["seed=0,1"]'], "`overrides` should give each key one value. Found `seed=0,1`."),
    ],
)
def test_mistakes(
    monkeypatch: pytest.MonkeyPatch,
    profiles: Path,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    assert call(monkeypatch, profiles, *arguments) == 2
    assert words in capfd.readouterr().err
    assert not (profiles / "sweep").exists()
