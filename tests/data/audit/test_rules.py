from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hsl.data.audit.pixel_values import picture_values
from hsl.data.audit.rules import (
    Finding,
    Subject,
    absent_classes,
    mask_values,
    mismatched_files,
    shared_groups,
    shared_pictures,
)
from hsl.data.files.records import Catalogue, FileSource, Record
from hsl.data.files.scan import Scan
from hsl.files.split_file import Fold, Split

CLASSES = ("clean", "scratch", "crack")
PARTS = {"a": "train", "b": "train", "c": "val", "d": "test"}
BLACK, WHITE, PROPER, BORDER = {0: 9}, {0: 5, 255: 4}, {0: 5, 1: 4}, {0: 3, 1: 3, 255: 3}


def subject(
    parts: Mapping[str, str],
    *,
    masks: Mapping[str, Mapping[int, int]] | None = None,
    classes: tuple[str, ...] = CLASSES,
    attributes: Mapping[str, Mapping[str, str]] | None = None,
    groups: str | None = None,
) -> Subject:
    """Pictures in the given parts; ``masks`` says how many pixels of which value theirs have."""
    ids = sorted(parts)
    records, counts = [], np.zeros((len(ids), 256), np.int64)
    for row, name in enumerate(ids):
        image, mask = FileSource(Path(f"images/{name}.jpg")), FileSource(Path(f"masks/{name}.png"))
        records.append(Record(name, image, mask, None, (attributes or {}).get(name, {}), None))
        for value, number in (masks or {}).get(name, {0: 10, 1: 10, 2: 10}).items():
            counts[row, value] = number
    sizes = np.full((len(ids), 2), 8)
    hashes, thumbnails = tuple(f"hash of {i}" for i in ids), np.zeros((len(ids), 64, 64), np.uint8)
    largest, frames, contrast = np.zeros(len(ids), int), np.ones(len(ids), int), np.full(len(ids), 50.0)
    scan = Scan(
        tuple(ids), hashes, hashes, sizes, sizes.copy(), counts, thumbnails, largest, frames, contrast, hashes, {}
    )
    where = {part: tuple(i for i in ids if parts[i] == part) for part in ("train", "val", "test", "stop")}
    fold = Fold(where["train"], where["val"], "0", where["stop"])
    split = Split("kfold", 0, groups, (fold,), where["test"], "sha")
    return Subject(Catalogue("data", tuple(records), classes), scan, split, 0)


def test_a_sound_fold_has_no_findings() -> None:
    sound = subject(PARTS, attributes={name: {"group": name} for name in PARTS}, groups="group")
    for rule in (shared_pictures, shared_groups, mask_values, mismatched_files):
        assert rule(sound) == []
    assert absent_classes(sound, "stop") == []


# (a)


def test_an_id_in_two_parts() -> None:
    broken = subject(PARTS)
    split = replace(broken.split, test=("b", "c", "d"))
    (finding,) = shared_pictures(replace(broken, split=split))
    assert (finding.rule, finding.severity, finding.ids) == ("a", "stop", ("b", "c"))
    assert finding.files == ("images/b.jpg", "images/c.jpg")
    assert "2 pictures" in finding.message
    assert "`images/b.jpg` (train and test)" in finding.message


def test_one_file_under_two_ids_in_two_parts() -> None:
    same = subject({**PARTS, "e": "train", "f": "train"})
    content = ("A", "B", "A", "D", "F", "F")  # a = c across, e = f inside
    (finding,) = shared_pictures(replace(same, scan=replace(same.scan, content=content)))
    assert (finding.rule, finding.severity, finding.ids) == ("a", "stop", ("a", "c"))
    assert "`images/a.jpg` (train) = `images/c.jpg` (val)" in finding.message


def test_unreadable_pictures_are_not_taken_for_copies() -> None:
    broken = subject(PARTS)
    assert shared_pictures(replace(broken, scan=replace(broken.scan, content=("",) * 4))) == []


# (b)


def torn(groups: str | None) -> Subject:
    attributes = {name: {"group": "g1" if name in "ac" else name, "site": name} for name in PARTS}
    return subject(PARTS, attributes=attributes, groups=groups)


def test_a_group_in_two_parts_stops() -> None:
    (finding,) = shared_groups(torn("group"))
    assert (finding.rule, finding.severity, finding.ids) == ("b", "stop", ("a", "c"))
    assert finding.files == ("images/a.jpg", "images/c.jpg")
    assert "1 values of `group` are in two parts: g1 (train and val)" in finding.message


