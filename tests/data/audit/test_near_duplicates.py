import itertools
import os
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.data.audit._inputs import DataSet, picture

from hsl.data.audit import near_duplicates
from hsl.data.audit.audit import Audit, audit
from hsl.data.audit.near_duplicates import (
    ORIENTATIONS,
    Pairs,
    find_near_duplicates,
    is_blank,
    stored_near_duplicates,
    turned,
)
from hsl.data.labels.object_labels import TrainingObjects
from hsl.data.labels.pseudo_labels import PseudoTrainingLabels
from hsl.errors import ConfigError, DataError

# Written out by hand, so that the names mean what they say.
BY_HAND = {
    "identity": lambda a: a,
    "rot90": lambda a: a.T[::-1],
    "rot180": lambda a: a[::-1, ::-1],
    "rot270": lambda a: a.T[:, ::-1],
    "hflip": lambda a: a[:, ::-1],
    "vflip": lambda a: a[::-1],
    "transpose": lambda a: a.T,
    "antitranspose": lambda a: a[::-1, ::-1].T,
}


def textures(generator: np.random.Generator, number: int, grain: int) -> np.ndarray:
    """Random pictures whose details are 64 / grain pixels wide."""
    noise = generator.standard_normal((number, grain, grain)).astype(np.float32)
    large = [cv2.resize(n, (64, 64), interpolation=cv2.INTER_CUBIC) for n in noise]
    return np.stack([cv2.normalize(p, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8) for p in large])


def brute_force(pictures: np.ndarray, threshold: float) -> dict[tuple[int, int], float]:
    """NumPy's correlation coefficient of every pair in every orientation."""
    found = {}
    for i, j in itertools.combinations(range(len(pictures)), 2):
        best = max(np.corrcoef(pictures[i].ravel(), turn(pictures[j]).ravel())[0, 1] for turn in BY_HAND.values())
        if best >= threshold:
            found[i, j] = best
    return found


def as_dict(pairs: Pairs) -> dict[tuple[int, int], float]:
    keys = zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)
    found = dict(zip(keys, pairs.correlation.tolist(), strict=True))
    assert len(found) == len(pairs), "a pair was found twice"
    return found


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_turned_does_what_its_name_says(name: str) -> None:
    picture = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(turned(picture, ORIENTATIONS.index(name)), BY_HAND[name](picture))


def test_the_eight_orientations_are_different_and_keep_channels() -> None:
    assert len({turned(np.arange(9).reshape(3, 3), t).tobytes() for t in range(8)}) == 8
    assert turned(np.zeros((2, 5, 3)), ORIENTATIONS.index("rot90")).shape == (5, 2, 3)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_turned_copy_is_found_and_turns_back(name: str) -> None:
    pictures = textures(np.random.default_rng(0), 20, 12)
    pictures[17] = BY_HAND[name](pictures[4])
    pairs = find_near_duplicates(pictures)
    assert as_dict(pairs) == {(4, 17): pytest.approx(1, abs=1e-5)}
    np.testing.assert_array_equal(turned(pictures[17], int(pairs.orientation[0])), pictures[4])


@pytest.mark.parametrize("grain", [3, 8, 64])
@pytest.mark.parametrize("threshold", [0.8, 0.98])
def test_equal_to_brute_force(grain: int, threshold: float) -> None:
    generator = np.random.default_rng(grain)
    pictures = textures(generator, 24, grain)
    for copy, original, strength in ((20, 3, 4), (21, 9, 20), (22, 9, 40), (23, 0, 90)):
        noise = generator.normal(0, strength, (64, 64))
        turn = BY_HAND[ORIENTATIONS[copy % 8]]
        pictures[copy] = np.clip(turn(pictures[original].astype(float)) + noise, 0, 255)
    expected = brute_force(pictures, threshold)
    assert expected
    assert as_dict(find_near_duplicates(pictures, threshold)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("block", [5, 7, 512])
@pytest.mark.parametrize("dense", [0.0, 1.0])
def test_blocks_and_both_ways_of_confirming_agree(block: int, dense: float, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    pictures = textures(generator, 19, 3)
    pictures[13] = pictures[2].T
    monkeypatch.setattr(near_duplicates, "_BLOCK", block)
    monkeypatch.setattr(near_duplicates, "_DENSE", dense)
    monkeypatch.setattr(near_duplicates, "_GATHER", 3)
    expected = brute_force(pictures, 0.7)
    assert len(expected) > 3
    assert as_dict(find_near_duplicates(pictures, 0.7)) == pytest.approx(expected, abs=1e-5)


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 5, 16, 64]))
@settings(max_examples=25, deadline=None)
def test_the_bound_misses_nothing(seed: int, grain: int) -> None:
    """Two pictures that differ only in what the small copy cannot see."""
    generator = np.random.default_rng(seed)
    picture = textures(generator, 1, grain)[0].astype(float)
    detail = generator.normal(0, 12, (64, 64))
    detail -= np.kron(detail.reshape(16, 4, 16, 4).mean((1, 3)), np.ones((4, 4)))
    pictures = np.clip([picture / 2 + 64, picture / 2 + 64 + detail], 0, 255).astype(np.uint8)
    for threshold in (0.9, 0.95, 0.98):
        expected = brute_force(pictures, threshold)
        assert as_dict(find_near_duplicates(pictures, threshold)) == pytest.approx(expected, abs=1e-5)


