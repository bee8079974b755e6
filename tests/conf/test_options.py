"""Every option of every group composes, binds the signature of what it calls, and keeps the house's rules for YAML."""

import inspect
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from hsl.calls import calls_in, check_calls
from hsl.cli import conf_dir

GROUPS = sorted(p for p in conf_dir().rglob("*") if p.is_dir() and p.name != "hydra" and p.parent.name != "hydra")
VERBS = {"labelling": "label"}  # groups of another config than train.yaml
OPTIONS = [(str(g.relative_to(conf_dir())), f.stem) for g in GROUPS for f in sorted(g.glob("[!_]*.yaml"))]
NEEDED = [
    "data.root=somewhere",
    "encoder.name=resnet18",
    "data.reader.mask_column=mask",
    "data.reader.classes=[a,b]",
    "data.sampling.runs=[somewhere]",
]


def composed(*overrides: str, verb: str = "train") -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(verb, overrides=list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return cfg


def overrides_for(group: str, option: str) -> list[str]:
    """The option, and a value for whatever it says the user has to choose."""
    chosen = [f"{group}={option}"]
    text = (conf_dir() / group / f"{option}.yaml").read_text(encoding="utf8")
    if "???" in text or group == "experiment":
        cfg = composed(*chosen)
        chosen += [one for one in NEEDED if OmegaConf.is_missing(*parent_and_key(cfg, one.split("=")[0]))]
    return chosen


def parent_and_key(cfg: DictConfig, path: str) -> tuple[Any, str]:
    parent, _, key = path.rpartition(".")
    node = OmegaConf.select(cfg, parent)
    present = node is not None and key in list(node.keys())  # `in` itself does not see what has no value yet
    return (node, key) if present else (OmegaConf.create({"present": 1}), "present")


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_an_option_composes_and_its_arguments_exist(group: str, option: str) -> None:
    verb = VERBS.get(group, "train")
    cfg = composed(*overrides_for(group, option), *(["output=x"] if verb != "train" else []), verb=verb)
    content = OmegaConf.to_container(OmegaConf.masked_copy(cfg, [k for k in cfg if k != "hydra"]), resolve=True)
    assert list(calls_in(content))
    check_calls(content)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_an_option_file_is_short_and_says_what_it_is(group: str, option: str) -> None:
    lines = (conf_dir() / group / f"{option}.yaml").read_text(encoding="utf8").splitlines()
    assert lines[0].startswith("# ")
    assert len(lines) <= 16  # a line of description and one call
    if lines[0].startswith("# @package"):
        assert lines[1].startswith("# ")


@pytest.mark.parametrize("path", sorted(conf_dir().glob("[!_]*.yaml")), ids=lambda p: p.stem)
def test_a_verb_names_a_function_and_shows_an_example(path: Path) -> None:
    text = path.read_text(encoding="utf8")
    assert text.startswith("# ")
    assert "# Example: " in text
    assert callable(hydra.utils.get_method(OmegaConf.load(path).entry))


def test_experiments_only_override_what_exists() -> None:
    for path in sorted((conf_dir() / "experiment").glob("*.yaml")):
        composed(f"experiment={path.stem}", "data.root=x")  # struct mode refuses an unknown key


@pytest.mark.slow
@pytest.mark.parametrize("split", ["kfold", "holdout", "fractions"])
def test_an_experiment_goes_with_every_split(split: str) -> None:
    """A preset that sets an argument of one split would hand it to another, which does not know it."""
    for path in sorted((conf_dir() / "experiment").glob("*.yaml")):
        cfg = composed(f"experiment={path.stem}", "data.root=x", f"data/split={split}")
        made = hydra.utils.instantiate(cfg.data.split)
        inspect.signature(made.func).bind(None, None, **made.keywords)


def test_objects_are_prepared_as_the_loss_weighs_them() -> None:
    def targets(*overrides: str) -> dict[str, float]:
        cfg = composed("data=folder", "data.root=x", "data/labels=objects", *overrides)
        return dict(hydra.utils.instantiate(cfg.data.labels).targets)

    eight = ("task=multi_output", "loss=eight_part")
    assert targets(*eight) == {"hv": 1.0, "reconstruction": 0.5}
    assert targets(*eight, "loss.weights.hv=0") == {"hv": 0, "reconstruction": 0.5}
    for loss in ("dice_focal", "lovasz"):  # which may be replaced by one that reads them
        assert targets(f"loss={loss}") == {"hv": 1.0, "reconstruction": 1.0}
    cfg = composed("data=folder", "data.root=x", "data/labels=objects", "output=x", verb="audit")
    assert hydra.utils.instantiate(cfg.data.labels).targets == {"hv": 1.0, "reconstruction": 1.0}
