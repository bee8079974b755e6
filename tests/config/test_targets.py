"""What the config of a run folder may name is a list, asked before anything is imported."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from hsl.cli import conf_dir
from hsl.config.calls import calls_in, check_calls
from hsl.config.targets import EARLIER, allowed_targets, check_targets, named_targets
from hsl.errors import ConfigError

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


def test_the_list_is_what_conf_names() -> None:
    """Read off by a pattern, because a YAML parser would take a second."""
    found = set()
    for path in conf_dir().rglob("*.yaml"):
        found |= {node["_target_"] for _, node in calls_in(yaml.safe_load(path.read_text(encoding="utf8")))}
    assert named_targets(conf_dir()) == sorted(found)
    assert GOOD in found
    assert {name for name in found if not name.startswith("hsl.")} == OUTSIDE
    assert not EARLIER & found
    check_calls({name: {"_target_": name, "_partial_": True} for name in EARLIER})  # they are still there


OUTSIDE = {
    "builtins.list",
    "lightning.Trainer",
    "lightning.pytorch.loggers.TensorBoardLogger",
    "torchjd.aggregation.UPGradWeighting",
}
"""Of libraries. One more should neither write, nor run, nor read what its arguments say: look before you add it."""


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