def test_brightness_contrast_and_jpeg_do_not_hide_a_copy() -> None:
    pictures = textures(np.random.default_rng(2), 4, 10)
    pictures[1] = pictures[0] // 2 + 30
    _, jpeg = cv2.imencode(".jpg", pictures[2][:, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 40])
    pictures[3] = cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE)
    pairs = find_near_duplicates(pictures)
    assert sorted(as_dict(pairs)) == [(0, 1), (2, 3)]
    assert [ORIENTATIONS[t] for t in pairs.orientation] == ["identity", "hflip"]


def test_a_symmetric_picture_is_said_to_match_as_it_is() -> None:
    yy, xx = np.mgrid[-32:32, -32:32] + 0.5
    disc = np.where(xx**2 + yy**2 < 400, 200, 20).astype(np.uint8)
    assert find_near_duplicates(np.stack([disc, disc])).orientation.tolist() == [0]


def test_pictures_without_contrast_are_duplicates_of_none() -> None:
    blank = [np.full((64, 64), grey, np.uint8) for grey in (0, 0, 1, 200)]
    almost = np.full((64, 64), 200, np.uint8)
    almost[0, 0] = 203  # standard deviation 0.05
    light = np.repeat(np.linspace(2, 4.4, 64)[None], 64, axis=0)  # falls from one side, on dark frames with noise
    generator = np.random.default_rng(1)
    dark = [np.rint(light + generator.normal(0, 0.2, (64, 64))).astype(np.uint8) for _ in range(6)]
    pictures = np.stack([*blank, almost, *dark, textures(generator, 1, 8)[0]])
    assert is_blank(pictures).tolist() == [True] * 11 + [False]
    assert len(find_near_duplicates(pictures)) == 0


@pytest.mark.parametrize("number", [0, 1])
def test_nothing_to_compare(number: int) -> None:
    assert len(find_near_duplicates(np.zeros((number, 64, 64), np.uint8))) == 0


@pytest.mark.parametrize("threshold", [0, -1, 1.01, float("nan")])
def test_threshold_outside_its_range(threshold: float) -> None:
    with pytest.raises(ConfigError, match=r"`threshold` should be in \(0, 1\]. Found"):
        find_near_duplicates(np.zeros((2, 64, 64), np.uint8), threshold)


def test_thumbnails_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"Found shape \(2, 32, 32\)"):
        find_near_duplicates(np.zeros((2, 32, 32), np.uint8))


def test_stored_pairs_are_read_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = textures(np.random.default_rng(0), 6, 8)
    pictures[5] = pictures[0].T
    first = stored_near_duplicates(pictures, 0.98, tmp_path)
    assert as_dict(stored_near_duplicates(pictures, 0.98, None)) == as_dict(first) != {}
    monkeypatch.setattr(near_duplicates, "find_near_duplicates", lambda *_: pytest.fail("searched again"))
    again = stored_near_duplicates(pictures, 0.98, tmp_path)
    assert as_dict(again) == as_dict(first)
    assert again.orientation.tolist() == first.orientation.tolist()


def test_other_pictures_another_threshold_or_a_damaged_file_are_searched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = textures(np.random.default_rng(0), 6, 8)
    assert len(stored_near_duplicates(pictures, 0.98, tmp_path)) == 0
    pictures[5] = pictures[0].T
    assert len(stored_near_duplicates(pictures, 0.98, tmp_path)) == 1
    assert len(stored_near_duplicates(pictures, 0.2, tmp_path)) > 1
    assert caplog.text == ""
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:50])
    assert len(stored_near_duplicates(pictures, 0.98, tmp_path)) == 1
    assert "Near-duplicates are searched anew" in caplog.text


@pytest.mark.real_data
def test_magnetic_tile_has_pairs_inside_its_groups_and_none_across() -> None:
    from hsl.data.files.scan import scan
    from hsl.data.formats.folder import read_folder

    catalogue = read_folder(Path(os.environ["HSL_REAL_DATA"]) / "magnetic_tile")
    thumbnails = scan(catalogue, None, 1).thumbnails
    group = np.array([record.attributes["group"] for record in catalogue.records])
    pairs = find_near_duplicates(thumbnails, 0.98)
    across = group[pairs.first] != group[pairs.second]
    assert across.sum() == 0
    assert len(pairs) == pytest.approx(759, abs=5)  # some lie within 1e-4 of the threshold
    pairs = find_near_duplicates(thumbnails, 0.97)
    assert (group[pairs.first] != group[pairs.second]).sum() == pytest.approx(16, abs=1)


def mask(row: int) -> np.ndarray:
    """Every class on one line."""
    found = np.zeros((60, 80), np.uint8)
    found[row, :3] = 0, 1, 2
    return found


