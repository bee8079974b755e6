"""Every option composes, binds the signature of what it calls, and keeps the rules for YAML; the listing of them."""

import inspect
import json
import re
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from hsl.cli import conf_dir
from hsl.config.calls import calls_in, check_calls
from hsl.errors import ConfigError
from hsl.options import Option, options_below, options_json, options_text, read_options
from hsl.verbs.train.phase_plan import read_phases

GROUPS = sorted(p for p in conf_dir().rglob("*") if p.is_dir() and p.name != "hydra" and p.parent.name != "hydra")
VERBS = {"labelling": "label", "stage": "ensemble", "study": "study", "sampler": "study", "pruner": "study"}
"""Groups of another config than train.yaml."""
OPTIONS = [(str(g.relative_to(conf_dir())), f.stem) for g in GROUPS for f in sorted(g.glob("[!_]*.yaml"))]
NEEDED = [
    "data.root=somewhere",
    "runs=somewhere",
    "encoder.name=resnet18",
    "data.reader.mask_column=mask",
    "data.reader.classes=[a,b]",
    "data.sampling.runs=[somewhere]",
    "data.sampling.table=somewhere",
]


def composed(*overrides: str, verb: str = "train") -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(verb, overrides=list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return cfg


def word(group: str, option: str) -> str:
    """What chooses an option on the command line."""
    return f"stage@settings.{option}={option}" if group == "stage" else f"{group}={option}"


def rounds() -> list[tuple[str, list[str]]]:
    """Every option of every group: one of each group to a composition, which takes most of the time of a test."""
    by_group: dict[tuple[str, str], list[str]] = {}
    for group, option in OPTIONS:
        by_group.setdefault((VERBS.get(group, "train"), group), []).append(word(group, option))
    presets = by_group.pop(("train", "experiment"))  # these choose other groups themselves
    made = [("train", [preset]) for preset in presets]
    made.append(("ensemble", by_group.pop(("ensemble", "stage"))))  # each has a place of its own there
    for verb in sorted({verb for verb, _ in by_group}):
        columns = [options for (of, _), options in by_group.items() if of == verb]
        made += [(verb, [one for one in chosen if one]) for chosen in zip_longest(*columns)]
    return made


def composed_round(verb: str, chosen: list[str]) -> DictConfig:
    """The options, and a value for whatever they say the user has to choose."""
    output = [] if verb in ("train", "study") else ["output=x"]
    cfg = without_hydra(composed(*chosen, *output, verb=verb))
    if not (missing := OmegaConf.missing_keys(cfg)):
        return cfg
    cfg = composed(*chosen, *output, *(one for one in NEEDED if one.split("=")[0] in missing), verb=verb)
    return without_hydra(cfg)


def without_hydra(cfg: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])


@pytest.mark.parametrize(
    ("verb", "chosen"), rounds(), ids=lambda value: value if isinstance(value, str) else ",".join(value)
)
def test_options_compose_and_their_arguments_exist(verb: str, chosen: list[str]) -> None:
    content = OmegaConf.to_container(composed_round(verb, chosen), resolve=True)
    assert list(calls_in(content))
    check_calls(content)


def test_every_option_is_composed() -> None:
    assert sorted(one for _, chosen in rounds() for one in chosen) == sorted(word(*one) for one in OPTIONS)


def test_an_option_file_is_short_and_says_what_it_is() -> None:
    for group, option in OPTIONS:
        lines = (conf_dir() / group / f"{option}.yaml").read_text(encoding="utf8").splitlines()
        described = lines[1] if lines[0].startswith("# @package") else lines[0]
        assert described.startswith("# "), (group, option)
        assert len(lines) <= 16, (group, option)  # a line of description and one call


def test_a_verb_names_a_function_and_shows_an_example() -> None:
    for path in sorted(conf_dir().glob("[!_]*.yaml")):
        text = path.read_text(encoding="utf8")
        assert text.startswith("# "), path
        assert "# Example: " in text, path
        assert callable(hydra.utils.get_method(OmegaConf.load(path).entry)), path


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


def test_the_defaults_are_the_published_recipe() -> None:
    cfg = composed()
    optimizer, stop = cfg.optimizer, cfg.callbacks.early_stopping
    assert (optimizer.lr, optimizer.weight_decay, list(optimizer.betas)) == (0.001, 0.01, [0.9, 0.999])
    assert (cfg.scheduler.pct_start, cfg.trainer.gradient_clip_val) == (0.3, 1.0)
    assert (stop.patience, stop.min_delta, stop.monitor) == (10, 0.001, "val/miou")
    assert (cfg.callbacks.evaluation.num_examples, list(cfg.decoder.channels)) == (30, [256, 128, 64, 32, 16])


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


@pytest.mark.parametrize(
    "words",
    [
        ["experiment=artefact_cv", "decoder=fpn"],
        ["experiment=artefact_cv", "loss=ce"],
        ["experiment=leaf_dual_head", "data/labels=masks", "scheduler=onecycle", "phases=dual_head"],
        ["experiment=leaf_dual_head", "data/labels=masks", "callbacks=default"],
        ["experiment=coral_holistic", "scheduler=onecycle"],
    ],
    ids=" ".join,
)
def test_what_a_preset_sets_for_another_option_is_taken_away_as_the_error_says(words: list[str]) -> None:
    def check(*more: str) -> None:
        whole = composed(*words, "data.root=x", *more)
        cfg = OmegaConf.masked_copy(whole, [key for key in whole if key != "hydra"])
        content: Any = OmegaConf.to_container(cfg, resolve=True)
        check_calls(content)
        read_phases(cfg)

    with pytest.raises(ConfigError) as told:
        check()
    check(*re.findall(r"with `(~[\w.]+)`", str(told.value)))


def test_phases_of_a_preset_are_turned_off() -> None:
    assert composed("experiment=leaf_dual_head", "phases=none").phases is None


# The listing of the configuration groups, against the files themselves and against Hydra.


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
