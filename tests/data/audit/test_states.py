"""What no rule could look at has not passed; the audit as people read it."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hsl.console import PlainConsole
from hsl.data.audit import audit_views
from hsl.data.audit.audit import RULES, Audit, Pair, audit
from hsl.data.audit.audit_views import print_table, write_contact_sheets
from hsl.data.audit.states import RuleState
from hsl.data.files.records import Catalogue, FileSource, Record
from hsl.data.files.scan import Scan
from hsl.errors import DataError
from hsl.files.split_file import Fold, Split

IDS = ("a_1", "a_2", "b_1", "c")
PASSED = RuleState("passed")
RED, BLUE = (250, 0, 0), (0, 0, 250)


def world(masked: int = 4, **attributes: tuple[str | None, ...]) -> tuple[Catalogue, Scan, Split]:
    """Two pictures in training, one in validation, one for the test; the first ``masked`` have a mask."""
    known = [{name: value for name, values in attributes.items() if (value := values[i]) is not None} for i in range(4)]
    records = [
        Record(name, FileSource(Path(name)), FileSource(Path(f"m{name}")) if i < masked else None, None, known[i], None)
        for i, name in enumerate(IDS)
    ]
    counts = np.zeros((4, 256), np.int64)
    counts[:masked, :2] = 5
    sizes, mask_sizes = np.full((4, 2), 8), np.zeros((4, 2), np.int64)
    mask_sizes[:masked] = 8
    hashes = tuple(f"content {i}" for i in range(4))
    thumbnails = np.random.default_rng(0).integers(0, 255, (4, 64, 64), np.uint8)
    largest, frames, contrast = np.zeros(len(IDS), int), np.ones(len(IDS), int), np.full(len(IDS), 50.0)
    scan = Scan(IDS, hashes, hashes, sizes, mask_sizes, counts, thumbnails, largest, frames, contrast, hashes, {})
    groups = "group" if "group" in attributes else None
    split = Split("kfold", 0, groups, (Fold(IDS[:2], IDS[2:3], "0"),), IDS[3:], "sha")
    return Catalogue("data", tuple(records), ("clean", "crack"), masks_optional=True), scan, split


def states(catalogue: Catalogue, scan: Scan, split: Split, **given: str) -> dict[str, RuleState]:
    return audit(catalogue, scan, split, 0, **given).states


def test_all_that_was_looked_at_has_passed() -> None:
    assert states(*world(group=("g", "g", "h", "h2"))) == dict.fromkeys(RULES, PASSED)


@pytest.mark.parametrize(
    ("attributes", "state", "reason"),
    [
        ({}, "not checked", "no groups known; 2 ids differ from another only in a number at the end"),
        ({"group": IDS}, "not checked", "no groups known: each picture is its own; 2 ids differ"),
        ({"group": ("g", "g", "h", None)}, "partly checked", "1 picture without a value of `group`"),
        ({"site": ("s", "s", "s", "s")}, "not checked", "no groups known"),
    ],
)
def test_groups_that_nobody_knows(attributes: dict[str, tuple[str | None, ...]], state: str, reason: str) -> None:
    found = states(*world(**attributes))["b"]
    assert (found.state, found.reason[: len(reason)]) == (state, reason)


@pytest.mark.parametrize(
    ("masked", "expected"),
    [
        (3, {"d": "3 of 4 pictures have a mask", "e": "1 picture may go without a mask (`masks_optional`)"}),
        (4, {"d": "", "e": ""}),
    ],
)
def test_pictures_without_a_mask_are_counted(masked: int, expected: dict[str, str]) -> None:
    found = states(*world(masked, group=("g", "g", "h", "i")))
    assert {rule: found[rule] for rule in expected} == {
        rule: RuleState("passed", why) for rule, why in expected.items()
    }


def test_no_masks_at_all() -> None:
    found = states(*world(0), missing_classes="off")
    assert {rule: found[rule].state for rule in "def"} == {"d": "not checked", "e": "partly checked", "f": "off"}
    assert states(*world(0), missing_classes="warn")["f"] == RuleState("warned", "no picture has a mask")


def test_files_that_cannot_be_read() -> None:
    catalogue, scan, split = world(group=("g", "g", "h", "i"))
    sizes, mask_sizes = scan.image_sizes.copy(), scan.mask_sizes.copy()
    sizes[1] = mask_sizes[1:3] = 0
    broken = replace(scan, image_sizes=sizes, mask_sizes=mask_sizes, content=("x", "", "y", "z"), errors={"a_2": "cut"})
    found = states(catalogue, broken, split)
    unread = RuleState("partly checked", "1 picture that cannot be read")
    assert (found["a"], found["c"], found["g"]) == (unread, unread, unread)
    assert found["d"] == found["f"] == RuleState("partly checked", "2 of 4 masks cannot be read")
    assert found["e"].state == "stopped"
    none = states(catalogue, replace(scan, mask_sizes=np.zeros_like(mask_sizes)), split)
    assert none["d"] == none["f"] == RuleState("not checked", "4 of 4 masks cannot be read")


def test_what_is_off_has_not_passed_and_what_was_found_stands_first() -> None:
    given = {"near_duplicates": "off", "missing_classes": "off", "conflicts": "off"}
    catalogue, scan, split = world()
    found = states(catalogue, replace(scan, content=("x", "x", "y", "y")), split, **given)
    assert [found[rule].state for rule in "cfg"] == ["off"] * 3
    assert found["a"].state == "stopped"
    assert found["g"].reason == "switched off by `data.audit.conflicts`"


def test_one_part_alone_can_share_nothing() -> None:
    catalogue, scan, split = world(group=("g", "g", "g", "g"))
    alone = replace(split, folds=(Fold(IDS, (), "0"),), test=())
    found = states(catalogue, scan, alone)
    assert {found[rule].state for rule in "abc"} == {"not checked"}


def test_image_classes_without_a_training_picture() -> None:
    taken = world(group=("g", "g", "h", "i"), label=("rust", None, "rust", "mildew"), x=("0", "0", "1", "0"))
    found = audit(*taken, 0, image_labels="label")
    assert (found.states["f"].state, found.findings[0].ids) == ("stopped", ("c",))
    assert (
        "1 classes of `data.image_labels` are in no training picture: mildew (1 in test)" in found.findings[0].message
    )
    assert "x (1 in val)" in audit(*taken, 0, image_labels=["x"], missing_classes="warn").findings[0].message
    assert audit(*taken, 0, image_labels="label", missing_classes="off").findings == ()


def test_the_table_and_the_file_say_so() -> None:
    catalogue, scan, split = world(3)
    found = audit(replace(catalogue, not_read=("`images`: 1 not read: 1 gif.",)), scan, split, 0)
    console = PlainConsole(width=120, record=True, file=io.StringIO())
    print_table(found, console)
    text = console.export_text()
    assert "(b) not checked: no groups known; 2 ids differ" in text
    assert "`images`: 1 not read: 1 gif." in text
    page = json.loads(found.to_json())
    assert page["states"]["b"]["state"] == "not checked"
    assert page["states"]["a"] == {"state": "passed", "reason": ""}
    assert page["not_read"] == ["`images`: 1 not read: 1 gif."]


def two_halves(height: int, width: int) -> np.ndarray:
    """Red on the left, blue on the right."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, : width // 2], picture[:, width // 2 :] = RED, BLUE
    return picture


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    records = []
    for name, picture in (("a", two_halves(50, 100)), ("b", np.rot90(two_halves(50, 100), -1))):
        path = tmp_path / f"{name}.png"
        Image.fromarray(np.ascontiguousarray(picture)).save(path)
        records.append(Record(name, FileSource(path), None, None, {}, None))
    return Catalogue("pictures", tuple(records), ("clean", "crack"))


