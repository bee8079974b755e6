"""Run folders outlive the floor plan: what a stored config calls is found where it lies now."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from hsl.cli import conf_dir
from hsl.config.moved import JOINED, MOVED, with_first_targets, with_present_targets
from hsl.config.targets import named_targets
from hsl.reports.naming import comparable
from hsl.run_folder.earlier import config_identity, differing
from hsl.run_folder.provenance import read_config
from hsl.verbs.opening.opening import open_run

Make = Callable[..., DictConfig]


def test_every_entry_is_one_that_conf_names() -> None:
    names = {name.removeprefix("hsl.") for name in named_targets(conf_dir())}
    for table, named in ((MOVED, {name.rpartition(".")[0] for name in names}), (JOINED, names)):
        assert set(table.values()) <= named
        assert not set(table) & named
        assert len(set(table.values())) == len(table)


@pytest.fixture
def earlier(tiny: Make) -> tuple[DictConfig, DictConfig]:
    """A config, and how the house before the move would have stored it."""
    cfg = tiny("data/split=kfold")
    content = OmegaConf.to_container(cfg, resolve=True)
    return cfg, OmegaConf.create(with_first_targets(content))


def test_there_and_back(earlier: tuple[DictConfig, DictConfig]) -> None:
    now, before = (OmegaConf.to_container(cfg, resolve=True) for cfg in earlier)
    assert before != now
    assert with_present_targets(before) == now
    assert with_present_targets(now) == now
    assert with_first_targets(before) == before


def test_an_earlier_run_of_this_config_is_this_run(earlier: tuple[DictConfig, DictConfig]) -> None:
    now, before = earlier
    assert config_identity(now) == config_identity(before)
    assert differing(*(OmegaConf.to_container(cfg, resolve=True) for cfg in (before, now))) == {}


def test_a_later_setting_makes_another_run_only_where_it_is_used(earlier: tuple[DictConfig, DictConfig]) -> None:
    now, before = earlier
    assert now.data.split.stop_fraction == 0
    del before.data.split.stop_fraction
    assert config_identity(now) == config_identity(before)
    configs = [OmegaConf.to_container(cfg, resolve=True) for cfg in (before, now)]
    assert differing(*configs) == {}
    assert comparable(with_present_targets(configs[0]), 0, []) == comparable(configs[1], 0, [])
    now.data.split.stop_fraction = 0.1
    assert config_identity(now) != config_identity(before)
    assert comparable(OmegaConf.to_container(now, resolve=True), 0, [])["data.split.stop_fraction"] == "0.1"


def test_an_earlier_run_is_opened_and_read(earlier: tuple[DictConfig, DictConfig], tmp_path: Path) -> None:
    now, before = earlier
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(before))
    _, cfg = open_run(str(tmp_path), named_targets(conf_dir()))
    assert cfg.data.split == now.data.split
    assert read_config(tmp_path) == OmegaConf.to_container(now, resolve=True)


@pytest.mark.parametrize(
    "target", ["hsl.data.splits", "hsl.data.splits.folds.kfold.x", "data.splits.kfold", "os.system", 3, None]
)
def test_other_names_stay_what_they_are(target: object) -> None:
    stored = yaml.safe_load(yaml.safe_dump({"a": [{"_target_": target}]}))
    assert with_present_targets(stored) == stored


@pytest.mark.parametrize(("first", "present"), JOINED.items())
def test_one_name_moves_and_others_of_the_module_stay(first: str, present: str) -> None:
    before, now = {"_target_": f"hsl.{first}"}, {"_target_": f"hsl.{present}"}
    assert (with_present_targets(before), with_first_targets(now)) == (now, before)
    other = {"_target_": "hsl.losses.overlap.Tversky"}
    assert with_present_targets(other) == with_first_targets(other) == other


def test_modules_are_there() -> None:
    assert all(find_spec(f"hsl.{module}") for module in MOVED.values())
