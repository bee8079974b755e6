"""Pseudo-labels in place of masks, and what is wrong with their table in one sentence."""

import csv
import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from tests.data.labels._inputs import TIERS, make, write_labels

from hsl.batch import IGNORE_INDEX
from hsl.data.datamodule import DataModule
from hsl.data.formats.folder import read_folder
from hsl.data.labels.label_table import LabelRow, read_labels
from hsl.data.labels.pseudo_labels import PseudoLabels
from hsl.data.loading.transforms import training_transform
from hsl.errors import ConfigError, DataError

HEAD = "id,label,tier,quality,uncertain,foreground,rule_passed,sources,image\n"
GOOD = "p0,rust,A,0.9,0.1,0.2,1,gradcam grabcut,/pictures/p0.png\n"


def write_data(root: Path, *, masks: bool = True) -> Path:
    """Twelve pictures; true masks hold class 2 only, which no pseudo-label has."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks") if masks else ("images",):
        (root / folder).mkdir(parents=True)
    for i in range(12):
        cv2.imwrite(str(root / f"images/p{i:02}.png"), rng.integers(0, 255, (16, 16, 3), dtype=np.uint8))
        if masks:
            cv2.imwrite(str(root / f"masks/p{i:02}.png"), np.full((16, 16), 2, np.uint8))
    (root / "dataset.yaml").write_text("classes: [background, leaf, symptom]\n")
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["id", "label"], *([f"p{i:02}", "ill" if i % 2 else "well"] for i in range(12))])
    return root


@pytest.fixture
def plain(tmp_path: Path) -> DataModule:
    data = make(write_data(tmp_path / "data"), None)
    data.prepare()
    return data


def tiers_of(data: DataModule) -> dict[str, str]:
    return dict(zip(data.prepared.parts["train"], "AABBC" * 3, strict=False))


def prepared(plain: DataModule, folder: Path, **changed: Any) -> DataModule:
    settings: dict[str, Any] = {"tier_weights": TIERS, "unchecked": True}
    data = make(Path(plain.source.root), PseudoLabels(str(folder), **(settings | changed)))
    with pytest.warns(UserWarning, match="without a passed spot check"):
        data.prepare()
    return data


def test_pseudo_labels_take_the_place_of_the_training_masks_and_of_no_other(tmp_path: Path, plain: DataModule) -> None:
    data = prepared(plain, write_labels(tmp_path / "labels", plain, tiers_of(plain)))
    tiers, seen = tiers_of(plain), {}
    for batch in data.train_dataloader():
        for i, name in enumerate(batch["id"]):
            seen[name] = batch["masks"]["segmentation"][i], batch["weights"]["segmentation"][i]
    assert seen.keys() == set(plain.prepared.parts["train"])
    for name, (mask, weight) in seen.items():
        assert weight.item() == (TIERS[tiers[name]] or 0)
        assert set(mask.unique().tolist()) == ({IGNORE_INDEX} if tiers[name] == "C" else {1, IGNORE_INDEX})
    for batch in data.val_dataloader():
        assert batch["masks"]["segmentation"].unique().tolist() == [2]
        assert "weights" not in batch
    assert data.prepared.class_counts["segmentation"].tolist() == [0, sum(t != "C" for t in tiers.values()) * 128, 0]
    assert data.prepared.fold_assignment.sha256 == plain.prepared.fold_assignment.sha256
    used = list(tiers.values())
    assert data.prepared.label_tiers == {"A": used.count("A"), "B": used.count("B")}  # C teaches nothing
    assert plain.prepared.label_tiers is None


def test_no_true_mask_and_no_held_out_label_is_ever_read(
    tmp_path: Path, plain: DataModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_labels(tmp_path / "labels", plain, tiers_of(plain))
    for name in (*plain.prepared.parts["val"], *plain.prepared.parts["test"]):  # by mistake: they stand in no table
        cv2.imwrite(str(folder / f"masks/{name}.png"), np.zeros((16, 16), np.uint8))
    data = prepared(plain, folder)
    names = {record.id: record.mask.name for record in data.prepared.catalogue.records if record.mask is not None}
    for name in plain.prepared.parts["train"]:
        assert name not in names or names[name] == str(folder / f"masks/{name}.png")
    for name in (*plain.prepared.parts["val"], *plain.prepared.parts["test"]):
        assert names[name] == str(Path(plain.source.root) / f"masks/{name}.png")


def test_confidence_multiplies_the_weight_and_is_augmented_with_the_mask(tmp_path: Path, plain: DataModule) -> None:
    tiers = tiers_of(plain)
    folder = write_labels(tmp_path / "labels", plain, tiers)
    confidence = np.full((16, 16), 255, np.uint8)
    confidence[:, :8] = 51  # 0.2 exactly where the mask has class 1
    for name in tiers:
        cv2.imwrite(str(folder / f"confidence/{name}.png"), confidence)
    data = prepared(plain, folder, weigh_by_confidence=True)
    data._augment = training_transform(
        (16, 16), flips={"horizontal": 1.0, "vertical": 0.0}, rot90=None, resized_crop=None, rotation=None, colour=None,
        blur=None,
    )  # fmt: skip
    for batch in data.train_dataloader():
        for name, mask, weight in zip(batch["id"], batch["masks"]["segmentation"], batch["weights"]["segmentation"],
                                      strict=True):  # fmt: skip
            full = TIERS[tiers[name]] or 0.0
            if full:
                torch.testing.assert_close(weight[mask == 1], torch.full((128,), 0.2 * full))
                assert (mask[:, 8:] == 1).all()
            else:
                assert not weight.any()


def test_pictures_of_a_tier_without_weight_teach_only_an_image_head(tmp_path: Path, plain: DataModule) -> None:
    tiers = tiers_of(plain)
    folder = write_labels(tmp_path / "labels", plain, tiers)
    data = make(Path(plain.source.root), PseudoLabels(str(folder), TIERS, unchecked=True), image_labels=None)
    with pytest.warns(UserWarning, match="without a passed spot check"):
        data.prepare()
    seen = {name for batch in data.train_dataloader() for name in batch["id"]}
    assert seen == {name for name, tier in tiers.items() if tier != "C"}


def test_pictures_without_any_mask(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data", masks=False)
    data = make(root, None, reader=partial(read_folder, masks_optional=True))
    data.prepare()
    batch = next(iter(data.val_dataloader()))
    assert (batch["masks"]["segmentation"] == IGNORE_INDEX).all()
    assert batch["labels"]["classification"].dtype == torch.int64
    with pytest.raises(DataError, match="masks"):
        make(root, None).prepare()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"fold": 1}, "fold = 0. Found fold = 1"),
        ({"split_sha256": "other"}, "Found split_sha256 = other"),
        ({"classes": ["background", "fish"]}, "classes"),
        ({"format": 9}, "format 1. Found 9"),
    ],
)
def test_labels_of_another_origin(tmp_path: Path, plain: DataModule, changed: Any, message: str) -> None:
    folder = write_labels(tmp_path / "labels", plain, tiers_of(plain), **changed)
    with pytest.raises(DataError, match=message):
        make(Path(plain.source.root), PseudoLabels(str(folder), TIERS, unchecked=True)).prepare()


def test_other_mistakes(tmp_path: Path, plain: DataModule) -> None:
    root, held_out = Path(plain.source.root), plain.prepared.parts["val"][0]
    with pytest.raises(DataError, match=r"labels.json` cannot be read"):
        make(root, PseudoLabels(str(tmp_path), TIERS)).prepare()
    leaking = write_labels(tmp_path / "leaking", plain, tiers_of(plain) | {held_out: "A"})
    with pytest.raises(DataError, match=held_out):
        make(root, PseudoLabels(str(leaking), TIERS, unchecked=True)).prepare()
    empty = write_labels(tmp_path / "empty", plain, dict.fromkeys(plain.prepared.parts["train"], "C"))
    with pytest.raises(DataError, match=r"tiers \['A', 'B'\]"), pytest.warns(UserWarning, match="spot check"):
        make(root, PseudoLabels(str(empty), TIERS, unchecked=True)).prepare()
    unchecked = write_labels(tmp_path / "unchecked", plain, tiers_of(plain))
    with pytest.raises(DataError, match="review"):
        make(root, PseudoLabels(str(unchecked), TIERS)).prepare()
    with pytest.raises(ConfigError, match="tier_weights"):
        PseudoLabels("x", {"A": None})


def folder_of(path: Path, table: str, page: str = '{"data": "leaves", "classes": ["ground", "leaf"]}') -> Path:
    (path / "labels.csv").write_text(table, encoding="utf8")
    (path / "labels.json").write_text(page)
    return path


def test_what_is_in_it(tmp_path: Path) -> None:
    text = HEAD + GOOD + "ü 1#,,C,0,1,0,0,,\n"
    labels = read_labels(folder_of(tmp_path, text))
    assert labels.rows == (
        LabelRow("p0", "rust", "A", 0.9, 0.1, 0.2, True, "gradcam grabcut", "/pictures/p0.png"),
        LabelRow("ü 1#", "", "C", 0.0, 1.0, 0.0, False, "", ""),
    )
    assert (labels.data, labels.classes) == ("leaves", ("ground", "leaf"))
    assert labels.sha256 == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (HEAD, "Found none"),
        ("", "should have the columns"),
        (HEAD.replace(",image", "") + "p0,rust,A,1,0,0,1,x\n", r"columns \['image'\]"),
        (HEAD + GOOD + GOOD, "Found `p0` twice"),
        (HEAD + GOOD.replace("p0,", "../p0,", 1), "Found `../p0`"),
        (HEAD + GOOD.replace("p0,", "a\\b,", 1), "part of a file name"),
        (HEAD + GOOD.replace("p0,", "..,", 1), "Found `..`"),
        (HEAD + GOOD.replace(",A,", ",D,"), "line 2: `tier` should be A, B or C. Found `D`"),
        (HEAD + GOOD.replace("0.9", "1.1"), "`quality` should be in"),
        (HEAD + GOOD.replace("0.1", "nan"), "`uncertain` should be in"),
        (HEAD + GOOD.replace("0.2", "much"), "`foreground` should be in .* Found `much`"),
        (HEAD + "p0,rust\n", "`tier`"),
    ],
)
def test_what_is_wrong_with_it(tmp_path: Path, table: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_labels(folder_of(tmp_path, table))


@pytest.mark.parametrize(("page", "words"), [("{", "damaged"), ("[]", "data and classes"), ('{"data": 1}', "classes")])
def test_a_page_that_is_wrong(tmp_path: Path, page: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_labels(folder_of(tmp_path, HEAD + GOOD, page))


def test_a_folder_without_labels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.csv` cannot be read"):
        read_labels(tmp_path / "nowhere")
