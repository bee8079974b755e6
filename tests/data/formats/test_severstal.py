"""Defects of steel sheets as run lengths beside the pictures."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from omegaconf import OmegaConf
from PIL import Image

from hsl.data.files.decode import decode_image
from hsl.data.files.decode_masks import decode_mask
from hsl.data.files.records import Catalogue
from hsl.data.files.run_lengths import decode_runs, encode_classes, encode_runs, read_runs
from hsl.data.files.scan import scan
from hsl.data.formats.severstal import RunLengthSource, read_severstal
from hsl.data.labels.image_labels import read_image_labels
from hsl.errors import ConfigError, DataError

REAL_DATA = Path(os.environ.get("HSL_REAL_DATA", "nowhere"))
HEADER = "ImageId,ClassId,EncodedPixels"
GOOD = ("a.jpg,1,1 2 5 1", "a.jpg,2,9 4", "c.jpg,2,11 2")
# the first four runs of the first row of Severstal's train.csv, on a picture of 256 x 1600
SEVERSTAL = "29102 12 29346 24 29602 24 29858 24"


def write(root: Path, *rows: str, header: str = HEADER) -> Path:
    """Pictures a, b and c, 4 high and 6 wide, and the table."""
    (root / "train_images").mkdir(exist_ok=True)
    for name in "abc":
        Image.fromarray(np.full((4, 6), 90, np.uint8)).save(root / "train_images" / f"{name}.jpg")
    (root / "train.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf8")
    return root


def message(root: Path, **arguments: int) -> str:
    with pytest.raises(DataError) as error:
        read_severstal(root, **arguments)
    return str(error.value)


def mask_of(catalogue: Catalogue, place: int) -> np.ndarray:
    source = catalogue.records[place].mask
    assert source is not None
    return decode_mask(source.read(), source.name)


def test_masks_and_labels_come_from_the_same_rows(tmp_path: Path) -> None:
    catalogue = read_severstal(write(tmp_path, *GOOD))
    assert catalogue.classes == ("background", "defect_1", "defect_2")
    assert [record.id for record in catalogue.records] == ["a", "b", "c"]
    expected = np.zeros((4, 6), np.uint8)
    expected[0:2, 0] = expected[0, 1] = 1
    expected[:, 2] = 2
    np.testing.assert_array_equal(mask_of(catalogue, 0), expected)
    assert not mask_of(catalogue, 1).any()
    assert np.argwhere(mask_of(catalogue, 2) == 2).tolist() == [[2, 2], [3, 2]]
    labels = read_image_labels(["defect_1", "defect_2"], catalogue.records)
    assert labels.values.tolist() == [[1, 1], [0, 0], [0, 1]]
    assert [record.attributes["group"] for record in catalogue.records] == ["a", "b", "c"]
    assert decode_image(catalogue.records[0].image.read(), "a").shape == (4, 6, 3)


def test_the_scan_counts_what_is_drawn(tmp_path: Path) -> None:
    found = scan(read_severstal(write(tmp_path, *GOOD)), None, 0)
    assert found.errors == {}
    assert found.class_counts[:, :3].tolist() == [[17, 3, 4], [24, 0, 0], [22, 0, 2]]
    assert found.mask_sizes.tolist() == [[4, 6]] * 3


def test_a_mask_travels_and_its_stamp_changes_with_rows_and_picture(tmp_path: Path) -> None:
    catalogue = read_severstal(write(tmp_path, *GOOD))
    mask = catalogue.records[0].mask
    assert isinstance(mask, RunLengthSource)
    assert mask.name.endswith("train.csv#a.jpg")
    sent = pickle.loads(pickle.dumps(mask))
    assert (sent.read(), sent.stamp()) == (mask.read(), mask.stamp())
    other = RunLengthSource(mask.picture, mask.table, ((1, "1 2 5 2"), (2, "9 4")))
    assert other.stamp() != mask.stamp()
    stamp = mask.stamp()
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(mask.picture)
    assert mask.stamp() != stamp
    with pytest.raises(DataError, match=r"train\.csv#a\.jpg`, class 1: Runs should end in the picture, at pixel 4"):
        mask.read()
    mask.picture.unlink()
    with pytest.raises(DataError, match=r"a\.jpg"):
        mask.stamp()


def test_groups_and_further_columns(tmp_path: Path) -> None:
    write(tmp_path, *GOOD)
    (tmp_path / "labels.csv").write_text("id,line\na,east\n")
    (tmp_path / "groups.csv").write_text("id,group\na,coil7\nb,coil7\n")
    a, b, c = read_severstal(tmp_path).records
    assert a.attributes == {"line": "east", "group": "coil7", "defect_1": "1", "defect_2": "1"}
    assert b.attributes["group"] == "coil7"
    assert "group" not in c.attributes  # not known; the split says so
    (tmp_path / "groups.csv").write_text("id,group\nz,coil7\n")
    assert "ids without a picture: `z`" in message(tmp_path)


def test_the_number_of_classes_can_be_told(tmp_path: Path) -> None:
    catalogue = read_severstal(write(tmp_path, *GOOD), num_classes=4)
    assert catalogue.classes[-1] == "defect_4"
    assert catalogue.records[0].attributes["defect_4"] == "0"
    assert "here up to 1. Unknown is that of `row 3 (a.jpg, class 2)`" in message(tmp_path, num_classes=1)
    for number in (0, 255):
        with pytest.raises(ConfigError, match=rf"num_classes` should be in \[1, 255\) or null. Found {number}"):
            read_severstal(tmp_path, num_classes=number)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("b.jpg,1,23 3", "Runs should end in the picture, at pixel 24 or before. Found the end 25"),
        ("b.jpg,1,3 4 5 1", "Runs should not overlap. Found start 5 in a run to 6"),
        ("b.jpg,1,9 1 3 1", "Runs should be sorted by start. Found 3 after 9"),
        ("b.jpg,1,9 1 3", "odd count, 3 numbers"),
        ("b.jpg,1,9 one", "whole numbers from 1, apart by spaces. Found 'one'"),
        ("b.jpg,1,0 3", "Found '0'"),
        ("z.jpg,1,9 1", "should lie in train_images/. Missing is that of"),
        ("b.jpg,4,9 1", "without a gap, here up to 2. Unknown is that of"),
        ("b.jpg,0,9 1", "Unknown is that of"),
        ("b.jpg,scratch,9 1", "Unknown is that of"),
        ("c.jpg,2,1 1", "one row per class"),
        ("b.jpg,1,", "should hold runs. Empty is"),
        ("b.jpg,1,  ", "should hold runs. Empty is"),
        ("c.jpg,1,11 1", "A pixel should belong to one class"),
    ],
)
def test_one_fault_is_one_error_that_names_row_and_file(tmp_path: Path, row: str, said: str) -> None:
    found = message(write(tmp_path, *GOOD, row))
    assert said in found
    assert f"`{tmp_path / 'train.csv'}`" in found
    assert "\n" not in found
    name, class_id = row.split(",")[:2]
    assert f"row 5 ({name}, class {class_id})" in found


def test_rows_that_clash_are_both_named(tmp_path: Path) -> None:
    found = message(write(tmp_path, *GOOD, "c.jpg,1,2 1 10 4"))
    assert "row 4 (c.jpg, class 2) and row 5 (c.jpg, class 1) at pixel 11" in found
    found = message(write(tmp_path, *GOOD, "c.jpg,2,1 1"))
    assert "row 5 (c.jpg, class 2), first in row 4" in found


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    found = message(write(tmp_path, "z.jpg,1,1 1", "a.jpg,1,9 1 3", *[f"b.jpg,9{i},{2 * i + 1} 1" for i in range(8)]))
    assert "has 3 faults" in found
    assert "and 3 more" in found


def test_other_tables_and_folders(tmp_path: Path) -> None:
    assert "does not exist. Set `data.root`" in message(tmp_path / "nowhere")
    write(tmp_path, "a.jpg_1,1 2", header="ImageId_ClassId,EncodedPixels")
    assert "should have a column `ImageId`, `ClassId`. Found the columns ['ImageId_ClassId'" in message(tmp_path)
    assert "should have a row for each defect" in message(write(tmp_path))
    (tmp_path / "train.csv").write_bytes(b"ImageId,ClassId,EncodedPixels\n\xff\xfe,1,1 1\n")
    assert "train.csv`, line 2, should be text in UTF-8" in message(tmp_path)
    write(tmp_path, *GOOD, "b.jpg,1", "b.jpg;1;9 1")
    assert "should have 3 cells, as line 1 has. Other numbers are in line 5 (2), line 6 (1)" in message(tmp_path)
    (tmp_path / "train.csv").rename(tmp_path / "Train.CSV")
    assert f"train.csv` does not exist. Rename `{tmp_path / 'Train.CSV'}`." in message(tmp_path)
    write(tmp_path, *GOOD)
    (tmp_path / "train_images" / "a.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    assert "row 2 (a.jpg, class 1)" in message(tmp_path)


def test_the_table_of_a_spreadsheet(tmp_path: Path) -> None:
    expected = read_severstal(write(tmp_path, *GOOD)).records
    rows = [row.replace(",", ";").replace(".jpg", "") for row in GOOD]
    (tmp_path / "train.csv").write_bytes("\r\n".join(["ImageId;ClassId;EncodedPixels", *rows, ";;"]).encode("utf-16"))
    assert [record.mask.read() for record in read_severstal(tmp_path).records] == [one.mask.read() for one in expected]


def test_the_option_reads_it(tmp_path: Path) -> None:
    option = OmegaConf.load(Path(__file__).parents[3] / "conf/data/severstal.yaml")
    assert option.image_size == [256, 1600]
    assert len(instantiate(option.reader)(write(tmp_path, *GOOD)).records) == 3


@pytest.mark.real_data
def test_the_sample_of_steel() -> None:
    catalogue = read_severstal(REAL_DATA / "steel_severstal_format")
    assert catalogue.classes == ("background", "defect_1", "defect_2", "defect_3")
    assert len(catalogue.records) == 1121
    names = ["defect_1", "defect_2", "defect_3"]
    assert read_image_labels(names, catalogue.records).count(range(1121)).tolist() == [445, 458, 451]
    record = catalogue.records[0]
    mask = mask_of(catalogue, 0)
    assert mask.shape == decode_image(record.image.read(), record.id).shape[:2] == (200, 200)
    rows = (REAL_DATA / "steel_severstal_format" / "train.csv").read_text().splitlines()
    expected = {int(row.split(",")[1]): row.split(",")[2] for row in rows if row.startswith(f"{record.id}.jpg,")}
    assert encode_classes(mask) == expected


def test_a_table_that_is_no_file_is_not_called_missing(tmp_path: Path) -> None:
    table = write(tmp_path, *GOOD) / "train.csv"
    table.unlink()
    os.mkfifo(table)
    assert "cannot be read: it is a named pipe" in message(tmp_path)
    table.unlink()
    table.symlink_to(tmp_path / "lost.csv")
    assert "Found a link to nothing" in message(tmp_path)


def test_the_first_row_of_severstal() -> None:
    mask = decode_runs(SEVERSTAL, 256, 1600)
    assert mask.shape == (256, 1600)
    assert mask.sum() == 12 + 3 * 24
    assert np.flatnonzero(mask.any(axis=0)).tolist() == [113, 114, 115, 116]
    assert np.flatnonzero(mask[:, 113]).tolist() == list(range(173, 185))
    for column in (114, 115, 116):
        assert np.flatnonzero(mask[:, column]).tolist() == list(range(161, 185))
    assert encode_runs(mask) == SEVERSTAL


def test_pixels_count_down_the_columns_from_one() -> None:
    by_hand = np.zeros((3, 4), bool)
    for number in (1, 2, 3, 10, 11):
        by_hand[(number - 1) % 3, (number - 1) // 3] = True
    np.testing.assert_array_equal(decode_runs("1 3 10 2", 3, 4), by_hand)


@given(arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)))
@settings(max_examples=200, deadline=None)
def test_there_and_back(mask: np.ndarray) -> None:
    text = encode_runs(mask)
    np.testing.assert_array_equal(decode_runs(text, *mask.shape), mask)
    runs = read_runs(text, mask.size)
    assert (runs[1:, 0] > runs[:-1, 1]).all()  # none that could be joined
    by_hand = [x * mask.shape[0] + y for x in range(mask.shape[1]) for y in range(mask.shape[0]) if mask[y, x]]
    assert [pixel for first, last in runs.tolist() for pixel in range(first, last)] == by_hand


@given(arrays.arrays(np.uint8, (4, 5), elements=st.integers(0, 3)))
@settings(max_examples=50, deadline=None)
def test_classes_there_and_back(mask: np.ndarray) -> None:
    found = np.zeros_like(mask)
    for index, text in encode_classes(mask).items():
        assert text
        found[decode_runs(text, 4, 5)] = index
    np.testing.assert_array_equal(found, mask)


@pytest.mark.parametrize(
    ("text", "pixels"),
    [("", []), ("   ", []), ("6 1", [5]), ("1 6", [0, 1, 2, 3, 4, 5]), ("1 2 3 1", [0, 1, 2]), (" 2\t1\n", [1])],
)
def test_edges(text: str, pixels: list[int]) -> None:
    """Nothing, the last pixel, all of them, runs that touch, other white space."""
    assert np.flatnonzero(decode_runs(text, 2, 3).T.ravel()).tolist() == pixels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1", "odd count, 1 numbers"),
        ("1 2 3", "odd count, 3 numbers"),
        ("1 x", "whole numbers from 1.* Found 'x'"),
        ("1 2.0", "Found '2.0'"),
        ("-1 2", "Found '-1'"),
        ("0 2", "Found '0'"),
        ("1 0", "Found '0'"),
        ("1 ²", "Found '²'"),
        ("1 1000000000000000000000", "Found '1000000000000000000000'"),
        ("4 1 1 2", "sorted by start. Found 1 after 4"),
        ("1 3 3 1", "not overlap. Found start 3 in a run to 3"),
        ("2 1 2 1", "not overlap. Found start 2 in a run to 2"),
        ("6 2", "at pixel 6 or before. Found the end 7"),
        ("7 1", "at pixel 6 or before. Found the end 7"),
    ],
)
def test_what_is_no_run_length(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_runs(text, 2, 3)