@pytest.fixture
def pictures(tmp_path: Path) -> DataSet:
    found = DataSet(tmp_path)
    for i in range(6):
        found.add(f"p{i}", ("train", "val", "test")[i % 3], picture(i), mask(0))
    return found


def audited(data: DataSet, **options: object) -> Audit:
    return audit(*data.take(), 0, near_duplicates="off", **options)  # type: ignore[arg-type]


def relabel(data: DataSet, **labels: str | None) -> None:
    """Attribute ``kind``; ``None``: not known."""
    records = [
        replace(one, attributes={"group": one.id} | ({"kind": kind} if (kind := labels.get(one.id, "x")) else {}))
        for one in data.records
    ]
    data.records = records


def test_copies_with_unlike_masks_stop(pictures: DataSet) -> None:
    pictures.add("copy", "train", picture(0), mask(7))
    found = audited(pictures)
    (finding,) = found.findings
    assert (finding.rule, finding.severity, finding.ids) == ("g", "stop", ("copy", "p0"))
    assert [Path(file).name for file in finding.files] == [
        "images_copy.png", "masks_copy.png", "images_p0.png", "masks_p0.png",
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"images_copy.png` \(train\) = .*images_p0.png` \(train\) \(unlike mask\)"):
        found.raise_if_stopped()
    assert [one.severity for one in audited(pictures, conflicts="warn").findings] == ["warn"]
    assert "data.audit.conflicts=warn" in finding.message
    assert audited(pictures, conflicts="off").findings == ()
    with pytest.raises(ConfigError, match="`conflicts` should be stop, warn or off"):
        audited(pictures, conflicts="maybe")


def test_copies_that_are_alike_are_warned_of(pictures: DataSet) -> None:
    pictures.add("copy", "train", picture(0), mask(0))
    (finding,) = audited(pictures).findings
    assert (finding.rule, finding.severity, finding.ids) == ("g", "warn", ("copy", "p0"))
    assert "Remove the copies" in finding.message


def test_one_mask_stored_in_two_ways_is_no_conflict(pictures: DataSet) -> None:
    pictures.add("copy", "train", picture(0), mask(0))
    path, buffer = pictures.folder / "masks_copy.png", BytesIO()
    Image.fromarray(mask(0)).save(buffer, "png", compress_level=0)
    assert buffer.getvalue() != path.read_bytes()
    path.write_bytes(buffer.getvalue())
    assert [one.severity for one in audited(pictures).findings] == ["warn"]


def test_copies_in_two_parts_are_rule_a_and_if_they_conflict_this_one_too(pictures: DataSet) -> None:
    pictures.add("like", "val", picture(0), mask(0))
    assert [one.rule for one in audited(pictures).findings] == ["a"]
    pictures.add("unlike", "val", picture(3), mask(7))
    found = audited(pictures).findings
    assert [(one.rule, one.severity) for one in found] == [("a", "stop"), ("g", "stop")]
    assert found[1].ids == ("p3", "unlike")


@pytest.mark.parametrize(("kind", "severity"), [("y", "stop"), ("x", "warn"), (None, "warn")])
@pytest.mark.parametrize("columns", ["kind", ["kind"]])
def test_unlike_labels(pictures: DataSet, columns: str | list[str], kind: str | None, severity: str) -> None:
    pictures.add("copy", "train", picture(0), mask(0))
    relabel(pictures, copy=kind)
    (finding,) = audited(pictures, image_labels=columns, missing_classes="off").findings
    assert finding.severity == severity
    assert ("(unlike `kind`)" in finding.message) == (severity == "stop")
    assert [one.severity for one in audited(pictures).findings] == ["warn"]  # a column that is not learnt


def test_masks_that_are_unknown_broken_or_not_the_set_s_own_contradict_none(pictures: DataSet) -> None:
    pictures.add("copy", "train", picture(0), mask(7))
    catalogue, scanned, split = pictures.take()
    drawn = replace(catalogue, relabelled=frozenset(split.parts(0)["train"]))
    (finding,) = audit(drawn, scanned, split, 0, near_duplicates="off").findings
    assert finding.severity == "warn"
    pictures.records[-1] = replace(pictures.records[-1], mask=None)
    catalogue, scanned, split = pictures.take()
    bare = replace(catalogue, masks_optional=True)
    assert [one.severity for one in audit(bare, scanned, split, 0, near_duplicates="off").findings] == ["warn"]


def test_masks_that_were_replaced_are_known_to_be(pictures: DataSet) -> None:
    catalogue, _, _ = pictures.take()
    sources = {one.id: one.mask for one in catalogue.records if one.mask is not None}
    assert TrainingObjects(sources, 0.5, 0, frozenset()).relabelled(catalogue, {"p0"}).relabelled == {"p0"}
    assert TrainingObjects(sources, 1.0, 0, frozenset()).relabelled(catalogue, {"p0"}).relabelled == set()
    pseudo = PseudoTrainingLabels(pictures.folder, {"p0": 1.0}, weigh_by_confidence=False, tiers={"A": 1})
    assert pseudo.relabelled(catalogue, {"p0"}).relabelled == {"p0"}
