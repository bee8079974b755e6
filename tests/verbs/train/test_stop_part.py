"""What a training is told beside its own pictures and labels: a part to stop by, targets of a teacher."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra.utils import instantiate
from omegaconf import DictConfig
from tests.verbs._asserts import SMALL, assert_same_training, only_run

from hsl.batch import ATTENTION
from hsl.errors import ConfigError
from hsl.files.split_file import read_split, write_split
from hsl.files.teacher_file import TeacherTargets, write_teachers
from hsl.verbs.scoring.image_results import stored_thresholds, tune_thresholds
from hsl.verbs.train import train as module
from hsl.verbs.train.earlier_runs import check_first_weights
from hsl.verbs.train.train import train

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*",
    "ignore:.*does not have many workers.*",
    "ignore:Checkpoint directory.*",
    "ignore:.*have no pixel in the training part.*",
)

Make = Callable[..., DictConfig]
KINDS = ["crack", "stain", "scratch"]
RUN = (
    "task=dual_head", "loss=dual_head_multilabel", f"data.image_labels=[{','.join(KINDS)}]", *SMALL,
    "data.split.stop_fraction=0.2", "monitor=val/macro_f1", "data.cache=null",
)  # fmt: skip


@pytest.fixture(scope="module")
def opened() -> set[str]:
    """Names of the files that this process opens from now on; a hook stays for the life of the process."""
    names: set[str] = set()

    def note(event: str, arguments: Any) -> None:
        if event == "open" and isinstance(arguments[0], str):
            names.add(arguments[0])

    sys.addaudithook(note)
    return names


@pytest.fixture(scope="module")
def run(module_tiny: Make, opened: set[str]) -> tuple[Path, set[str]]:
    """The folder of a run, and the files that were opened from its first epoch on until it was scored."""
    cfg = module_tiny(*RUN)
    seen: set[str] = set()
    whole = module._fit, module.score_checkpoint

    def fit(*arguments: Any) -> Any:
        opened.clear()
        return whole[0](*arguments)

    def score(*arguments: Any) -> None:
        seen.update(opened)
        whole[1](*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_fit", fit)
        patch.setattr(module, "score_checkpoint", score)
        train(cfg)
    return only_run(Path(cfg.output_root).parent), seen


def test_no_picture_that_is_held_out_is_opened_before_the_end(run: tuple[Path, set[str]], demo_root: Path) -> None:
    folder, seen = run
    parts = read_split(folder / "splits.json").parts(0)
    names = {Path(name).stem for name in seen if Path(name).suffix in (".png", ".jpg")}
    assert set(parts) == {"train", "stop", "val", "test"}
    assert set(parts["stop"]) <= names  # the hook does see what is opened
    assert not names & {*parts["val"], *parts["test"]}


def test_epoch_and_thresholds_are_those_of_the_stop_part(run: tuple[Path, set[str]]) -> None:
    folder, _ = run
    page = json.loads((folder / "metrics.json").read_text())
    assert list(page["parts"]) == ["stop", "val", "test"]
    best = {part: ways["plain"]["image_heads"]["classification"] for part, ways in page["parts"].items()}
    history = pd.read_csv(folder / "history.csv")
    row = history.loc[history["val/macro_f1"].idxmax()]
    assert page["monitor"]["epoch"] == row["epoch"]
    assert page["parts"]["stop"]["plain"]["miou"] == pytest.approx(row["val/miou"], abs=1e-6)
    table = pd.read_csv(folder / "image_predictions.csv", dtype={"id": str})
    split = read_split(folder / "splits.json")
    for part, ids in split.parts(0).items():
        assert part == "train" or sorted(table[table["part"] == part]["id"]) == list(ids)
    rows = table[table["part"] == "stop"]
    probabilities = rows[[f"probability/{name}" for name in KINDS]].to_numpy()
    shown = rows["target"].fillna("").str.split("|")
    targets = np.array([[float(name in names) for name in KINDS] for names in shown])
    found = tune_thresholds(probabilities, targets)
    for head in best.values():
        assert list(head["thresholds"].values()) == pytest.approx(found, abs=1e-6)
    assert stored_thresholds(folder, "classification", KINDS, "plain") == pytest.approx(found, abs=1e-6)
    assert json.loads((folder / "results.json").read_text())["stop"] == page["parts"]["stop"]


def test_first_weights_whose_epoch_was_chosen_on_what_is_held_out(
    run: tuple[Path, set[str]], tiny: Make, tmp_path: Path
) -> None:
    folder, _ = run
    prepared = instantiate(tiny("data.split.stop_fraction=0.2").data).prepared
    check_first_weights(str(folder), prepared)
    split = read_split(folder / "splits.json")
    folds = tuple(replace(fold, stop=()) for fold in split.folds)
    write_split(tmp_path / "splits.json", replace(split, folds=folds))  # as if the validation part had chosen
    (tmp_path / "provenance.json").write_bytes((folder / "provenance.json").read_bytes())
    with pytest.raises(ConfigError, match=r"should not have learned from pictures that this run holds out"):
        check_first_weights(str(tmp_path), prepared)
    check_first_weights(str(tmp_path), instantiate(tiny().data).prepared)


def test_a_gate_never_restores_weights_that_learned_from_what_is_held_out(
    run: tuple[Path, set[str]], tiny: Make
) -> None:
    chosen = ("callbacks=[default,rollback_gate]", f"callbacks.rollback_gate.baseline={run[0]}", *RUN)
    with pytest.raises(ConfigError, match=r"`rollback_gate\.baseline = .*` should not have learned from pictures that"):
        train(tiny(*chosen, "callbacks.rollback_gate.metric=val/macro_f1", "fold=1"))


# A student learns from targets, and its control is plain training.


DUAL = ("task=dual_head", "data.image_labels=label", "monitor=val/accuracy", "trainer.max_epochs=1", *SMALL)
STUDENT = (*DUAL, "loss=distillation", "loss@loss.labels=dual_head")


def write_targets(folder: Path, cfg: Any) -> None:
    """Even probabilities of every picture that a fold held out."""
    data = instantiate(cfg.data).prepared
    folds = {name: number for number, fold in enumerate(data.fold_assignment.folds) for name in fold.val}
    ids, classes = sorted(folds), {**data.classes, **data.image_classes}
    targets = TeacherTargets(
        classes,
        data.fold_assignment.sha256,
        data.fold_assignment.assignment,
        ("a",),
        ids,
        np.array([folds[name] for name in ids]),
        {"classification": np.full((len(ids), len(classes["classification"])), 0.5)},
        ("segmentation", ATTENTION),
    )
    dense = np.full((len(classes["segmentation"]), 64, 64), 1 / len(classes["segmentation"]))
    maps = {"segmentation": dense, ATTENTION: np.arange(4).reshape(2, 2)}
    write_teachers(folder, targets, ((name, maps) for name in ids))


@pytest.mark.slow
def test_the_control_is_plain_training_bit_for_bit(tiny: Make, tmp_path: Path) -> None:
    train(tiny(*DUAL, "loss=dual_head", f"run_dir={tmp_path}/plain/fold0"))
    control = ("loss.alpha=0", "loss.temperature=1", f"run_dir={tmp_path}/control/fold0")
    train(tiny(*STUDENT, *control))
    plain, student = only_run(tmp_path / "plain"), only_run(tmp_path / "control")
    assert_same_training(plain, student)
    history = [pd.read_csv(folder / "history.csv").filter(like="/loss") for folder in (plain, student)]
    pd.testing.assert_frame_equal(*history, check_exact=True)


def test_a_student_learns_from_its_teachers(tiny: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`data\.teachers` should be a folder of targets"):
        train(tiny(*STUDENT))
    write_targets(tmp_path / "targets", tiny(*DUAL))
    train(tiny(*STUDENT, f"data.teachers={tmp_path / 'targets'}", "loss.attention=0.1"))
    row = pd.read_csv(only_run(tmp_path) / "history.csv").iloc[0]
    names = ("segmentation", "classification", "distillation_segmentation", "distillation_classification", ATTENTION)
    weights = (0.3 * 0.4, 0.3 * 0.6, 0.7 * 0.4, 0.7 * 0.6, 0.1)
    parts = [row[f"train/loss/{name}"] for name in names]
    assert min(parts) > 0
    assert row["train/loss"] == pytest.approx(np.dot(weights, parts), rel=1e-5)
