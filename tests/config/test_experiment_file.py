"""`experiment=@FILE`: what Hydra is told of a preset outside of conf/, and what is refused in it."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from hsl.cli import conf_dir
from hsl.config.experiment_file import named_files, register_all
from hsl.errors import ConfigError, DataError

PLAN = """
defaults:
  - override /data/sampling: rare_classes # a reason
  - override /callbacks: [default, oom_backoff]
name: mine
data: {batch_size: 4}
callbacks: {early_stopping: null}
"""


def written(folder: Path, text: str, name: str = "plan.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_names_are_found_wherever_a_word_holds_them() -> None:
    words = ["experiment=@a.yaml", "+x=1", "overrides=[experiment=@c d.yaml,fold=1]", 'experiment="@e f.yaml"', "b=@c"]
    assert named_files(words) == ["a.yaml", "e f.yaml"]  # Hydra itself refuses the blank without quotes
    assert named_files(["overrides=['experiment=@c d.yaml']", "experiment=demo"]) == ["c d.yaml"]
    assert named_files(["experiment=@a.yaml,@b.yaml"]) == ["a.yaml", "b.yaml"]


@pytest.mark.parametrize("name", ["plan.yaml", "a folder/p.yaml", "../up.yaml"])
def test_a_file_is_composed_like_a_preset_of_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    written(tmp_path / "work", PLAN, name)
    word = f'experiment="@{name}"'
    register_all([word], conf_dir())
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", [word, "data.batch_size=2"])
    assert (cfg.name, cfg.data.batch_size, cfg.callbacks.early_stopping) == ("mine", 2, None)
    assert cfg.data.sampling.threshold == 1.0
    assert "oom_backoff" in cfg.callbacks


REFUSED = {
    "entry: os.system": "should leave `entry` alone",
    "foo: 1": "`foo` should be a key of the config",
    "trainer: {max_epoch: 3}": "Did you mean `trainer.max_epochs`?",
    "encoder: {_target_: os.system}": "should name only callables that conf/ names",
    "name: ${oc.env:HOME}": "should hold plain values",
    "name: &a x": "Found an anchor or a tag",
    "[1, 2]": "should hold keys and values",
    "defaults: [{override /encoder: efficientnet_lite}]": "Did you mean `efficientnet_lite0`?",
    "defaults: [/data: ../../secret]": "each entry of `defaults` should be",
    "defaults: [{override /hydra/launcher: local}]": "each entry of `defaults` should be",
    "defaults: [{override /experiment: demo}]": "each entry of `defaults` should be",
    "defaults: {loss: ce}": "`defaults` should be a list",
    "hydra: {run: {dir: /}}": "should leave `hydra` alone",
}


def test_what_a_stranger_may_not_set_is_refused(tmp_path: Path) -> None:
    for text, sentence in REFUSED.items():
        path = written(tmp_path, text)
        with pytest.raises((ConfigError, DataError)) as error:
            register_all([f"experiment=@{path}"], conf_dir())
        assert sentence in str(error.value), text
        assert str(path) in str(error.value), text
    with pytest.raises(ConfigError, match=r"Found none at `nowhere.yaml`"):
        register_all(["experiment=@nowhere.yaml"], conf_dir())


def test_all_findings_are_told_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, "entry: x\nfoo: 1\nbar: 2")
    with pytest.raises(ConfigError, match=r"(?s)`entry`.*`foo`.*`bar`"):
        register_all([f"experiment=@{path}"], conf_dir())


def test_the_command_line_takes_it(tmp_path: Path) -> None:
    written(tmp_path, PLAN)
    code = "from hsl.cli import main; main()"
    for words, wanted in ((["--cfg", "job"], "name: mine"), (["trainer.max_epochs=0"], "`trainer.max_epochs`")):
        command = [sys.executable, "-c", code, "train", "experiment=@plan.yaml", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert wanted in done.stdout + done.stderr
