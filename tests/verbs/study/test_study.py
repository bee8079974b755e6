"""`hsl study` from the command line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from hsl.cli import conf_dir
from hsl.verbs.study.spaces import read_space

HSL = [sys.executable, "-c", "from hsl.cli import main; main()", "study"]
TINY = [
    "study=demo", "encoder=mobilenetv3_small", "encoder.weights=null", "trainer.max_epochs=2", "data.num_workers=0",
    "data.reader.num_pictures=30", "data.image_size=64", "study.folds=[0]", "callbacks.tta_evaluation=null",
    "data.root=data", "logger=none",
]  # fmt: skip


def hsl(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*HSL, *words], cwd=folder, capture_output=True, text=True, check=False)


def test_the_spaces_of_conf_are_spaces() -> None:
    for path in (conf_dir() / "study").glob("[!_]*.yaml"):
        read_space(yaml.safe_load(path.read_text())["study"]["space"])


@pytest.mark.parametrize(("words", "said"), [
    (["study.name=a/b"], "`study.name` should be a name for a folder"),
    (["study.num_trials=0"], "`study.num_trials` should be a whole number, 1 at least"),
    (["study.folds=[0,0]"], "none twice"),
    (["study.objectives=[score,beauty]"], "should list some of score, parameters, seconds"),
    (["study.objectives=[score,seconds]"], "Set `pruner=none`"),
    (["+study.space={optimizer.lrr: {low: 1.0, high: 2.0}}"], "`study.space.optimizer.lrr` cannot be 1.0"),
    (["+study.space={encoder: {choices: [resnet50, resnet5O]}}"], "`study.space.encoder` cannot be resnet5O"),
    (["+study.space={data.cache_gigabytes: {low: 0.0, high: 3.0}}"], "`study.space.data.cache_gigabytes` cannot be"),
    (["+study.space={trainer.max_epochs: {low: 0, high: 3}}"], "`study.space.trainer.max_epochs` cannot be 0"),
])  # fmt: skip
@pytest.mark.slow  # each imports what a training calls
def test_mistakes_are_told_before_anything_is_trained(tmp_path: Path, words: list[str], said: str) -> None:
    done = hsl(tmp_path, "study=demo", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert not list(tmp_path.rglob("trial*"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_study_of_two_workers_survives_kills_and_is_confirmed(tmp_path: Path) -> None:
    words = [*TINY, "study.num_trials=3", "study.confirm={top: 2, seeds: [7]}"]
    study = tmp_path / "outputs" / "demo_study"
    first = subprocess.Popen([*HSL, *words, "study.workers=2"], cwd=tmp_path, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(study.glob("trial*/fold0/*/history.csv")):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    done = hsl(tmp_path, *words, "study.workers=2")
    assert done.returncode == 0, done.stderr
    rows = (study / "trials.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in rows[1:]] == [[str(n), "complete"] for n in range(3)]
    assert len(list(study.glob("trial*/fold0/*/metrics.json"))) == 3, "a trial was trained twice"
    assert len(list(study.glob("confirmed/trial*/seed7/fold0/*/metrics.json"))) == 2
    assert (study / "report" / "index.html").is_file()
    page = (study / "index.html").read_text()
    assert "trainings of the confirmation alone" in page
    more = hsl(tmp_path, *words, "study.other_code=true", "seed=3")
    assert more.returncode == 2
    assert "A study goes on as it began" in more.stderr
