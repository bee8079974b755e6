"""`hsl ensemble` from trained members to pictures, on the command line."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from tests.conftest import composed

from hsl.cli import conf_dir
from hsl.errors import ConfigError, DataError
from hsl.run_folder.layout import METRICS
from hsl.verbs.ensemble.ensemble import ensemble

SMOKE = yaml.safe_load((conf_dir() / "smoke_ensemble.yaml").read_text())
HSL = [sys.executable, "-c", "from hsl.cli import main; main()"]


def hsl(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*HSL, *words], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_an_ensemble_is_made_audited_scored_and_predicts(tmp_path: Path) -> None:
    """The audit reads what lies on the disk: a row that its member was trained on is found there too."""
    output = tmp_path / "smoke"
    done = hsl("smoke", "ensemble", f"output={output}")
    assert done.returncode == 0, done.stderr
    place = output / "ensemble"
    moved = tmp_path / "moved elsewhere"
    output.rename(moved)  # members and ensemble together
    place = moved / "ensemble"
    (root,) = {path.parent for path in moved.rglob("images") if path.is_dir()}
    done = hsl("evaluate", f"run={place}", f"cache_dir={tmp_path}/cache", f"data_root={root}")
    assert done.returncode == 0, done.stderr
    scored = json.loads((place / "evaluations" / "plain" / METRICS).read_text())["parts"]["test"]["plain"]
    head = json.loads((place / "ensemble.json").read_text())["heads"]["classification"]
    of_stage = json.loads((next((place / "classification" / head["recommended"]).glob("fold0")) / METRICS).read_text())
    expected = of_stage["parts"]["test"]["plain"]["image_heads"]["classification"]["accuracy"]
    assert scored["image_heads"]["classification"]["accuracy"] == pytest.approx(expected)
    pictures = sorted((root / "images").iterdir())[:3]
    (tmp_path / "pictures").mkdir()
    for picture in pictures:
        (tmp_path / "pictures" / picture.name).write_bytes(picture.read_bytes())
    for keep in ("one", "all"):
        done = hsl("predict", f"run={place}", f"input={tmp_path}/pictures", f"output={tmp_path}/{keep}", f"keep={keep}")
        assert done.returncode == 0, done.stderr
    one, every = (pd.read_csv(tmp_path / keep / "labels.csv") for keep in ("one", "all"))
    pd.testing.assert_frame_equal(one, every)
    assert len(one) == 3
    done = hsl("report", f"runs={moved}", f"output={tmp_path}/report", "resamples=200")
    assert done.returncode == 0, done.stderr
    assert "votes/soft" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    (moved / "ensemble" / "classification" / "individual" / "stage.json").unlink()
    done = hsl("audit", f"ensemble={place}")
    assert done.returncode == 2
    assert "Run `hsl ensemble` again" in done.stderr


def test_what_no_ensemble_can_be_made_of_is_one_sentence(tmp_path: Path) -> None:
    """That no run folder matches is answered before this module is imported: tests/verbs/test_imports.py."""
    for words, said in (
        (["stages=[votes,votes]"], "each once"),
        (["stages=[bagging]"], "bagging"),
        (["heads=[map]"], "image, dense"),
        (["calibration=platt"], "temperature, none"),
        ([], "Found none for"),
    ):
        with pytest.raises((ConfigError, DataError), match=said) as caught:
            ensemble(composed([f"runs={tmp_path}/nothing*", f"output={tmp_path}/out", *words], "ensemble"))
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_is_planned_is_trained_and_taken_up(tmp_path: Path) -> None:
    """Dual heads: masks combined and taken up, a student of masks and attention, and a cascade known by its name."""
    words = [*SMOKE["settings"], "task=dual_head", "loss=dual_head", "decoder=unet_small", f"output_root={tmp_path}"]
    words += [f"data.root={tmp_path}/data", "data.reader.num_pictures=50", "metrics=none"]
    done = hsl("train", "-m", *words, "name=members", "seed=0,1", "fold=0,1")
    assert done.returncode == 0, done.stderr
    common = [f"cache_dir={tmp_path}/.cache", f"output_root={tmp_path}"]
    combine = [*common, "num_parts=3", "resamples=200"]
    members = [f"runs={tmp_path}/members", f"output={tmp_path}/combined"]
    done = hsl("ensemble", *members, "heads=[dense]", "stages=[votes]", *combine)
    assert done.returncode == 0, done.stderr
    page = json.loads((tmp_path / "combined" / "ensemble.json").read_text())
    assert all(member["picture_seconds"]["dense"] > 0 for member in page["members"].values())
    plan = ["stages=[cascade,distillation]", "rounds.cascade=2", "maps=true", "attention=0.1"]
    overrides = f"overrides={json.dumps(words)}"
    done = hsl("ensemble", "plan", f"runs={tmp_path}/members", *plan, *common, f"output={tmp_path}/plan", overrides)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("python train.py")]
    for line in lines:
        if "cascade_2" in line or "fold=0" in line:
            done = hsl("train", *shlex.split(line.partition("  #")[0])[2:])
            assert done.returncode == 0, done.stderr
    (student,) = (tmp_path / "planned" / "student_1").rglob("history.csv")
    losses = pd.read_csv(student)
    for objective in ("distillation_classification", "distillation_segmentation", "attention"):
        assert losses[f"train/loss/{objective}"].gt(0).all(), objective
    runs = f"runs=[{tmp_path}/members,{tmp_path}/planned/*]"
    done = hsl("ensemble", runs, "stages=[cascade]", *combine, f"output={tmp_path}/all")
    assert done.returncode == 0, done.stderr
    assert "! left out: planned/student_1, which learns from the members" in done.stdout
    settings = json.loads((tmp_path / "all" / "ensemble.json").read_text())["settings"]
    assert settings["cascade"]["order"][1:] == ["cascade_2"]