def test_groups_switched_off_are_warned_of() -> None:
    (finding,) = shared_groups(torn(None))
    assert finding.severity == "warn"
    assert "set `data.split.groups=group`" in finding.message


def test_another_attribute_kept_whole_does_not_excuse_torn_groups() -> None:
    (finding,) = shared_groups(torn("site"))
    assert finding.severity == "stop"
    assert "The split takes the values of `site`" in finding.message


def test_pictures_of_unknown_group_share_none() -> None:
    assert shared_groups(subject(PARTS, attributes={"a": {"group": "x"}}, groups="group")) == []


# (d)


def test_values_outside_the_classes() -> None:
    masks = {"a": {0: 5, 3: 2}, "c": {0: 5, 7: 1, 254: 9}, "d": {0: 5, 255: 9}}
    (finding,) = mask_values(subject(PARTS, masks=masks))
    assert (finding.rule, finding.severity, finding.ids) == ("d", "stop", ("a", "c"))
    assert finding.files == ("masks/a.png", "masks/c.png")
    assert "`masks/a.png` has 3 (2 pixels)" in finding.message
    assert "`masks/c.png` has 7, 254 (10 pixels)" in finding.message


@pytest.mark.parametrize(
    ("masks", "severity"),
    [
        ([BLACK, WHITE, WHITE, BLACK], "stop"),  # class 1 is nowhere
        ([BLACK, WHITE, PROPER, BLACK], "warn"),  # two conventions side by side, it seems
        ([BLACK, WHITE, PROPER, BORDER], None),  # 255 is an ignored border
        ([BLACK, PROPER, PROPER, BLACK], None),
        ([BLACK, BLACK, BLACK, BLACK], None),
    ],
)
def test_black_and_white_masks_of_two_classes(masks: list[dict[int, int]], severity: str | None) -> None:
    by_id = dict(zip("abcd", masks, strict=True))
    findings = mask_values(subject(PARTS, masks=by_id, classes=("clean", "damage")))
    assert [finding.severity for finding in findings] == ([severity] if severity else [])
    if findings:
        assert findings[0].files == tuple(f"masks/{i}.png" for i in by_id if by_id[i] == WHITE)
        assert "`damage`" in findings[0].message


def test_other_numbers_and_255_are_one_finding_with_one_line_to_write() -> None:
    (finding,) = mask_values(subject(PARTS, masks={"a": {0: 5, 128: 2, 255: 9}}, classes=("clean", "crack")))
    assert finding.message.count("values: {") == 1


def test_of_more_classes_255_is_ignored_as_ever() -> None:
    assert mask_values(subject(PARTS, masks=dict.fromkeys("abcd", WHITE))) == []


def test_an_ignored_value_that_is_a_class() -> None:
    many = tuple(f"class {i}" for i in range(256))
    (finding,) = mask_values(subject(PARTS, classes=many))
    assert finding.severity == "stop"
    assert "256 classes, so the ignored value 255 is one of them" in finding.message
    assert mask_values(subject(PARTS, classes=many[:255])) == []


# (e)


def test_unlike_sizes_name_both_files() -> None:
    unlike = subject(PARTS)
    unlike.scan.mask_sizes[2] = 8, 9
    unlike.scan.mask_sizes[3] = 0, 0  # cannot be decoded: another finding
    (finding,) = mismatched_files(unlike)
    assert (finding.rule, finding.severity, finding.ids) == ("e", "stop", ("c",))
    assert finding.files == ("images/c.jpg", "masks/c.png")
    assert "`images/c.jpg` is 8 x 8, `masks/c.png` 8 x 9" in finding.message


def test_a_picture_without_a_mask() -> None:
    whole = subject(PARTS)
    records = (replace(whole.catalogue.records[0], mask=None), *whole.catalogue.records[1:])
    (finding,) = mismatched_files(replace(whole, catalogue=replace(whole.catalogue, records=records)))
    assert (finding.severity, finding.ids, finding.files) == ("stop", ("a",), ("images/a.jpg",))


def test_all_unreadable_files_are_one_finding() -> None:
    errors = {"a": "`images/a.jpg` is empty.", "d": "`images/d.jpg` is empty. `masks/d.png` is cut off."}
    broken = subject(PARTS)
    (finding,) = mismatched_files(replace(broken, scan=replace(broken.scan, errors=errors)))
    assert (finding.severity, finding.ids) == ("stop", ("a", "d"))
    assert finding.files == ("images/a.jpg", "images/d.jpg", "masks/d.png")
    assert all(error in finding.message for error in errors.values())


