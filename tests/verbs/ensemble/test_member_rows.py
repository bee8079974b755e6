"""A trained checkpoint looks at the pictures that its fold did not train on, and what it saw is kept."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from tests.verbs._asserts import SMALL, assert_maps_agree, only_run, weights

from hsl.cli import conf_dir
from hsl.config.targets import named_targets
from hsl.errors import ConfigError
from hsl.files.io import read_arrays
from hsl.files.split_file import read_split
from hsl.run_folder.member_rows import read_features, read_kept
from hsl.run_folder.pictures import read_image_predictions
from hsl.verbs.ensemble import member_rows
from hsl.verbs.ensemble.member_rows import RowSettings, keep_rows, open_data, picture_seconds
from hsl.verbs.train.train import train

Make = Callable[..., DictConfig]

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*", "ignore:Checkpoint directory.*",
    "ignore:.*have no pixel in the training part.*",
)  # fmt: skip


def settings(**changes: Any) -> RowSettings:
    return RowSettings(allowed=named_targets(conf_dir()), **changes)


@pytest.fixture(scope="module")
def run(module_tiny: Make) -> Path:
    cfg = module_tiny(
        "task=dual_head", "loss=dual_head", "data.image_labels=label", *SMALL, "trainer.max_epochs=1"
    )  # fmt: skip
    train(cfg)
    folder = only_run(Path(cfg.output_root).parent)
    keep_rows([folder], "val", settings())
    return folder


def arrays_of(folder: Path) -> dict[str, np.ndarray]:
    """Every array below ``rows/``."""
    found = {}
    for path in sorted((folder / "rows").rglob("*.npz")):
        names = ["ids", "features"] if path.name.startswith("features") else ["map"]
        for name, values in read_arrays(path, names).items():
            found[f"{path.relative_to(folder)}/{name}"] = values
    return found


def test_features_are_what_the_image_head_reads(run: Path) -> None:
    ids = read_split(run / "splits.json").folds[0].val
    features = read_features(run, "val")
    assert list(features) == list(ids)
    state = weights(run, "best")["state_dict"]
    layer = {name: state[f"network.heads.classification.classify.{name}"] for name in ("weight", "bias")}
    seen = torch.from_numpy(np.stack(list(features.values()))) @ layer["weight"].T + layer["bias"]
    classes = list(open_data(run, settings())[1].prepared.image_classes["classification"])
    told = read_image_predictions(run, "classification", classes, several=False)["val", "plain"]
    rows = [told.places[name] for name in ids]
    np.testing.assert_allclose(seen.softmax(1).numpy(), told.probabilities[rows], atol=1e-4)


def test_maps_are_the_probabilities_at_the_size_of_the_source(run: Path) -> None:
    assert_maps_agree(run)
    spent = read_kept(run).parts["val"].seconds
    assert spent.keys() == {"features", "maps"}
    assert picture_seconds([run, run]) == {"image": spent["features"], "dense": spent["maps"]}
    assert min(spent.values()) > 0
    assert read_kept(run).classes == list(open_data(run, settings())[1].prepared.classes["segmentation"])


def test_what_is_there_is_not_made_again(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    before = arrays_of(run)
    monkeypatch.setattr(member_rows, "_look", None)  # nothing is looked at
    keep_rows([run], "val", settings())
    keep_rows([run], "val", settings(maps=False))
    assert capsys.readouterr().out == ""
    assert arrays_of(run).keys() == before.keys()


def test_an_interrupted_pass_goes_on(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("rows"))
    whole, seen = member_rows._add_maps, []

    def stopped(*arguments: Any) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(whole(*arguments))

    with monkeypatch.context() as patch:
        patch.setattr(member_rows, "_add_maps", stopped)
        with pytest.raises(KeyboardInterrupt):
            keep_rows([copy], "val", settings())
    assert read_kept(copy).parts == {}
    num_done = len(list((copy / "rows" / "maps" / "val").iterdir()))
    assert num_done > 0
    keep_rows([copy], "val", settings())
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith(f"rows of {copy}, val: features 0.")
    assert "maps at most" in told[0]
    for name, values in arrays_of(run).items():
        np.testing.assert_array_equal(arrays_of(copy)[name], values)


@pytest.mark.slow
def test_a_killed_pass_goes_on_to_the_end_of_an_undisturbed_one(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("rows"))
    script = f"""
import os, signal
from pathlib import Path
from hsl.cli import conf_dir
from hsl.config.targets import named_targets
from hsl.verbs.ensemble.member_rows import RowSettings, keep_rows
sync, calls = os.fsync, []
def kill(handle):
    calls.append(handle)
    if len(calls) == 4:  # the page, two maps, and then within the third
        os.kill(os.getpid(), signal.SIGKILL)
    sync(handle)
os.fsync = kill
keep_rows([Path({str(copy)!r})], "val", RowSettings(allowed=named_targets(conf_dir())))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(list((copy / "rows").rglob("*.npz"))) == 2
    assert len(list((copy / "rows").rglob("*.partial"))) == 1
    keep_rows([copy], "val", settings())
    assert not list((copy / "rows").rglob("*.partial"))
    for name, values in arrays_of(run).items():
        np.testing.assert_array_equal(arrays_of(copy)[name], values)


def test_another_checkpoint_is_looked_at_anew(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    content = weights(run, "best")
    content["state_dict"]["network.heads.segmentation.classify.bias"] += torch.arange(6.0)
    torch.save(content, copy / "checkpoints" / "best.ckpt")
    keep_rows([copy], "val", settings(maps=True))
    assert read_kept(copy).checkpoint != read_kept(run).checkpoint
    one, two = arrays_of(run), arrays_of(copy)
    assert one.keys() == two.keys()
    assert any((one[name] != two[name]).any() for name in one if name.endswith("map"))


def test_an_inference_that_nothing_was_scored_by(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"`inference` should be a name under which .* was scored: plain. Found"):
        keep_rows([run], "val", settings(inference="tta"))
