from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hsl.data.audit import audit_views
from hsl.data.audit.audit import Audit, Pair
from hsl.data.audit.audit_views import write_contact_sheets
from hsl.data.audit.states import RuleState
from hsl.data.files.records import Catalogue, FileSource, Record
from hsl.errors import DataError

RED, BLUE = (250, 0, 0), (0, 0, 250)


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
