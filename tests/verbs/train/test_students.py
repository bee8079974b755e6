"""A student learns from targets, and its control is plain training."""

from collections.abc import Callable
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
from hsl.files.teacher_file import TeacherTargets, write_teachers
from hsl.verbs.train.train import train

Make = Callable[..., DictConfig]
DUAL = ("task=dual_head", "data.image_labels=label", "monitor=val/accuracy", "trainer.max_epochs=1", *SMALL)
STUDENT = (*DUAL, "loss=distillation", "loss@loss.labels=dual_head")

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*", "ignore:Checkpoint directory.*"
)


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
