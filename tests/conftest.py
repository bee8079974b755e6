"""A tiny run for the tests that need a whole one."""

import copy
import functools
import gc
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal import config_loader_impl as loader
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import DefaultsList
from hydra.core.hydra_config import HydraConfig
from matplotlib.figure import Figure
from omegaconf import DictConfig, open_dict
from omegaconf import base as omegaconf_base
from PIL import Image
from tests._runs import (  # noqa: F401  a fixture is found where its name stands
    add_image_head,
    add_objects,
    add_pictures,
    add_tasks,
    add_weighting,
    make_full_runs,
    make_run,
    masks_fixture,
    module_full_runs,
    split_of_fixture,
)

from hsl.cli import conf_dir

CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
TINY = (
    "encoder=mit_b0", "encoder.weights=null", "decoder.channels=[16,16,16,16,16]", "data.reader.num_pictures=24",
    "data.reader.size=64", "data.image_size=64", "data.batch_size=4", "data.num_workers=0",
    "data.audit.missing_classes=warn",
    "trainer.accelerator=cpu", "trainer.max_epochs=3", "logger=none",
)  # fmt: skip


# Hydra composes a config of 45 files in 0.2 s, and the tests compose 900: what is the same each time is kept.


def remember_compositions() -> None:
    """Keep in this process each file, the files that a choice of options leads to, and these as one config.

    Only of our own conf/, which does not change meanwhile. Values are set anew; a mistake is not kept.
    """
    composer = loader.ConfigLoaderImpl
    ConfigRepository.load_config = copies_of(
        ConfigRepository.load_config, lambda repo, config_path: (repo, config_path)
    )
    composer._compose_config_from_defaults_list = copies_of(
        composer._compose_config_from_defaults_list, lambda _, defaults, repo: (repo, repr(defaults))
    )
    loader.create_defaults_list = lists_of_choices(loader.create_defaults_list)
    omegaconf_base.parse = functools.cache(omegaconf_base.parse)  # `${...}`, of any config: a tree that is only read


def copies_of(compute: Callable[..., Any], arguments_of: Callable[..., tuple[Any, str]]) -> Callable[..., Any]:
    kept: dict[str, Any] = {}

    def load(*given: Any, **named: Any) -> Any:
        repo, key = arguments_of(*given, **named)
        if not ours(repo):
            return compute(*given, **named)
        if key not in kept:
            kept[key] = compute(*given, **named)
        return copy.deepcopy(kept[key])

    return load


def lists_of_choices(compute: Callable[..., DefaultsList]) -> Callable[..., DefaultsList]:
    kept: dict[Any, DefaultsList] = {}

    def create(repo: Any, config_name: Any, overrides_list: Any, prepend_hydra: bool, skip_missing: bool) -> Any:
        if not ours(repo):
            return compute(repo, config_name, overrides_list, prepend_hydra, skip_missing)
        chosen = [one for one in overrides_list if repo.group_exists(one.key_or_group)]
        key = (config_name, prepend_hydra, skip_missing, *(one.input_line for one in chosen))
        if key not in kept:
            kept[key] = compute(repo, config_name, chosen, prepend_hydra, skip_missing)
        of_chosen, sweeps = kept[key].config_overrides, [one for one in overrides_list if one.is_sweep_override()]
        values = [one for one in overrides_list if one in of_chosen or one not in [*chosen, *sweeps]]
        return DefaultsList(kept[key].defaults, kept[key].defaults_tree, values, kept[key].overrides)

    return create


def ours(repo: Any) -> bool:
    places = [one.path.removeprefix("file://") for one in repo.get_sources() if one.scheme() == "file"]
    return places == [str(conf_dir())]


# A suite that nohup or the background of a script started ignores these, and so would the commands that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
remember_compositions()
gc.disable()  # until `pytest_collection_finish`: of what the imports make, nothing is garbage


def pytest_collection_finish() -> None:
    """What the imports made is there to the end: no collection of garbage looks through it again."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # else libraries report at the exit what was never freed


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the demo pictures are drawn, once for all tests of a process."""
    return tmp_path_factory.mktemp("demo")


def compose_tiny(folder: Path, demo_root: Path, *overrides: str, verb: str = "train") -> DictConfig:
    """A run of seconds: 24 pictures of 64 px, three epochs, everything below ``folder``."""
    places = [f"data.root={demo_root}", f"output_root={folder / 'outputs'}"] if verb == "train" else []
    other_decoder = any(one.startswith("decoder=") for one in overrides)
    base = [one for one in TINY if not (other_decoder and one.startswith("decoder."))]
    kept = [f"output_root={folder / 'outputs'}"] if verb in ("evaluate", "analyze") else []
    chosen = [*base, *places, *overrides] if verb == "train" else [*kept, *overrides]
    return composed(chosen, verb)


def composed(overrides: Sequence[str], verb: str = "train") -> DictConfig:
    """The config of a verb as the command line composes it."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(verb, overrides=list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


@pytest.fixture
def tiny(tmp_path: Path, demo_root: Path) -> Callable[..., DictConfig]:
    """`compose_tiny` below this test's own folder."""
    return functools.partial(compose_tiny, tmp_path, demo_root)


@pytest.fixture(scope="module")
def module_tiny(tmp_path_factory: pytest.TempPathFactory, demo_root: Path) -> Callable[..., DictConfig]:
    """The same below a folder that the tests of a module share."""
    return functools.partial(compose_tiny, tmp_path_factory.mktemp("shared"), demo_root)


@pytest.fixture(scope="module")
def undrawn() -> Iterator[dict[str, Any]]:
    """Figures of this module's tests are made, but neither laid out nor drawn: what they save is blank.

    For tests of other things; the rooms of plots and the tests that ask for `drawn` draw them.
    """
    methods = {name: getattr(Figure, name) for name in ("savefig", "draw_without_rendering")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save_blank)
        patch.setattr(Figure, "draw_without_rendering", lambda self: None)
        yield methods


@pytest.fixture
def drawn(undrawn: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """All the same in this test."""
    for name, method in undrawn.items():
        monkeypatch.setattr(Figure, name, method)


def save_blank(_: Figure, file: BinaryIO, *, format: str, **rest: Any) -> None:
    if format == "svg":
        file.write(b"<svg></svg>")
    else:
        Image.new("RGB", (1, 1)).save(file, format)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright; skipped where there is none, unless ``HSL_BROWSER=1`` asks for it."""
    from playwright.sync_api import sync_playwright  # here, so that other tests do without it

    if not CHROMIUM.exists():
        if os.environ.get("HSL_BROWSER") == "1":
            pytest.fail(f"{CHROMIUM} is missing, and HSL_BROWSER=1 asks for it. Install Debian's chromium.")
        pytest.skip(f"{CHROMIUM} is missing")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=CHROMIUM_ARGUMENTS)
        yield chromium
        chromium.close()


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Step and value of every point of a TensorBoard log, by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # slow to import

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {name: [(one.step, one.value) for one in events.Scalars(name)] for name in events.Tags()["scalars"]}
