"""The table of pseudo-labels: what is in it, and what is wrong with it in one sentence."""

import hashlib
from pathlib import Path

import pytest

from hsl.data.labels.label_table import LabelRow, read_labels
from hsl.errors import DataError

HEAD = "id,label,tier,quality,uncertain,foreground,rule_passed,sources,image\n"
GOOD = "p0,rust,A,0.9,0.1,0.2,1,gradcam grabcut,/pictures/p0.png\n"


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
