"""Every number in conf/ has a range: one far outside, and one that is none, are refused before anything is built."""

from collections.abc import Iterator
from itertools import zip_longest
from math import nan
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from hsl.cli import conf_dir
from hsl.config.calls import calls_in, check_calls, check_values
from hsl.config.ranges import KEYS
from hsl.config.validation import validate
from hsl.errors import ConfigError

NEEDED = {"data.root": "x", "encoder.name": "resnet18", "data.reader.mask_column": "m", "data.reader.classes": "[a,b]"}
NEEDED |= {
    "data.sampling.runs": "[x]",
    "data.sampling.table": "x",
    "output": "x",
    "run": "x",
    "model": "x",
    "runs": "[x]",
    "input": "x",
    "labels": "x",
}
LEGAL = {
    "lr_search": "`hsl.verbs.profile.lr_search` holds the two against each other before anything is read",
    "mean": "a mean of colours; `std` is held against 0 by `hsl.data.arguments`, where the data are built",
    "std": "see mean",
    "minimum": "a score of your own may be negative; none is a number that is not reached",
    "baseline": "see minimum",
    "devices": "-1 is all of them; Lightning knows what the machine has, and is asked before there is a run folder",
    "tiers": "of labels: see `hsl.pseudo_labels.quality`; of encoders: one that no encoder is below is never chosen",
    "size_multiple": "evaluate and predict: the run's own takes its place",
    "study": "`hsl.verbs.study.checks` and `spaces` look at all of it together, before anything is trained",
    "sampler": "Optuna's own, built before anything is trained; each refuses what it cannot take",
    "pruner": "see sampler",
    "value_range": "pictures of floating point may have any two, see `hsl.data.arguments`",
}
"""Last word of a key, or one above it, whose numbers no annotation holds, and why."""


TRAINING = ("train", "study")
ELSEWHERE = ("experiment", "labelling", "stage", "study", "sampler", "pruner")
"""Groups of other verbs, and those whose options choose others."""


def is_missing(cfg: Any, above: str, name: str) -> bool:
    node = OmegaConf.select(cfg, above) if above else cfg
    return node is not None and name in node and OmegaConf.is_missing(node, name)


def composed(verb: str, *overrides: str) -> Any:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(verb, overrides=list(overrides), return_hydra_config=True)
        missing = [key for key in NEEDED if is_missing(cfg, *key.rpartition(".")[::2])]
        if missing:
            given = [f"{key}={NEEDED[key]}" for key in missing]
            cfg = compose(verb, overrides=[*overrides, *given], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return OmegaConf.to_container(OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]), resolve=True)


def all_configs() -> Iterator[tuple[str, Any]]:
    """Every verb, and every option of every group of train.yaml, several groups to a composition."""
    groups = [path for path in sorted(conf_dir().rglob("*")) if path.is_dir() and "hydra" not in path.parts]
    groups = [path for path in groups if path.name not in ELSEWHERE]
    names = [[f"{g.relative_to(conf_dir())}={o.stem}" for o in sorted(g.glob("[!_]*.yaml"))] for g in groups]
    for chosen in zip_longest(*names):
        yield "train", composed("train", *(one for one in chosen if one))
    yield "label", composed("label", "labelling=coffee_leaf")
    for path in sorted(conf_dir().glob("[!_]*.yaml")):
        if path.stem not in ("train", "options", "runs"):  # the last two are read without Hydra, and have one number
            yield path.stem, composed(path.stem)


def numbers(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(node, (int, float)) and not isinstance(node, bool):
        yield place
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from numbers(value, (*place, key))


def with_value(node: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    changed = dict(node) if isinstance(node, dict) else list(node)
    changed[place[0]] = with_value(node[place[0]], place[1:], value)
    return changed


def is_refused(verb: str, content: Any) -> bool:
    try:
        if verb in TRAINING:
            validate(OmegaConf.create(content))
        check_values(content, KEYS)
    except ConfigError:
        return True
    return False


@pytest.mark.slow
def test_a_number_far_outside_and_one_that_is_none_are_refused() -> None:
    seen: set[tuple[Any, ...]] = set()
    silent = set()
    for verb, content in all_configs():
        inside: set[tuple[Any, ...]] = set()
        for path, node in calls_in(content):
            for place in numbers({key: value for key, value in node.items() if not list(calls_in(value))}):
                inside.add((*path.replace("[", ".").replace("]", "").split("."), *map(str, place)))
                known = (node["_target_"], *(key for key in place if isinstance(key, str)))
                unused = (verb in TRAINING and path == "trainer") or node["_target_"] == "hsl.verbs.audit.unbuilt"
                if known in seen or {path, *place} & set(LEGAL) or unused:
                    continue
                seen.add(known)
                alone = {"_target_": node["_target_"], "_partial_": True}
                for value in (-1000, nan):
                    with pytest.raises(ConfigError) as caught:
                        check_calls({"part": alone | with_value({place[0]: node[place[0]]}, place, value)})
                    assert f"`part.{place[0]}" in str(caught.value), (node["_target_"], place)
        for place in numbers(content):
            known = (verb, *(key for key in place if isinstance(key, str)))
            trainer = verb in TRAINING and place[0] == "trainer"
            if known in seen or set(place) & set(LEGAL) or (tuple(map(str, place)) in inside and not trainer):
                continue
            seen.add(known)
            silent |= {
                (known, value) for value in (-1000, nan) if not is_refused(verb, with_value(content, place, value))
            }
    assert not silent
    assert len(seen) > 150