# (f)


def test_a_class_that_no_training_picture_shows() -> None:
    masks = {"a": {0: 5}, "b": {0: 5, 255: 3}, "c": {0: 5, 1: 1}, "d": {1: 4}}
    (finding,) = absent_classes(subject(PARTS, masks=masks), "warn")
    assert (finding.rule, finding.severity, finding.ids) == ("f", "warn", ("c", "d"))
    assert finding.files == ("masks/c.png", "masks/d.png")
    assert "2 classes" in finding.message
    assert "scratch (1 in val, 1 in test), crack (nowhere in the data set)" in finding.message


def test_the_part_that_stops_is_a_side_like_the_others() -> None:
    groups = {"a": "x", "b": "y", "c": "x", "d": "z"}
    masks = {"a": {0: 5}, "b": {0: 5}, "c": {0: 5, 1: 1}, "d": {0: 5, 1: 4}}
    attributes = {name: {"group": group} for name, group in groups.items()}
    found = subject(PARTS | {"c": "stop"}, masks=masks, attributes=attributes, groups="group")
    assert list(found.parts) == ["train", "stop", "val", "test"]
    (torn,) = shared_groups(found)
    assert (torn.severity, torn.ids) == ("stop", ("a", "c"))
    assert "x (stop and train)" in torn.message
    (absent,) = absent_classes(found, "stop")
    assert "scratch (1 in stop, 1 in test)" in absent.message
    assert "Use fewer folds, a smaller `data.split.stop_fraction` or another `data.split.seed`" in absent.message
    copied = replace(found.scan, content=("same", "other", "same", "third"))
    (twice,) = shared_pictures(replace(found, scan=copied))
    assert (twice.severity, twice.ids) == ("stop", ("a", "c"))


def test_the_background_may_be_absent_as_well() -> None:
    masks = {name: {1: 3, 2: 3} for name in "abcd"}
    (finding,) = absent_classes(subject(PARTS, masks=masks), "stop")
    assert "clean (nowhere in the data set)" in finding.message
    assert finding.ids == ()


def findings(largest: Sequence[int], value_range: tuple[float, float] | None) -> list[Finding]:
    """Of pictures whose largest numbers are these; 0 is a picture of 8 bits."""
    ids = tuple(f"p{i}" for i in range(len(largest)))
    records = tuple(Record(name, FileSource(Path(f"{name}.png")), None, None, {}, None) for name in ids)
    sizes, counts = np.full((len(ids), 2), 8), np.zeros((len(ids), 256), np.int64)
    scan = Scan(ids, ids, ids, sizes, sizes, counts, np.zeros((len(ids), 64, 64), np.uint8),
                np.array(largest), np.ones(len(ids), int), np.full(len(ids), 50.0), ids, {})  # fmt: skip
    split = Split("kfold", 0, None, (Fold(ids, (), "0"),), (), "sha")
    return picture_values(Subject(Catalogue("d", records, ("a", "b"), value_range=value_range), scan, split, 0))


@pytest.mark.parametrize(
    ("largest", "value_range", "severity", "said"),
    [
        ([4000, 3000], None, "stop", "`value_range: [0, 4095]`"),
        ([500, 400], None, "stop", "`value_range: [0, 511]`"),
        ([60000, 4000], None, "stop", "1 of 2 of them"),
        ([60000, 60000, 4000], None, "warn", "`value_range: [0, 4095]`"),
        ([4000, 3000], (0, 1023), "warn", "what is above 1023. Found numbers up to 4000 in 2 of 2 pictures"),
        ([4000, 900, 800], (0, 1023), None, ""),
        ([4000, 3000], (0, 4095), None, ""),
        ([4000, 3000], (0, 65535), None, ""),
        ([60000, 30000], None, None, ""),
        ([0, 0], None, None, ""),
    ],
)
def test_numbers_of_another_range(
    largest: list[int], value_range: tuple[float, float] | None, severity: str | None, said: str
) -> None:
    found = findings(largest, value_range)
    assert [finding.severity for finding in found] == ([severity] if severity else [])
    assert said in "".join(finding.message for finding in found)
    if "`[0, 4095]`" in said:
        assert findings(largest, (0, 4095)) == []
