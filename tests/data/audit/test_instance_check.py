import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.data.labels._inputs import write_data

from hsl.data.audit import instance_check as module
from hsl.data.audit.instance_check import InstanceMap, check_instances, read_instance_map
from hsl.data.formats.folder import read_folder
from hsl.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


@pytest.fixture
def read_ids(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the pictures whose maps are read."""
    seen: list[str] = []
    monkeypatch.setattr(
        module, "read_instance_map", lambda record, how: seen.append(record.id) or read_instance_map(record, how)
    )
    return seen


def ids(root: Path, name: str = "p0") -> NDArray[np.uint16]:
    return np.asarray(cv2.imread(str(root / f"instances/{name}.png"), cv2.IMREAD_UNCHANGED), np.uint16)


def write(root: Path, name: str, values: NDArray[np.uint16], folder: str = "instances") -> None:
    cv2.imwrite(str(root / f"{folder}/{name}.png"), values)


def check(root: Path, cache_dir: Path | None = None) -> None:
    check_instances(read_folder(root), cache_dir, 0)


def test_maps_that_fit_pass_and_so_do_pictures_without_objects(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    empty = np.zeros((32, 32), np.uint8)
    write(root, "p3", empty.astype(np.uint16))
    write(root, "p3", empty, "masks")
    write(root, "p4", empty.astype(np.uint16))
    write(root, "p4", empty + np.uint8(255), "masks")  # nothing is known
    (root / "instances/p5.png").unlink()
    check(root)
    assert not caplog.records


def test_every_kind_of_fault_is_named_at_once_in_whatever_part(root: Path) -> None:
    gaps, whole = ids(root), ids(root)
    gaps[gaps == 3] = 99
    for name in ("p0", "p1", "p2", "p7"):
        write(root, name, gaps)
    write(root, "p3", np.zeros_like(whole))
    write(root, "p4", whole[:16])
    write(root, "p5", np.roll(whole, 4, axis=1))
    (root / "instances/p6.png").write_bytes(b"nothing")
    with pytest.raises(DataError) as caught:
        check(root)
    first, *lines = str(caught.value).splitlines()
    assert first.endswith("should have maps of instance ids that fit. Found:")
    assert len(lines) == 5
    assert "4 maps of instance ids have gaps" in lines[0]
    assert lines[0].count("has no 3 of 1 to 99") == 3
    assert "and 1 more. Number the objects" in lines[0]
    assert f"1 maps of instance ids are empty though their masks have objects: `{root}/instances/p3.png`." in lines[1]
    assert "p4.png` is 16 x 32, not 32 x 32. Export both" in lines[2]
    assert "show other objects than their masks" in lines[3]
    assert "p6.png" in lines[4]


def test_a_border_that_masks_leave_out_only_warns(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    mask = cv2.imread(str(root / "masks/p0.png"), cv2.IMREAD_UNCHANGED)
    found = ids(root)
    few = np.where(found == 1, 0, mask)  # 25 of 400 pixels
    write(root, "p0", few, "masks")
    with caplog.at_level(logging.WARNING):
        check(root)
    assert not caplog.records
    write(root, "p0", np.where(found <= 4, 0, mask), "masks")
    with caplog.at_level(logging.WARNING):
        check(root)
    assert "p0.png` in 25 % of the pixels of objects" in caplog.text
    assert len(caplog.records) == 1
    write(root, "p0", np.where(found <= 9, 0, mask), "masks")
    with pytest.raises(DataError, match=r"p0\.png` in 56 % of the pixels of objects"):
        check(root)


def test_ignored_pixels_are_no_disagreement(root: Path) -> None:
    write(root, "p0", np.full((32, 32), 255, np.uint8), "masks")
    check(root)


def test_a_broken_mask_is_left_to_the_audit(root: Path) -> None:
    (root / "masks/p0.png").write_bytes(b"nothing")
    check(root)


def test_without_a_mask_the_map_is_held_against_the_picture(root: Path) -> None:
    (root / "masks/p0.png").unlink()
    check_instances(read_folder(root, masks_optional=True), None, 0)
    write(root, "p0", ids(root)[:16])
    with pytest.raises(DataError, match="is 16 x 32, not 32 x 32"):
        check_instances(read_folder(root, masks_optional=True), None, 0)


def test_only_new_and_changed_files_are_read_again(root: Path, tmp_path: Path, read_ids: list[str]) -> None:
    cache = tmp_path / "cache"
    check(root, cache)
    assert len(read_ids) == 8
    check(root, cache)
    assert len(read_ids) == 8
    write(root, "p2", np.where(ids(root, "p2") == 16, 0, ids(root, "p2")).astype(np.uint16))
    check(root, cache)
    write(root, "p3", np.zeros((32, 32), np.uint8), "masks")
    with pytest.raises(DataError, match="p3"):
        check(root, cache)
    with pytest.raises(DataError, match="p3"):  # what was found wrong is stored as well
        check(root, cache)
    assert read_ids[8:] == ["p2", "p3"]
    (root / "dataset.yaml").write_text("classes: [background, nucleus]\nignore_index: 90\n")
    with pytest.raises(DataError, match="p3"):
        check(root, cache)
    assert len(read_ids) == 18


def test_a_file_that_cannot_be_read_and_a_damaged_cache_are_read_again(
    root: Path, tmp_path: Path, read_ids: list[str]
) -> None:
    good = (root / "instances/p1.png").read_bytes()
    (root / "instances/p1.png").write_bytes(b"nothing")
    for _ in range(2):
        with pytest.raises(DataError, match=r"p1\.png"):
            check(root, tmp_path / "cache")
    assert read_ids[8:] == ["p1"]
    (root / "instances/p1.png").write_bytes(good)
    (stored,) = (tmp_path / "cache").iterdir()
    for text in ("{", "[]", '{"a": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]}'):
        stored.write_text(text)
        check(root, tmp_path / "cache")
    assert len(read_ids) == 9 + 3 * 8


def test_what_is_seen_of_one_map(root: Path) -> None:
    found = ids(root)
    found[found == 2] = 40
    found[0, :] = 41  # 32 pixels, one of them ignored
    write(root, "p0", found)
    record = read_folder(root).records[0]
    seen = read_instance_map(record, module.Decoding(None, None, 255))
    assert seen == InstanceMap(32, 32, 32, 32, 17, 41, 2, 400 + 31, 31)
