"""A run folder that was moved, copied or linked to loses nothing, and one that is finished stays as it is."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from omegaconf import DictConfig
from tests.verbs._asserts import SMALL, interrupt_after_epoch, only_run

from hsl.verbs.evaluate import evaluate
from hsl.verbs.predict.predict import predict
from hsl.verbs.train.train import train

Make = Callable[..., DictConfig]

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*", "ignore:Checkpoint directory.*"
)


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}  # fmt: skip


def assert_same_run(one: Path, two: Path) -> None:
    for name in ("best", "last"):
        a, b = (torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True) for folder in (one, two))
        assert a["epoch"] == b["epoch"]
        assert all(torch.equal(value, b["state_dict"][key]) for key, value in a["state_dict"].items()
                   if isinstance(value, torch.Tensor))  # fmt: skip
    pages = [json.loads((folder / "metrics.json").read_text()) for folder in (one, two)]
    assert pages[0]["monitor"] == pages[1]["monitor"]
    assert pages[0]["parts"] == pages[1]["parts"]
    history = [pd.read_csv(folder / "history.csv") for folder in (one, two)]
    pd.testing.assert_frame_equal(*history, check_exact=True)


@pytest.fixture(scope="module")
def whole(module_tiny: Make) -> Path:
    """A finished run of three epochs."""
    cfg = module_tiny(*SMALL)
    train(cfg)
    return only_run(Path(cfg.output_root))


@pytest.fixture(scope="module")
def stopped(module_tiny: Make, whole: Path) -> Path:
    """The same run, stopped after its second epoch, below an output root of its own."""
    root = whole.parents[2].with_name("stopped")
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after_epoch(patch, 1)
        with pytest.raises(SystemExit):
            train(module_tiny(*SMALL, f"output_root={root}"))
    return only_run(root)


SLOW = pytest.mark.slow


@pytest.mark.parametrize("way", ["copy", *(pytest.param(way, marks=SLOW) for way in
                                          ("renamed root", "linked root", "folder", "checkpoint"))])  # fmt: skip
def test_a_moved_run_ends_like_an_undisturbed_one(
    tiny: Make, tmp_path: Path, whole: Path, stopped: Path, way: str
) -> None:
    root, before = tmp_path / "new root", content(stopped)
    shutil.copytree(stopped.parents[2], root)
    resume = "last"
    if way == "linked root":
        root.rename(tmp_path / "real")
        root.symlink_to(tmp_path / "real")
    elif way in ("folder", "checkpoint"):
        moved = shutil.move(only_run(root), tmp_path / "alone")
        resume = moved if way == "folder" else f"{moved}/checkpoints/last.ckpt"
    train(tiny(*SMALL, f"output_root={root}", f"resume='{resume}'"))
    folder = tmp_path / "alone" if way in ("folder", "checkpoint") else only_run(root)
    assert_same_run(folder, whole)
    assert content(stopped) == before
    assert json.loads((folder / "provenance.json").read_text())["status"] == "finished"


@pytest.mark.parametrize("way", ["last", "{run}", "{run}/checkpoints/last.ckpt", "{run}/checkpoints/best.ckpt"])
def test_a_finished_run_says_so_and_stays(
    tiny: Make,
    tmp_path: Path,
    whole: Path,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(whole.parents[2], root)
    before, value = content(root), json.loads((whole / "metrics.json").read_text())["monitor"]["value"]
    monkeypatch.chdir(tmp_path)
    for output_root in (root, os.path.relpath(root)):
        assert train(tiny(*SMALL, f"output_root={output_root}", f"resume={way.format(run=only_run(root))}")) == value
        assert "finished already" in capsys.readouterr().out
    assert content(root) == before


@pytest.mark.slow
def test_data_that_were_moved_are_the_same_data(tiny: Make, tmp_path: Path, whole: Path, demo_root: Path) -> None:
    root, data = tmp_path / "copy", tmp_path / "data elsewhere"
    shutil.copytree(whole.parents[2], root)
    shutil.copytree(demo_root, data)
    before = content(only_run(root))
    train(tiny(*SMALL, f"output_root={root}", f"data.root={data}", "resume=last"))
    assert content(only_run(root)) == before


@pytest.mark.slow
def test_a_run_that_was_moved_with_its_data_is_scored_and_predicts(
    tiny: Make, tmp_path: Path, whole: Path, demo_root: Path
) -> None:
    run, data, gone = tmp_path / "run", tmp_path / "data elsewhere", tmp_path / "gone"
    shutil.copytree(whole, run)
    shutil.copytree(demo_root, data)
    config = (run / "config.yaml").read_text()
    for place in (whole.parents[2].parent, demo_root.parent):
        config = config.replace(str(place), str(gone))
    (run / "config.yaml").write_text(config)
    evaluate(tiny(f"run={run}", f"data_root='{data}'", f"output_root={tmp_path}/outputs", verb="evaluate"))
    pages = [json.loads(path.read_text()) for path in (run / "evaluations/plain/metrics.json", whole / "metrics.json")]
    assert pages[0]["parts"]["val"]["plain"] == pages[1]["parts"]["val"]["plain"]
    (picture,) = list(data.rglob("images/*.png"))[:1]
    predict(tiny(f"run={run}", f"input='{picture}'", f"output={tmp_path}/predicted", verb="predict"))
    assert [path.name for path in (tmp_path / "predicted" / "masks").iterdir()] == [picture.name]
    assert not gone.exists()  # nothing is written where the run once was


@pytest.mark.slow
def test_a_run_whose_scores_are_gone_is_scored_again(tiny: Make, tmp_path: Path, whole: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(whole.parents[2], root)
    (only_run(root) / "metrics.json").unlink()
    train(tiny(*SMALL, f"output_root={root}", "resume=last"))
    assert_same_run(only_run(root), whole)
