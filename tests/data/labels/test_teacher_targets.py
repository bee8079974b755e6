import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from tests.data.labels._inputs import make

from hsl.batch import ATTENTION
from hsl.data.datamodule import DataModule
from hsl.data.loading.transforms import training_transform
from hsl.errors import DataError
from hsl.files import teacher_file
from hsl.files.teacher_file import TeacherTargets, read_teacher_maps, read_teachers, write_teachers

CLASSES = {"classification": ("ill", "well"), "segmentation": ("background", "leaf", "symptom")}
MOVING: dict[str, Any] = {
    "flips": {"horizontal": 0.5, "vertical": 0.5},
    "rot90": {"probability": 0.5},
    "resized_crop": {"scale": (0.3, 1.0), "ratio": (0.8, 1.2)},
    "rotation": {"degrees": 30, "fill": 0, "probability": 0.7},
    "colour": None,
    "blur": None,
}


def mask_of(place: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(place).integers(0, 3, (16, 16)).repeat(2, 0).repeat(2, 1).astype(np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve pictures of 32 px, of random masks."""
    root, rng = tmp_path / "data", np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(12):
        cv2.imwrite(str(root / f"images/p{i:02}.png"), rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
        cv2.imwrite(str(root / f"masks/p{i:02}.png"), mask_of(i))
    (root / "dataset.yaml").write_text("classes: [background, leaf, symptom]\n")
    rows = "".join(f"p{i:02},{'ill' if i % 2 else 'well'}\n" for i in range(12))
    (root / "labels.csv").write_text(f"id,label\n{rows}")
    return root


def targets_for(data: DataModule, **changed: Any) -> TeacherTargets:
    split = data.prepared.fold_assignment
    folds = {name: number for number, fold in enumerate(split.folds) for name in fold.val}
    ids = sorted(folds)
    share = np.linspace(0, 1, len(ids))
    made = TeacherTargets(
        CLASSES,
        split.sha256,
        split.assignment,
        ("a", "b"),
        ids,
        np.array([folds[name] for name in ids]),
        {"classification": np.stack([share, 1 - share], axis=1)},
        ("segmentation", ATTENTION),
    )
    return replace(made, **changed)


def write(folder: Path, targets: TeacherTargets) -> str:
    def maps(name: str) -> dict[str, Any]:
        mask = mask_of(int(name[1:]))
        made = {"segmentation": (np.arange(3)[:, None, None] == mask) * 1.0, ATTENTION: (mask == 1) * 7.0}
        return {head: made[head] for head in targets.maps}

    write_teachers(folder, targets, ((name, maps(name)) for name in (targets.ids if targets.maps else ())))
    return str(folder)


def training(root: Path, folder: str, **changed: Any) -> DataModule:
    data = make(root, None, image_size=32, teachers=folder, **changed)
    data.prepare()
    return data


def test_targets_stand_in_training_batches_alone(root: Path, tmp_path: Path) -> None:
    targets = targets_for(make(root, None))
    data = training(root, write(tmp_path / "teachers", targets), batch_size=2)
    seen = {}
    for raw in data.train_dataloader():
        assert raw["teachers"]["segmentation"].dtype == torch.uint8  # a quarter of the bytes on the way
        batch = data.on_after_batch_transfer(raw, 0)
        said = batch["teachers"]
        assert said["segmentation"].shape == (2, 3, 32, 32)
        assert said[ATTENTION].shape == (2, 1, 32, 32)
        torch.testing.assert_close(said["segmentation"].argmax(1), batch["masks"]["segmentation"])
        seen |= dict(zip(batch["id"], said["classification"], strict=True))
    train = data.prepared.parts["train"]
    assert sorted(seen) == list(train)
    for name, values in seen.items():
        np.testing.assert_allclose(values, targets.images["classification"][list(targets.ids).index(name)], rtol=1e-6)
    assert "teachers" not in next(iter(data.val_dataloader()))
    assert "teachers" not in next(iter(data.part_dataloader("train")))


def test_targets_move_with_the_picture(root: Path, tmp_path: Path) -> None:
    """Flips, turns, crops, rotations and resizing, as the mask has them; the same draws as without targets."""
    folder = write(tmp_path / "teachers", targets_for(make(root, None)))
    moving = partial(training_transform, **MOVING)
    with_targets = training(root, folder, augmentation=moving)
    without = make(root, None, image_size=32, augmentation=moving)
    without.prepare()
    outside = 0
    for raw, plain in zip(with_targets.train_dataloader(), without.train_dataloader(), strict=True):
        torch.testing.assert_close(raw["image"], plain["image"], rtol=0, atol=0)
        batch = with_targets.on_after_batch_transfer(raw, 0)
        mask, said = batch["masks"]["segmentation"], batch["teachers"]
        inside = mask != 255
        outside += int((~inside).sum())
        assert torch.equal(said["segmentation"].argmax(1)[inside], mask[inside])
        assert torch.equal(said[ATTENTION][:, 0], (mask == 1).float())  # 0 where the rotation left the picture
    assert outside


def test_a_folder_is_read_as_it_was_written(root: Path, tmp_path: Path) -> None:
    targets = targets_for(make(root, None), maps=("segmentation",))
    rng = np.random.default_rng(0)
    maps = {name: {"segmentation": rng.dirichlet([1, 1, 1], (5, 4)).transpose(2, 0, 1)} for name in targets.ids}
    write_teachers(tmp_path / "t", targets, maps.items())
    again = read_teachers(tmp_path / "t")
    assert (again.classes, again.ids, again.members) == (CLASSES, tuple(targets.ids), ("a", "b"))
    np.testing.assert_allclose(again.images["classification"], targets.images["classification"], rtol=1e-6)
    for name in targets.ids:
        stored = read_teacher_maps(tmp_path / "t", name, again)["segmentation"]
        assert abs(stored / 255 - maps[name]["segmentation"]).max() <= 1 / 510 + 1e-12
    (tmp_path / "t" / teacher_file.PAGE).write_text(json.dumps({"version": 0}))
    with pytest.raises(DataError, match=r"version 1\. Found 0"):
        read_teachers(tmp_path / "t")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"split_sha256": "other"}, "of these data and this split, split_sha256"),
        ({"assignment": "other"}, "may have trained on what is held out here"),
        ({"out_of_fold": False}, "did not train on the picture"),
        ({"folds": lambda t: (t.folds + 1) % 3}, "Take each picture's from the fold that held it out"),
        ({"folds": lambda t: t.folds + 9}, "did not train on the picture"),
        ({"classes": {**CLASSES, "classification": ("well", "ill")}}, "Choose teachers of the same classes"),
        (
            {
                "ids": lambda t: t.ids[1:],
                "folds": lambda t: t.folds[1:],
                "images": lambda t: {"classification": t.images["classification"][1:]},
            },
            "a target of every training picture",
        ),
    ],
)
def test_targets_that_do_not_fit_are_refused(root: Path, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    targets = targets_for(make(root, None))
    made = {name: value(targets) if callable(value) else value for name, value in changed.items()}
    folder = write(tmp_path / "teachers", replace(targets, **made))
    fold = next(f for f in range(3) if targets.ids[0] in make(root, None, fold=f).prepared.parts["train"])
    with pytest.raises(DataError, match=message):
        training(root, folder, fold=fold)


def test_a_folder_that_is_damaged_or_of_other_pictures(root: Path, tmp_path: Path) -> None:
    targets = targets_for(make(root, None))
    folder = tmp_path / "teachers"
    data = training(root, write(folder, targets))
    maps = sorted((folder / "maps").iterdir())
    small = {"segmentation": np.zeros((3, 4, 4), np.uint8), ATTENTION: np.zeros((4, 4), np.uint8)}
    for path in maps:
        teacher_file.write_arrays(path, small)
    with pytest.raises(DataError, match=r"the size of the picture, 32 x 32\. Found 4 x 4"):
        list(data.train_dataloader())
    for path in maps:
        teacher_file.write_arrays(path, small | {"segmentation": np.zeros((2, 32, 32), np.uint8)})
    with pytest.raises(DataError, match="8-bit maps of `segmentation`"):
        list(data.train_dataloader())
    with pytest.raises(ValueError, match="every picture its maps"):
        write_teachers(folder, targets, [])
    with pytest.raises(DataError, match=r"Found no teachers\.json in it"):  # it was interrupted
        read_teachers(folder)
