"""`hsl patches`, `hsl smoke` and `hsl sweep plan` from the command line to what they leave."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image
from torch import nn

from hsl.cli import conf_dir, run_verb
from hsl.data.formats.folder import read_folder
from hsl.models.network import SegmentationNetwork
from hsl.verbs.smoke import check_step


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    random = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(3):
        Image.fromarray(random.integers(0, 255, (60, 80, 3), np.uint8)).save(folder / f"images/p{number}.png")
        mask = np.zeros((60, 80), np.uint8)
        mask[10:50, : 20 * number] = 1
        Image.fromarray(mask).save(folder / f"masks/p{number}.png")
    (folder / "dataset.yaml").write_text("classes: [clean, crack]\n")
    (folder / "labels.csv").write_text("id,group\np0,a\np1,b\np2,b\n")
    return folder


def call(monkeypatch: pytest.MonkeyPatch, root: Path, *arguments: str) -> int:
    given = ["data=folder", f"data.root={root}", f"output={root.parent / 'patches'}", "workers=1"]
    monkeypatch.setattr(sys, "argv", ["hsl", *given, *arguments])
    monkeypatch.setenv("HSL_ONE_SENTENCE", "")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    try:
        run_verb("patches")
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


SMALL = ("data.patches.size=32", "data.patches.min_distance=20", "data.patches.foreground=[crack]")


def test_verb(monkeypatch: pytest.MonkeyPatch, root: Path, capfd: pytest.CaptureFixture[str], drawn: None) -> None:
    assert call(monkeypatch, root, *SMALL) == 0
    printed = capfd.readouterr().out
    written = read_folder(root.parent / "patches")
    assert {record.attributes["group"] for record in written.records} == {"b"}
    assert f"{len(written.records)} patches of 3 pictures (1 without" in printed
    assert "crack" in printed
    assert "Pictures without foreground give no patch: p0." in printed
    statistics = root.parent / "patches" / "statistics"
    with Image.open(statistics / "class_shares.png") as plot:
        assert plot.size[0] > 300
    assert (statistics / "class_shares.csv").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("workers=0",), "`workers` should be a whole number of at least 1 or auto"),
        (("data/patches=none",), "Set `data/patches=poisson_disk`"),
        (("data.patches.foreground=[unicorn]",), "Choose from ['clean', 'crack']"),
        (("data.split.groups=reef",), "should have the attribute `reef`"),
        (("data.patches.size=0",), "`data.patches.size` should be a whole number of at least 1"),
    ],
)
def test_mistakes_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    root: Path,
    capfd: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    assert call(monkeypatch, root, *arguments) == 2
    printed = capfd.readouterr().err
    assert printed.startswith("error: ")
    assert words in printed
    assert not (root.parent / "patches").exists()


# `hsl smoke`: every encoder is tried, and what is wrong with one is said.


def smoke(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["hsl", "data.image_size=64", *arguments])
    monkeypatch.setenv("HSL_ONE_SENTENCE", "")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    try:
        run_verb("smoke")
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture
def network() -> SegmentationNetwork:
    torch.manual_seed(0)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("smoke", overrides=["encoder=mobilenetv3_small", "data.image_size=64"])
    built: SegmentationNetwork = instantiate(cfg.network)
    return built


def test_two_encoders(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert smoke(monkeypatch, "encoders=[mobilenetv3_small,ghostnetv2]") == 0
    printed = capfd.readouterr().out
    for row in ("mobilenetv3_small │ 0.9 M", "ghostnetv2        │ 1.2 M"):
        assert row in printed
    assert printed.count("│ ok") == 2


def test_it_goes_on_after_a_failure(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert smoke(monkeypatch, "encoders=[no_such_encoder,mobilenetv3_small]") == 2
    shown = capfd.readouterr()
    assert "no_such_encoder: MissingConfigException" in shown.out
    assert "mobilenetv3_small: ok" in shown.out
    assert "Found 1 that did not: no_such_encoder." in shown.err


def test_a_good_network(network: SegmentationNetwork) -> None:
    assert check_step(network, 2, 64) == []


def test_a_parameter_that_nothing_uses(network: SegmentationNetwork) -> None:
    network.encoder.body.unused = nn.Parameter(torch.ones(1))
    network.encoder.body.frozen = nn.Parameter(torch.ones(1), requires_grad=False)
    assert check_step(network, 2, 64) == ["no gradient reaches encoder.body.unused"]


def test_a_wrong_shape_and_a_loss_that_is_no_number(network: SegmentationNetwork) -> None:
    network.encoder.out_channels[3] += 1
    with torch.no_grad():
        network.heads["classification"].classify.bias.fill_(torch.nan)
    wrong = check_step(network, 2, 64)
    assert wrong == ["features at stride 8 (2, 24, 8, 8) instead of (2, 25, 8, 8)", "loss nan"]


def test_the_fifteen_are_encoder_files() -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        smoke, plan = (compose(verb) for verb in ("smoke", "sweep_plan"))
    assert len(set(smoke.encoders)) == 15
    assert set(plan.encoders) == set(smoke.encoders) <= {path.stem for path in Path(conf_dir()).glob("encoder/*.yaml")}


# `hsl sweep plan`: the order, and scripts that run everything and go on after an interruption.


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
            "image_size": 32, "precision": "32-true", "device": "cpu",
            "steps": [{"batch_size": 2, "memory": 1, "seconds": 9.0},
                      {"batch_size": 4, "memory": 2, "seconds": memory / 10}],
        }
        for name, memory in MEMORY.items()
    }  # fmt: skip
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "profiles.json").write_text(json.dumps({"format": 1, "encoders": entries}))
    return tmp_path


def plan(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> int:
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


def test_what_a_sweep_costs(monkeypatch: pytest.MonkeyPatch, profiles: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ['overrides=["trainer.max_epochs=5","data.image_size=64"]', "training_pictures=36", "price_per_hour=2"]
    assert plan(monkeypatch, profiles, "folds=[0,2]", *words) == 0
    # (30 + 1 + 12) s for 4 pictures of a quarter of the area, 36 pictures, 5 epochs, 2 folds
    hours = (30 + 1 + 12) / 4 * 4 * 36 * 5 * 2 / 3600
    told = " ".join(capfd.readouterr().out.split())
    assert f"all 6 runs: about {hours:.3g} h on one cpu (36 pictures of 64 x 64, 5 epochs)" in told
    assert f"At 2 an hour: about {2 * hours:.3g}." in told


def test_light_ones_first_resumable_and_a_failure_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, profiles: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert plan(monkeypatch, profiles, "folds=[0,2]", 'overrides=["data.root=a b"]') == 0
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
    assert plan(monkeypatch, profiles) == 0
    python = profiles / "python-of-the-sweep"
    python.write_text(f"#!/bin/sh\necho once >> {profiles}/calls\nexit {code}\n")
    python.chmod(0o755)
    script = ["bash", str(profiles / "sweep" / "sweep.sh")]
    done = subprocess.run(script, env={**os.environ, "HSL_PYTHON": str(python)}, check=False)
    assert (done.returncode, (profiles / "calls").read_text()) == (code, "once\n")


def test_array_runs_one_task_each_heavy_last(monkeypatch: pytest.MonkeyPatch, profiles: Path) -> None:
    assert plan(monkeypatch, profiles, "folds=[0,2]", 'overrides=["data.root=a b"]') == 0
    script = profiles / "sweep" / "array.sbatch"
    assert "#SBATCH --array=0-5" in script.read_text().splitlines()
    for index, started in ((1, "encoder=tiny"), (5, "encoder=big")):
        done = execute(script, profiles, SLURM_ARRAY_TASK_ID=str(index))
        assert done.returncode == 0, done.stderr
        call_made = (profiles / "calls").read_text().splitlines()[-1]
        assert call_made.startswith(f"train.py resume=last {started} callbacks=[default,oom_backoff]")
        assert call_made.endswith("fold=2 data.root=a b")


def test_what_the_user_sets_is_not_set_twice(monkeypatch: pytest.MonkeyPatch, profiles: Path) -> None:
    assert plan(monkeypatch, profiles, 'overrides=["callbacks=[default,oom_backoff,rollback_gate]"]') == 0
    lines = (profiles / "sweep" / "sweep.sh").read_text().splitlines()
    tiny = next(line for line in lines if line.startswith("run encoder=tiny"))
    assert tiny.count("callbacks=[") == 1
    assert "rollback_gate" in tiny
    assert "callbacks.oom_backoff.micro_batch=10" in tiny


def test_what_was_not_measured_is(monkeypatch: pytest.MonkeyPatch, profiles: Path) -> None:
    assert plan(monkeypatch, profiles, "encoders=[mobilenetv3_small,tiny]") == 0
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
    assert plan(monkeypatch, profiles, *arguments) == 2
    assert words in capfd.readouterr().err
    assert not (profiles / "sweep").exists()