def audit_of(number: int) -> Audit:
    pair = Pair("a", "b", "train", "val", 0.99, "rot90")
    parts = {"train": 1, "val": 1, "test": 0}
    return Audit(
        "pictures",
        "sha",
        "kfold",
        None,
        0,
        parts,
        "stop",
        0.98,
        "stop",
        "stop",
        0,
        number,
        (pair,) * number,
        (),
        {"c": RuleState("stopped", "2 pictures that cannot be read")},
    )


def pure(page: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (page == colour).all(axis=-1)


def test_a_row_shows_both_pictures_and_the_second_as_it_matches(catalogue: Catalogue, tmp_path: Path) -> None:
    (path,) = write_contact_sheets(audit_of(1), catalogue, tmp_path / "sheets")
    assert path.name == "near_duplicates_01.png"
    page = np.asarray(Image.open(path).convert("RGB"))
    third = (page.shape[1] - 2 * 12) / 3
    runs = []
    for tile in range(3):
        part = page[:, int(12 + tile * third) : int(12 + (tile + 1) * third)]
        rows, columns = np.nonzero(pure(part, RED))
        blue_rows, blue_columns = np.nonzero(pure(part, BLUE))
        assert len(rows) > 5000
        runs.append((rows.mean() - blue_rows.mean(), columns.mean() - blue_columns.mean()))
    for tile in (0, 2):  # red left of blue
        assert abs(runs[tile][0]) < 2
        assert runs[tile][1] < -100
    assert abs(runs[1][0]) > 50  # red above or below blue
    assert abs(runs[1][1]) < 2


def test_pages_are_filled_limited_and_old_ones_go(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(write_contact_sheets(audit_of(11), catalogue, tmp_path / "sheets")) == 3
    texts: list[str] = []
    original = audit_views._write
    monkeypatch.setattr(audit_views, "_write", lambda *a: (texts.append(a[2]), original(*a))[1])
    pages = write_contact_sheets(audit_of(11), catalogue, tmp_path / "sheets", max_pages=2)
    assert sorted((tmp_path / "sheets").iterdir()) == pages
    assert len(pages) == 2
    assert "pictures, fold 0: near-duplicates in two parts, pairs 6 to 10 of 11" in texts
    assert texts.count("1 more pairs: audit.json; not looked at: 2 pictures that cannot be read") == 1
    assert texts.count("train: a") == 10
    assert "second, rot90: 0.9900" in texts
    assert write_contact_sheets(audit_of(0), catalogue, tmp_path / "sheets") == []
    assert list((tmp_path / "sheets").iterdir()) == []


def test_no_pairs_make_no_folder(catalogue: Catalogue, tmp_path: Path) -> None:
    assert write_contact_sheets(audit_of(0), catalogue, tmp_path / "sheets") == []
    assert not (tmp_path / "sheets").exists()


def test_long_names_and_extreme_shapes_stay_in_their_tile(catalogue: Catalogue, tmp_path: Path) -> None:
    path = tmp_path / "long.png"
    Image.fromarray(two_halves(2, 900)).save(path)
    name = "x" * 300
    record = replace(catalogue.records[1], id=name, image=FileSource(path))
    longer = replace(catalogue, records=(catalogue.records[0], record))
    pair = Pair("a", name, "train", "val", 0.99, "identity")
    found = replace(audit_of(1), pairs=(pair,))
    (page,) = write_contact_sheets(found, longer, tmp_path / "sheets")
    third_label = np.asarray(Image.open(page).convert("L"))[44:64, 12 + 2 * 252 - 10 : 12 + 2 * 252 - 1]
    assert third_label.min() > 200  # the second label ends before the third begins


def test_a_picture_that_is_gone_is_named(catalogue: Catalogue, tmp_path: Path) -> None:
    (tmp_path / "b.png").unlink()
    with pytest.raises(DataError, match=r"b.png` cannot be read"):
        write_contact_sheets(audit_of(1), catalogue, tmp_path / "sheets")
