"""Pseudo-labels in place of masks, their table, and which of them are looked at."""

import csv
import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tests.data.labels._inputs import TIERS, make, write_labels

from hsl.batch import IGNORE_INDEX
from hsl.data.datamodule import DataModule
from hsl.data.formats.folder import read_folder
from hsl.data.labels.label_table import LabelRow, read_labels
from hsl.data.labels.pseudo_labels import PseudoLabels
from hsl.data.labels.review import Answer, Review, Settings, Thresholds, checked, judge_labels, sample
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


def rows_of(tiers: str, label: str = "rust", start: int = 0) -> list[LabelRow]:
    return [
        LabelRow(f"{label}{i}", label, tier, 0.9, 0.1, 0.2, True, "gradcam", "x.png")
        for i, tier in enumerate(tiers, start)
    ]


def answers(rows: list[LabelRow], accepted: dict[str, int]) -> dict[str, Answer | None]:
    """The first ``accepted[tier]`` pictures of each tier are accepted; the others in turn marginal and reject."""
    left = dict(accepted)
    given: dict[str, Answer | None] = {}
    for i, row in enumerate(rows):
        left[row.tier] = left.get(row.tier, 0) - 1
        given[row.id] = "accept" if left[row.tier] >= 0 else ("marginal", "reject")[i % 2]
    return given


def test_the_sample_has_at_most_ten_of_each_class_and_tier() -> None:
    rows = rows_of("A" * 30 + "B" * 4 + "C" * 11) + rows_of("A" * 10 + "B" * 12, "healthy")
    chosen = sample(rows)
    by_id = {row.id: row for row in rows}
    counts: dict[tuple[str, str], int] = {}
    for name in chosen:
        counts[by_id[name].label, by_id[name].tier] = counts.get((by_id[name].label, by_id[name].tier), 0) + 1
    assert counts == {
        ("rust", "A"): 10,
        ("rust", "B"): 4,
        ("rust", "C"): 10,
        ("healthy", "A"): 10,
        ("healthy", "B"): 10,
    }
    assert len(set(chosen)) == len(chosen)
    assert [by_id[name].label for name in chosen] == ["healthy"] * 20 + ["rust"] * 24
    assert len({by_id[name].tier for name in chosen[:8]}) == 2, "the tiers are mixed"


def test_the_sample_depends_on_the_seed_and_not_on_the_order() -> None:
    rows = rows_of("A" * 100)
    assert sample(rows, 5, 0) == sample(rows[::-1], 5, 0)
    assert sample(rows, 5, 0) != sample(rows, 5, 1)
    assert sample(rows, 5, 0) == ["rust34", "rust37", "rust26", "rust0", "rust62"], "the same on every machine"
    assert sample([], 5, 0) == []


def test_each_picture_is_as_likely_as_the_others() -> None:
    rows = rows_of("A" * 20)
    counts = dict.fromkeys((row.id for row in rows), 0)
    for seed in range(1000):
        for name in sample(rows, 5, seed):
            counts[name] += 1
    assert min(counts.values()) > 190  # 250 each, standard deviation 14
    assert max(counts.values()) < 310


@pytest.mark.parametrize(
    ("tiers", "accepted", "passed", "demote_b", "num_reasons"),
    [
        ("A" * 10, {"A": 9}, True, False, 0),
        ("A" * 10, {"A": 8}, False, False, 1),
        ("A" * 30, {"A": 27}, True, False, 0),
        ("A" * 30 + "B" * 10, {"A": 30, "B": 7}, True, False, 0),
        ("A" * 30 + "B" * 10, {"A": 30, "B": 6}, True, True, 1),
        ("A" * 14 + "B" * 6, {"A": 14, "B": 0}, True, True, 1),
        ("A" * 13 + "B" * 7, {"A": 13, "B": 0}, False, True, 2),
        ("A" * 7 + "C" * 3, {"A": 7}, True, False, 0),
        ("A" * 6 + "C" * 4, {"A": 6}, False, False, 1),
        ("A" * 7 + "B" * 2 + "C" * 2, {"A": 7, "B": 1}, False, True, 2),
        ("B" * 10, {"B": 7}, True, False, 0),
        ("C" * 10, {"C": 10}, False, False, 1),
        ("A" * 5 + "B" * 5, {"A": 0, "B": 0}, False, True, 3),
    ],
)
def test_the_thresholds(tiers: str, accepted: dict[str, int], passed: bool, demote_b: bool, num_reasons: int) -> None:
    rows = rows_of(tiers)
    verdict = judge_labels(rows, answers(rows, accepted), Settings())
    assert (verdict.passed, verdict.demote_b, len(verdict.reasons)) == (passed, demote_b, num_reasons), verdict
    in_c = tiers.count("C") + demote_b * tiers.count("B")
    assert verdict.c_share == in_c / len(tiers)


