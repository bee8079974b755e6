"""What `resume` goes on from, what it refuses and what it says, before anything is written."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from omegaconf import DictConfig
from tests.verbs._asserts import SMALL, only_run

import hsl.verbs.train.train
from hsl.errors import ConfigError
from hsl.run_folder.claim import RunFolder
from hsl.verbs.train.train import train

Make = Callable[..., DictConfig]

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*", "ignore:Checkpoint directory.*"
)

CONSTANT = (*SMALL, "scheduler=constant")


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def unscored() -> Iterator[None]:
    """The training only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hsl.verbs.train.train, "score_checkpoint", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def short(module_tiny: Make) -> Path:
    """A run of two epochs with a constant learning rate."""
    cfg = module_tiny(*CONSTANT, "trainer.max_epochs=2")
    train(cfg)
    return only_run(Path(cfg.output_root))


@pytest.fixture
def root(tmp_path: Path, short: Path) -> Path:
    """A copy of what lies above the short run."""
    shutil.copytree(short.parents[2], tmp_path / "outputs")
    return tmp_path / "outputs"


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[RunFolder]:
    """The folders in which a training would have run."""
    folders: list[RunFolder] = []
    monkeypatch.setattr(hsl.verbs.train.train, "_train_in", lambda folder, *_: folders.append(folder))
    return folders


def test_more_epochs_go_on_in_a_folder_of_their_own(
    tiny: Make, tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, before = only_run(root), content(root)
    train(tiny(*CONSTANT, "trainer.max_epochs=4", f"output_root={root}", "resume=last"))
    assert "differs in `trainer.max_epochs` (2, now 4). This run goes on from its 2 epochs" in capsys.readouterr().out
    (second,) = set(root.glob("*/fold0/*/")) - {first}
    assert {name: value for name, value in content(root).items() if name in before} == before
    train(tiny(*CONSTANT, "trainer.max_epochs=4", f"output_root={tmp_path / 'undisturbed'}"))
    undisturbed = only_run(tmp_path / "undisturbed")
    for name in ("best", "last"):
        a, b = (torch.load(one / "checkpoints" / f"{name}.ckpt", weights_only=True) for one in (second, undisturbed))
        assert a["epoch"] == b["epoch"]
        assert all(torch.equal(value, b["state_dict"][key]) for key, value in a["state_dict"].items()
                   if isinstance(value, torch.Tensor))  # fmt: skip
    histories = [pd.read_csv(folder / "history.csv") for folder in (second, undisturbed)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)


def test_a_curve_over_all_epochs_is_told_and_the_way_to_go_on_all_the_same_works(
    tiny: Make, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cosine = (*SMALL, "scheduler=cosine", f"output_root={root}")
    train(tiny(*cosine, "trainer.max_epochs=1"))
    planned: list[RunFolder] = []
    monkeypatch.setattr(hsl.verbs.train.train, "_train_in", lambda folder, *_: planned.append(folder))
    train(tiny(*cosine, "trainer.max_epochs=3", "resume=last"))
    said = capsys.readouterr().out
    assert "differs in `trainer.max_epochs` (1, now 3). The learning rate follows a curve over all epochs" in said
    assert planned[0].checkpoint is None
    shutil.rmtree(planned[0].path)
    advice = re.findall(r"`(resume=[^`]+)`", said)[-1]
    train(tiny(*cosine, "trainer.max_epochs=3", advice))
    assert planned[1].checkpoint == planned[1].path / "checkpoints" / "last.ckpt"
    assert (planned[1].path / "checkpoints" / "best.ckpt").is_file()
    assert "goes on from" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("seed=3", "optimizer.lr=0.5"), ["`optimizer.lr` (0.001, now 0.5)", "`seed` (0, now 3)", "A new run starts."]),
        (("fold=1",), ["there is no earlier run of these data below"]),
        (("trainer.max_epochs=1",), ["`trainer.max_epochs` (2, now 1). It has done 2 epochs. A new run starts."]),
    ],
)
def test_a_new_run_never_starts_without_a_word(
    tiny: Make,
    root: Path,
    planned: list[RunFolder],
    capsys: pytest.CaptureFixture[str],
    changes: tuple[str, ...],
    said: list[str],
) -> None:
    train(tiny(*CONSTANT, "trainer.max_epochs=2", f"output_root={root}", "resume=last", *changes))
    assert planned[0].checkpoint is None
    printed = capsys.readouterr().out
    assert all(words in printed for words in said), printed


def refused(cfg: DictConfig, root: Path) -> str:
    """What an error says that leaves everything as it was."""
    before = content(root)
    with pytest.raises(ConfigError) as caught:
        train(cfg)
    assert content(root) == before
    assert not list(root.rglob(".run-*"))
    return str(caught.value)


@pytest.mark.parametrize("changed", [(), ("seed=1",)])
def test_fewer_epochs_than_done(tiny: Make, root: Path, changed: tuple[str, ...]) -> None:
    last = only_run(root) / "checkpoints" / "last.ckpt"
    cfg = tiny(*CONSTANT, "trainer.max_epochs=1", f"output_root={root}", f"resume={last}", *changed)
    said = refused(cfg, root)
    assert "`trainer.max_epochs` should be more than the 2 epochs" in said
    assert "Found `trainer.max_epochs = 1`" in said


