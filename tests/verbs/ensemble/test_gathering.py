"""Run folders become the members of an ensemble, or one error says why they do not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from hsl.cli import conf_dir
from hsl.errors import DataError
from hsl.run_folder.member_rows import KeptRows, RowsWriter
from hsl.run_folder.pictures import read_image_predictions, write_images
from hsl.verbs.ensemble.gathering import (
    EPOCHS_CHOSEN,
    Members,
    gather_members,
    out_of_fold_rows,
    probability_map,
    rows_of_test,
)

LEAF = ["healthy", "miner", "rust"]
RULES = OmegaConf.load(conf_dir() / "_models.yaml")
Pair = Callable[..., list[Path]]


def split(stop: int = 0) -> dict[str, Any]:
    """Three folds of four images; ``stop`` of the training images of each choose the epoch."""
    ids = [[f"p{fold}_{i}" for i in range(4)] for fold in range(3)]
    folds = []
    for fold in range(3):
        train = sorted(name for other in range(3) if other != fold for name in ids[other])
        folds.append({"name": str(fold), "train": train[stop:], "val": ids[fold], "stop": train[:stop]})
    return {"method": "kfold", "seed": 0, "groups": "group", "folds": folds, "test": ["t0", "t1"], "sha256": "ab" * 32}


def gathered(root: Path, **arguments: Any) -> Members:
    return gather_members([f"{root}/outputs/*/*/*"], list(RULES.ignore), RULES.name_key, **arguments)


CONTENTS = {name: f"content of {name}" for fold in split()["folds"] for name in fold["val"]} | {"t0": "x", "t1": "y"}


@pytest.fixture
def member(make_run: Callable[..., Path], add_image_head: Callable[..., Path]) -> Pair:
    """``member(name, skill)`` writes a model with three folds, ``dense`` heads or none, and a test part."""

    def make(name: str, skill: float = 0.8, *, folds: Any = (0, 1, 2), dense: bool = True, stop: int = 0,
             seed: int = 0, classes: Any = LEAF, of: Any = None, **given: Any) -> list[Path]:  # fmt: skip
        folders = []
        for fold in folds:
            own = of or split(stop)
            confusion = [[50, 0, 0], [0, 50, 0], [0, 0, 0]]
            folder = make_run(name, name, fold, split=own, test=confusion, seed=seed, config=given.get("config"))
            for part in ("val", "test"):
                numbers = {key: given[key] for key in ("several", "unknown") if key in given}
                add_image_head(folder, fold, skill, split=own, dense=dense, part=part, classes=classes, **numbers)
            folders.append(folder)
        return folders

    return make


def table(folder: Path, part: str) -> Any:
    return read_image_predictions(folder, "classification", LEAF, several=False)[part, "plain"]


def test_a_dual_head_and_a_classifier_meet_at_the_image_head(tmp_path: Path, member: Pair) -> None:
    folders = {"dual": member("dual", 0.9), "classifier": member("classifier", 0.6, dense=False)}
    for fold, folder in enumerate(folders["dual"]):
        rows = [{"id": name, "group": "g", "miou": 0.5, "foreground_iou": 0.1 * i + fold, "part": "val",
                 "inference": "plain"} for i, name in enumerate(split()["folds"][fold]["val"])]  # fmt: skip
        write_images(folder, rows)
    found = gathered(tmp_path)
    assert [one.name for one in found.members] == ["classifier", "dual"]
    assert (found.kind, found.classes, found.several, found.test) == ("image", tuple(LEAF), False, ("t0", "t1"))
    rows = out_of_fold_rows(found, CONTENTS)
    assert rows.ids == tuple(sorted(name for fold in split()["folds"] for name in fold["val"]))
    assert rows.folds.tolist() == [int(name[1]) for name in rows.ids]
    assert rows.contents == tuple(CONTENTS[name] for name in rows.ids)
    for m, name in enumerate(rows.members):
        for i, image in enumerate(rows.ids):
            pictures = table(folders[name][rows.folds[i]], "val")
            place = pictures.places[image]
            np.testing.assert_array_equal(rows.probabilities[m, i], pictures.probabilities[place])
            assert rows.labels[i] == pictures.labels[place]
            assert rows.groups[i] == pictures.groups[place]
    foreground = [[np.nan] * 12, [0.1 * int(name[3]) + int(name[1]) for name in rows.ids]]
    np.testing.assert_allclose(rows.foreground, foreground)


def test_test_rows_are_the_mean_over_the_folds(tmp_path: Path, member: Pair) -> None:
    folders = {name: member(name, skill) for name, skill in (("a", 0.9), ("b", 0.5))}
    rows = rows_of_test(gathered(tmp_path), CONTENTS)
    assert rows.ids == ("t0", "t1")
    assert rows.folds.tolist() == [-1, -1]
    assert rows.foreground is None
    for m, name in enumerate(rows.members):
        each = [table(folder, "test").probabilities for folder in folders[name]]
        np.testing.assert_allclose(rows.probabilities[m], np.mean(each, axis=0), rtol=1e-12)


def test_the_order_of_the_folders_changes_nothing(tmp_path: Path, member: Pair) -> None:
    for name in "ab":
        member(name)
    patterns = [f"{tmp_path}/outputs/b", f"{tmp_path}/outputs/a"]
    one, two = (gather_members(given, list(RULES.ignore), RULES.name_key) for given in (patterns, patterns[::-1]))
    assert out_of_fold_rows(one, CONTENTS).digest == out_of_fold_rows(two, CONTENTS).digest


def test_seeds_are_members_of_their_own_and_several_classes_are_labels_too(tmp_path: Path, member: Pair) -> None:
    for seed in (0, 1):
        member("a", 0.7, seed=seed, several=True)
    found = gathered(tmp_path)
    assert [one.name for one in found.members] == ["a · seed=0", "a · seed=1"]
    rows = out_of_fold_rows(found, CONTENTS)
    assert rows.several
    assert rows.labels.shape == (12, 3)


def test_whose_epochs_were_chosen_on_the_rows_is_noted(tmp_path: Path, member: Pair) -> None:
    member("a", stop=2)
    member("b", stop=2)
    found = gathered(tmp_path)
    assert found.notes == found.epochs_chosen_on_rows == []
    assert found.members[0].trained[0] == frozenset(name for name in CONTENTS if name[:2] in ("p1", "p2"))
    member("c")
    found = gathered(tmp_path)
    assert found.epochs_chosen_on_rows == ["c"]
    assert found.notes == [f"{EPOCHS_CHOSEN} (c)"]


def test_what_is_no_member_is_left_out_with_a_word(tmp_path: Path, member: Pair, make_run: Callable[..., Path]) -> None:
    for name in "ab":
        member(name)
    for fold in range(3):
        make_run("dense_only", "dense_only", fold, split=split())
    make_run("failed", "failed", 0, split=split(), status="failed", provenance={"error": "OutOfMemoryError: no room"})
    found = gathered(tmp_path)
    assert [one.name for one in found.members] == ["a", "b"]
    assert found.notes[0] == EPOCHS_CHOSEN
    assert any("dense_only, which has no image head" in note for note in found.notes)
    assert any("failed: OutOfMemoryError: no room" in note for note in found.notes)


def test_dense_heads_meet_in_their_masks(tmp_path: Path, member: Pair) -> None:
    folders = {name: member(name) for name in "ab"}
    member("classifier", dense=False)
    found = gathered(tmp_path, kind="dense")
    assert [one.name for one in found.members] == ["a", "b"]
    assert found.classes == ("background", "crack", "stain")
    maps = np.random.default_rng(0).dirichlet(np.ones(3), (3, 4, 5)).transpose(0, 3, 1, 2)
    for folder, of_fold in zip(folders["a"], maps, strict=True):
        writer = RowsWriter(folder, KeptRows(checkpoint="c", inference="plain", classes=list(found.classes)))
        for part, name in (("val", f"p{folders['a'].index(folder)}_1"), ("test", "t0")):
            writer.begin(part)
            writer.add_features(name, np.ones(2, np.float32))
            writer.add_map(name, of_fold)
            writer.finish([name], maps=True, seconds={})
    np.testing.assert_allclose(probability_map(found, found.members[0], "p2_1"), maps[2], atol=1 / 509)
    np.testing.assert_allclose(probability_map(found, found.members[0], "t0"), maps.mean(0), atol=1 / 509)
    with pytest.raises(DataError, match="is missing"):
        probability_map(found, found.members[0], "p2_0")


def test_features_come_along_where_they_are_asked_for(tmp_path: Path, member: Pair) -> None:
    for name in "ab":
        for fold, folder in enumerate(member(name)):
            writer = RowsWriter(folder, KeptRows(checkpoint="c", inference="plain", classes=[]))
            for part, ids in (("val", split()["folds"][fold]["val"]), ("test", ["t0", "t1"])):
                writer.begin(part)
                for i, image in enumerate(ids):
                    writer.add_features(image, np.array([fold, i, ord(name)], np.float32))
                writer.finish(ids, maps=False, seconds={})
    found = gathered(tmp_path)
    rows = out_of_fold_rows(found, CONTENTS, features=True)
    assert rows.features["b"].tolist() == [[int(name[1]), int(name[3]), ord("b")] for name in rows.ids]
    assert rows_of_test(found, CONTENTS, features=True).features["a"].tolist() == [[1, i, ord("a")] for i in range(2)]


def test_features_that_were_not_kept(tmp_path: Path, member: Pair) -> None:
    for name in "ab":
        member(name)
    with pytest.raises(DataError, match=r"should hold the rows of the part val. Found none"):
        out_of_fold_rows(gathered(tmp_path), CONTENTS, features=True)


def test_no_run_matches(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="`runs` should match at least one run folder"):
        gathered(tmp_path)


def test_everything_that_does_not_fit_is_one_error_with_the_runs(tmp_path: Path, member: Pair) -> None:
    (alone, *_) = member("a")
    with pytest.raises(DataError, match="1 of at least two members with image heads: a"):
        gathered(tmp_path)
    member("b", folds=(0, 2))
    member("c", folds=(1,))
    with pytest.raises(DataError) as caught:
        gathered(tmp_path)
    said = str(caught.value)
    assert "b: fold 1 is missing (no run folder); there is `" in said
    assert "c: fold 0 is missing" in said
    assert "c: fold 2 is missing" in said
    assert str(tmp_path / "outputs" / "b" / "fold0") in said
    assert str(alone) not in said


OTHER_DATA = {**split(), "sha256": "cd" * 32}
SWAPPED = split()
SWAPPED["folds"][0]["val"], SWAPPED["folds"][1]["val"] = SWAPPED["folds"][1]["val"], SWAPPED["folds"][0]["val"]
SWAPPED["folds"][0]["train"], SWAPPED["folds"][1]["train"] = SWAPPED["folds"][1]["train"], SWAPPED["folds"][0]["train"]
TWICE = split()
TWICE["folds"][1]["val"] = [*TWICE["folds"][1]["val"], "p0_0"]
NEVER = split()
NEVER["folds"][1]["val"] = NEVER["folds"][1]["val"][:-1]


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"of": OTHER_DATA}, r"unlike data, test parts or annotations: .*split ababab.*outputs/a/fold0.*split cdcd"),
        ({"of": {**split(), "test": ["t0"]}}, r"unlike data, test parts or annotations: .*test part"),
        ({"of": SWAPPED}, r"unlike folds: .*outputs/b/fold0.* of b predicted other images than .*outputs/a/fold0"),
        ({"classes": ["healthy", "miner", "mildew"]}, r"unlike classes: healthy, miner, rust in .*, and healthy, mi"),
        ({"several": True}, r"unlike classes: .*\(several at once\) in `.*outputs/b"),
        ({"unknown": ["p1_1", "p1_3"]}, r"2 images \(p1_1, p1_3\) without a label in `.*outputs/b/fold1"),
    ],
)  # fmt: skip
def test_members_that_are_unlike(tmp_path: Path, member: Pair, own: dict[str, Any], message: str) -> None:
    member("a")
    member("b", **own)
    with pytest.raises(DataError, match=message):
        gathered(tmp_path)


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (TWICE, r"1 image \(p0_0\) predicted by two folds of .*outputs/a/fold0"),
        (NEVER, r"1 image \(p1_3\) predicted by no fold of .*outputs/a/fold0"),
    ],
)
def test_images_that_are_not_predicted_once(tmp_path: Path, member: Pair, of: Any, message: str) -> None:
    for name in "ab":
        member(name, of=of)
    with pytest.raises(DataError, match=message):
        gathered(tmp_path)


def test_predictions_that_are_not_those_of_the_split(tmp_path: Path, member: Pair) -> None:
    member("a")
    (first, second, _) = member("b")
    path = first / "image_predictions.csv"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "p0_2" not in line))
    (second / "image_predictions.csv").unlink()
    with pytest.raises(DataError) as caught:
        gathered(tmp_path)
    said = str(caught.value)
    assert f"b: 1 image (p0_2) in only one of split and predictions of `{first}`" in said
    assert f"b: no predictions of val, plain in `{second}`" in said
    with pytest.raises(DataError, match="no predictions of val, tta in"):
        gathered(tmp_path, inference="tta")


def test_a_probability_that_is_none(tmp_path: Path, member: Pair) -> None:
    for name in "ab":
        folders = member(name)
    path = folders[0] / "image_predictions.csv"
    lines = path.read_text().splitlines(keepends=True)
    lines[1] = ",".join([*lines[1].split(",")[:-3], "7", "0", "0\n"])
    path.write_text("".join(lines))
    with pytest.raises(DataError, match=r"The rows of the part (val|test) cannot be used: Probabilities should lie in"):
        (out_of_fold_rows(gathered(tmp_path), CONTENTS), rows_of_test(gathered(tmp_path), CONTENTS))