@pytest.mark.parametrize("verdict", get_args(Answer))
def test_only_accepted_counts_as_accepted(verdict: Answer) -> None:
    rows = rows_of("AB")
    judged = judge_labels(rows, {"rust0": verdict, "rust1": "accept"}, Settings())
    assert judged.passed is (verdict == "accept")
    assert judged.tiers["A"].share == float(verdict == "accept")
    assert judged.tiers["C"].share is None


def test_an_unfinished_review_says_how_many_are_left() -> None:
    rows = rows_of("AAAB")
    verdict = judge_labels(rows, {"rust0": "accept", "rust1": None, "rust2": "reject", "rust3": None}, Settings())
    assert (verdict.passed, verdict.demote_b, verdict.left) == (False, False, 2)
    assert verdict.reasons == ("2 of 4 pictures are not judged yet.",)
    assert (verdict.tiers["A"].accepted, verdict.tiers["A"].rejected, verdict.tiers["A"].left) == (1, 1, 1)


def test_too_much_of_tier_c_shows_before_anything_is_judged() -> None:
    rows = rows_of("ACC")
    verdict = judge_labels(rows, {"rust0": None}, Settings())
    assert verdict.reasons[1] == "Tier C is 66.7 % of the data, at most 30 % is allowed."


def test_thresholds_of_ones_own() -> None:
    rows = rows_of("AAAAC")
    given = answers(rows, {"A": 2})
    assert judge_labels(rows, given, Settings(thresholds=Thresholds(A=0.5))).passed
    assert not judge_labels(rows, given, Settings(thresholds=Thresholds(A=0.5), max_c_share=0.1)).passed


@pytest.mark.parametrize(
    "values",
    [{"per_class_and_tier": 0}, {"thresholds": {"A": 1.2, "B": 0.7}}, {"max_c_share": -0.1}, {"surprise": 1}],
)
def test_settings_outside_their_range(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(values)


def review_folder(path: Path, content: str) -> Path:
    path.mkdir(exist_ok=True)
    (path / "labels.csv").write_text(content)
    (path / "labels.json").write_text('{"format": 1, "data": "leaves", "classes": ["ground", "leaf"]}')
    return path


def reviewed(path: Path, verdicts: dict[str, Answer | None], changes: dict[str, object]) -> Path:
    review_folder(path, HEAD + "".join(f"p{i},rust,A,0.9,0.1,0.2,1,gradcam,x.png\n" for i in range(3)))
    review = Review(
        data="leaves", labels_sha256=read_labels(path).sha256, settings=Settings(), verdicts=verdicts,
        verdict={"passed": True}, updated="",
    )  # fmt: skip
    (path / "review.json").write_text(json.dumps(review.model_dump() | changes))
    return path


def test_a_passed_review_is_handed_to_training(tmp_path: Path) -> None:
    facts = checked(reviewed(tmp_path / "labels", dict.fromkeys(("p0", "p1", "p2"), "accept"), {}))
    assert (facts["passed"], facts["demote_b"], facts["left"], facts["c_share"]) == (True, False, 0, 0.0)
    assert facts["tiers"]["A"]["accepted"] == 3
    assert facts["settings"]["thresholds"] == {"A": 0.9, "B": 0.7}
    json.dumps(facts)


@pytest.mark.parametrize(
    ("verdicts", "changes", "words"),
    [
        ({"p0": "accept", "p1": "accept", "p2": "reject"}, {}, "2 of 3 accepted"),
        ({"p0": "accept", "p1": "accept", "p2": None}, {}, "1 of 3 pictures are not judged yet"),
        ({"p0": "accept"}, {}, "pictures that its settings choose"),
        ({}, {}, "pictures that its settings choose"),
        (dict.fromkeys(("p0", "p1", "p2"), "accept"), {"data": "roads"}, "data set leaves. Found one of roads"),
        (dict.fromkeys(("p0", "p1", "p2"), "accept"), {"labels_sha256": "0"}, "labels.csv was written anew"),
        (dict.fromkeys(("p0", "p1", "p2"), "accept"), {"format": 2}, "`format`"),
        (dict.fromkeys(("p0", "p1", "p2"), "accept"), {"verdicts": {"p0": "fine"}}, "verdicts.p0"),
    ],
)
def test_what_training_refuses(
    tmp_path: Path, verdicts: dict[str, Answer | None], changes: dict[str, object], words: str
) -> None:
    """Whatever the file says of its own verdict."""
    with pytest.raises(DataError, match=words):
        checked(reviewed(tmp_path / "labels", verdicts, changes))


def test_labels_that_nobody_looked_at(tmp_path: Path) -> None:
    folder = review_folder(tmp_path / "labels", HEAD + "p0,rust,A,0.9,0.1,0.2,1,gradcam,x.png\n")
    with pytest.raises(DataError, match=r"Found no review\.json\. Judge them with `hsl label review"):
        checked(folder)