def test_another_run_of_as_many_epochs_has_nothing_to_train(tiny: Make, root: Path) -> None:
    last = only_run(root) / "checkpoints" / "last.ckpt"
    cfg = tiny(*CONSTANT, "trainer.max_epochs=2", "seed=1", f"output_root={root}", f"resume={last}")
    assert "should be more than the 2 epochs" in refused(cfg, root)


def test_another_optimizer(tiny: Make, root: Path) -> None:
    cfg = tiny(*CONSTANT, "optimizer=sgd", f"output_root={root}", f"resume={only_run(root)}")
    assert "should have been trained with this optimizer" in refused(cfg, root)


@pytest.mark.parametrize("place", ["nowhere", "outputs", "nowhere/last.ckpt", ""])
def test_a_place_without_a_checkpoint(tiny: Make, tmp_path: Path, root: Path, place: str) -> None:
    said = refused(tiny(*CONSTANT, f"output_root={root}", f"resume={tmp_path / place}"), root)
    assert said.startswith("`resume` should be null, last, a run folder or a checkpoint's path. Found")


def damaged(path: Path, kind: str) -> None:
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    path.write_bytes({"half": whole[:middle], "text": b"hello\n" * 99, "flipped": flipped}[kind])


@pytest.mark.parametrize(
    ("kind", "resume"), [("half", "last"), ("text", "{run}"), ("flipped", "{run}/checkpoints/last.ckpt")]
)
def test_a_damaged_checkpoint(tiny: Make, root: Path, kind: str, resume: str) -> None:
    last = only_run(root) / "checkpoints" / "last.ckpt"
    damaged(last, kind)
    where = resume.format(run=only_run(root))
    said = refused(tiny(*CONSTANT, "trainer.max_epochs=2", f"output_root={root}", f"resume={where}"), root)
    assert f"`{last}` should be a checkpoint of hsl. Found" in said
    assert "\n" not in said
    assert f"Go on with `resume={last.with_name('best.ckpt')}`" in said


def test_the_way_out_of_a_damaged_checkpoint_works(tiny: Make, root: Path) -> None:
    folder = only_run(root)
    last = folder / "checkpoints" / "last.ckpt"
    before = torch.load(last, weights_only=True)
    damaged(last, "flipped")
    base = (*CONSTANT, "trainer.max_epochs=2", f"output_root={root}")
    said = refused(tiny(*base, "resume=last"), root)
    (advice,) = re.findall(r"`(resume=[^`]+)`", said)
    train(tiny(*base, advice))
    after = torch.load(last, weights_only=True)
    assert after["epoch"] == before["epoch"]
    assert after["global_step"] == before["global_step"]
    assert all(torch.equal(value, after["state_dict"][key]) for key, value in before["state_dict"].items()
               if isinstance(value, torch.Tensor))  # fmt: skip
    assert only_run(root) == folder
    for name in ("last", "best"):
        damaged(folder / "checkpoints" / f"{name}.ckpt", "half")
    assert "Start a new run with `resume=null`." in refused(tiny(*base, "resume=last"), root)


def test_the_best_checkpoint_is_looked_at_too(tiny: Make, root: Path) -> None:
    best = only_run(root) / "checkpoints" / "best.ckpt"
    base = (*CONSTANT, "trainer.max_epochs=2", f"output_root={root}", "resume=last")
    damaged(best, "flipped")
    assert f"`{best}` should be a checkpoint of hsl" in refused(tiny(*base), root)
    best.unlink()
    assert f"`{best}` should be there" in refused(tiny(*base), root)


@pytest.mark.parametrize(
    "part", ["rng", "loops", "optimizer_states", "lr_schedulers", "callbacks", "provenance", "epoch", "rng.numpy"]
)
def test_a_checkpoint_without_a_part(tiny: Make, root: Path, part: str) -> None:
    last = only_run(root) / "checkpoints" / "last.ckpt"
    whole: Any = torch.load(last, weights_only=True)
    outer, _, inner = part.partition(".")
    whole[outer].pop(inner) if inner else whole.pop(outer)
    torch.save(whole, last)
    said = refused(tiny(*CONSTANT, "trainer.max_epochs=2", f"output_root={root}", "resume=last"), root)
    assert re.search(rf"Found one without its `{re.escape(part)}[.\w]*`", said), said


def test_pages_without_a_key(tiny: Make, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = only_run(root)
    base = (*CONSTANT, "trainer.max_epochs=2", f"output_root={root}", f"resume={folder}")
    facts = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps({key: facts[key] for key in facts if key != "status"}))
    with pytest.raises(ValueError, match=r"provenance\.json` should have the key `status`"):
        train(tiny(*base))
    (folder / "provenance.json").write_text(json.dumps(facts))
    (folder / "metrics.json").write_text("{}")
    with pytest.raises(ValueError, match=r"metrics\.json`: `monitor`: Field required"):
        train(tiny(*base))
