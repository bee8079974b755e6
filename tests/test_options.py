"""The listing of the configuration groups, against the files themselves and against Hydra."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from hsl.cli import conf_dir
from hsl.errors import ConfigError
from hsl.options import Option, options_below, options_json, options_text, read_options


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three groups, one of them nested, whose defaults come by all ways that a defaults list knows."""
    files = {
        "train.yaml": "defaults: [data: b, /net: [small], extra: null, _self_, override hydra/job_logging: stdout]",
        "other.yaml": "defaults: [net: large]",
        "data/_base.yaml": "# shared\ndefaults: [cut: none]",
        "data/a.yaml": "# A first\nx: 1",
        "data/b.yaml": "# B second\n# and more of it\ndefaults: [_base, _self_]",
        "data/cut/none.yaml": "# @package data\n# nothing is cut\ncut: null",
        "data/cut/some.yaml": "x: 1",
        "net/large.yaml": "# large\nx: 1",
        "net/small.yaml": "# small\nx: 1",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    return tmp_path


def test_groups_nested_ones_too_with_descriptions_and_defaults(folder: Path) -> None:
    assert read_options(folder) == {
        "data": [Option("a", "A first", False), Option("b", "B second", True)],
        "data/cut": [Option("none", "nothing is cut", True), Option("some", "", False)],
        "net": [Option("large", "large", False), Option("small", "small", True)],
    }


def test_a_group_brings_those_nested_in_it_and_no_namesake(folder: Path) -> None:
    groups = {**read_options(folder), "data_too": []}
    assert list(options_below(groups, None)) == ["data", "data/cut", "net", "data_too"]
    assert list(options_below(groups, "data")) == ["data", "data/cut"]
    assert list(options_below(groups, "data/cut")) == ["data/cut"]
    with pytest.raises(ConfigError, match=r"one of data, data/cut, net, data_too. Found `group = dat`"):
        options_below(groups, "dat")


def test_json_and_text_say_the_same(folder: Path) -> None:
    groups = read_options(folder)
    page = json.loads(options_json(groups))
    assert page["data/cut"][0] == {"name": "none", "description": "nothing is cut", "default": True}
    lines = options_text(groups).splitlines()
    for group, options in page.items():
        assert group in lines
        for one in options:
            star = "*" if one["default"] else " "
            assert f"{star} {one['name']:<5}  {one['description']}" in lines


def test_every_option_file_appears_with_a_description() -> None:
    files = {path for path in conf_dir().rglob("*.yaml") if path.parent != conf_dir() and path.stem[0] != "_"}
    groups = read_options(conf_dir())
    assert {conf_dir() / group / f"{one.name}.yaml" for group, options in groups.items() for one in options} == files
    assert {"data/split", "data/patches", "data/labels", "hydra/launcher"} <= set(groups)
    for group, options in groups.items():
        for one in options:
            assert one.description, f"{group}={one.name}"
            assert "@package" not in one.description


def test_the_defaults_are_those_that_hydra_composes() -> None:
    """``runtime.choices`` of a plain training run is what Hydra itself makes of the defaults lists."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        choices = compose("train", return_hydra_config=True).hydra.runtime.choices
    groups = read_options(conf_dir())
    marked = {group: [one.name for one in options if one.default] for group, options in groups.items()}
    chosen = {group: [choices[group]] if choices.get(group) else [] for group in groups if group != "hydra/launcher"}
    assert marked == {**chosen, "hydra/launcher": []}  # Hydra's own launcher lies in no file of ours


@pytest.mark.parametrize("words", [["options", "--json"], ["runs", "nowhere", "--json"]])
def test_an_interface_gets_its_answer_without_torch(tmp_path: Path, words: list[str]) -> None:
    program = "import sys; from hsl.cli import main; main(); assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), dict if words[0] == "options" else list)
    assert not list(tmp_path.iterdir())
