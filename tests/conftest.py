"""A tiny run for the tests that need a whole one."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from hsl.cli import conf_dir

TINY = (
    "encoder=mit_b0", "encoder.weights=null", "decoder.channels=[16,16,16,16,16]", "data.reader.num_pictures=24",
    "data.reader.size=64", "data.image_size=64", "data.batch_size=4", "data.num_workers=0",
    "data.audit.missing_classes=warn",
    "trainer.accelerator=cpu", "trainer.max_epochs=3", "logger=none",
)  # fmt: skip


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the demo pictures are drawn, once for all tests of a process."""
    return tmp_path_factory.mktemp("demo")


def compose_tiny(folder: Path, demo_root: Path, *overrides: str, verb: str = "train") -> DictConfig:
    """A run of seconds: 24 pictures of 64 px, three epochs, everything below ``folder``."""
    places = [f"data.root={demo_root}", f"output_root={folder / 'outputs'}"] if verb == "train" else []
    other_decoder = any(one.startswith("decoder=") for one in overrides)
    base = [one for one in TINY if not (other_decoder and one.startswith("decoder."))]
    chosen = [*base, *places, *overrides] if verb == "train" else list(overrides)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(verb, overrides=chosen, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


@pytest.fixture
def tiny(tmp_path: Path, demo_root: Path) -> Callable[..., DictConfig]:
    """`compose_tiny` below this test's own folder."""
    return partial(compose_tiny, tmp_path, demo_root)


@pytest.fixture(scope="module")
def module_tiny(tmp_path_factory: pytest.TempPathFactory, demo_root: Path) -> Callable[..., DictConfig]:
    """The same below a folder that the tests of a module share."""
    return partial(compose_tiny, tmp_path_factory.mktemp("shared"), demo_root)
