"""What the config of a run folder may name, and where it lies now: run folders outlive the floor plan."""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from hsl.cli import conf_dir
from hsl.config.calls import calls_in, check_calls
from hsl.config.moved import JOINED, MOVED, with_first_targets, with_present_targets
from hsl.config.targets import EARLIER, allowed_targets, check_targets, named_targets
from hsl.errors import ConfigError
from hsl.reports.naming import comparable
from hsl.run_folder.earlier import config_identity, differing
from hsl.run_folder.provenance import read_config
from hsl.verbs.opening.opening import open_run

FILE = Path("run/config.yaml")
GOOD = "hsl.data.datamodule.DataModule"
STRANGE = [
    "torch.utils.collect_env.run",
    "os.system",
    "builtins.eval",
    "functools.partial",
    "hydra.utils.instantiate",
    "hydra.utils.get_method",
    "hydra._internal.utils._locate",
    "importlib.import_module",
    "torch.load",
    "torch.hub.load",
    "hsl.verbs.train.train.train",  # an entry is no part
    "hsl.files.io.write_atomically",
    "hsl.config.calls.pkgutil.resolve_name",
    "hsl.data.datamodule.os.system",
    "hsl.data.datamodule",
    "hsl.data.datamodule.DataModule.__init__.__globals__",
    f"{GOOD} ",
    f" {GOOD}",
    f"{GOOD}\n",
    f"{GOOD}\0",
    f"{GOOD}:x",
    "hsl.data.datamodule:DataModule",
    "hsl.data.datamodule.D\u0430taModule",  # a Cyrillic letter
    "HSL.data.datamodule.DataModule",
    "",
    None,
    3,
    True,
    [GOOD],
    {"_target_": GOOD},
    "???",
]
OUTSIDE = {
    "builtins.list",
    "lightning.Trainer",
    "lightning.pytorch.loggers.TensorBoardLogger",
    *(f"optuna.samplers.{name}Sampler" for name in ("TPE", "GP", "CmaEs", "Random")),
    *(f"optuna.pruners.{name}Pruner" for name in ("Wilcoxon", "Median", "Hyperband", "Nop")),
    "torchjd.aggregation.UPGradWeighting",
}
"""Of libraries. One more should neither write, nor run, nor read what its arguments say: look before you add it."""
Make = Callable[..., DictConfig]


def test_the_list_is_what_conf_names() -> None:
    """Read off by a pattern, because a YAML parser would take a second."""
    found = set()
    for path in sorted(set(conf_dir().rglob("*.yaml")) - set((conf_dir() / "hydra").rglob("*.yaml"))):
        found |= {node["_target_"] for _, node in calls_in(yaml.safe_load(path.read_text(encoding="utf8")))}
    assert named_targets(conf_dir()) == sorted(found)
    assert GOOD in found
    assert {name for name in found if not name.startswith("hsl.")} == OUTSIDE
    assert not EARLIER & found
    check_calls({name: {"_target_": name, "_partial_": True} for name in EARLIER})  # they are still there


@pytest.mark.parametrize("target", STRANGE, ids=repr)
@pytest.mark.parametrize(
    "place",
    [
        lambda node: node,
        lambda node: {"task": {"loss": {"terms": {"dice": node}}}},
        lambda node: {"data": {"_target_": GOOD, "reader": node}},
        lambda node: {"callbacks": {"more": node}},
        lambda node: {"a": [[1, node]]},
        lambda node: {"_target_": GOOD, "_args_": [node]},
        lambda node: {"_target_": GOOD, "_recursive_": False, "x": node},
    ],
    ids=["root", "task", "data", "callbacks", "lists", "args", "not recursive"],
)
def test_what_is_not_on_the_list_is_refused_wherever_it_stands(target: Any, place: Any) -> None:
    content = place({"_target_": target, "_partial_": True})
    with pytest.raises(ConfigError, match="should name only callables that conf/ names") as caught:
        check_targets(content, [GOOD], FILE)
    assert f"`{FILE}`" in str(caught.value)
    assert f"_target_ = {target}`" in str(caught.value)


def test_nothing_is_imported() -> None:
    before = set(sys.modules)
    with pytest.raises(ConfigError):
        check_targets({"_target_": "antigravity.fly"}, [GOOD], FILE)
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    "value", ["${oc.env:HOME}", "a${now:%Y}", "${hydra:runtime.cwd}", "${other}", "${conf_targets:}"]
)
def test_what_would_be_looked_up_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="plain values") as caught:
        check_targets({"data": {"roots": [1, value]}}, [GOOD], FILE)
    assert f"`data.roots[1] = {value}`" in str(caught.value)


def test_what_is_on_the_list_passes() -> None:
    check_targets(
        {"data": {"_target_": GOOD, "root": "a $ b", "parts": [{"_target_": "mine.Part"}]}}, [GOOD, "mine.Part"], FILE
    )


def test_every_finding_is_told_with_the_way_out() -> None:
    content = {"a": {"_target_": "mine.B"}, "b": {"_target_": "mine.A"}, "c": {"_target_": "not a name"}}
    with pytest.raises(ConfigError) as caught:
        check_targets(content, [GOOD], FILE)
    assert "`a._target_ = mine.B`, `b._target_ = mine.A`, `c._target_ = not a name`" in str(caught.value)
    assert "`trust=[mine.A,mine.B]`" in str(caught.value)


def test_trust_adds_exact_names() -> None:
    cfg = OmegaConf.create({"targets": ["a.b"], "trust": ["mypackage.MyEncoder"]})
    assert allowed_targets(cfg) == {"a.b", "mypackage.MyEncoder", *EARLIER}


@pytest.mark.parametrize("trust", ["mypackage.*", "*", "mypackage", "", 3, None, ["a.b", "c.*"], ["a b.c"], {"a": "b"}])
def test_trust_takes_no_patterns(trust: Any) -> None:
    with pytest.raises(ConfigError, match=r"`trust` should be a list of exact names.*trust=\[mypackage\.MyEncoder\]"):
        allowed_targets(OmegaConf.create({"targets": ["a.b"], "trust": trust}))


@pytest.mark.parametrize(
    ("target", "said", "unsaid"),
    [
        ("mine.Encoder", "`trust=[mine.Encoder]`", "Do not use"),
        ("os.system", "Do not use this folder", "trust="),
        ("subprocess.run", "Do not use this folder", "trust="),
        ("hsl.verbs.train.train.train", "another version", "trust="),
    ],
)
def test_nobody_is_told_to_trust_a_part_of_python(target: str, said: str, unsaid: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_targets({"task": {"_target_": target}}, frozenset([GOOD]), FILE)
    assert said in str(error.value)
    assert unsaid not in str(error.value)


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
