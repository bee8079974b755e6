"""Which pictures the page of an ensemble shows as errors, and what it says of them."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from hsl.ensembles.rows import Rows
from hsl.errors import DataError
from hsl.verbs.ensemble.showing import error_pictures
from hsl.verbs.ensemble.showing.error_pictures import error_sections

CLASSES = ("healthy", "miner", "rust")


def rows_of(answers: dict[str, str], labels: str, several: bool = False, groups: str = "") -> Rows:
    """Answers of each member to each picture: ``h``, ``m`` or ``r``, capital where it is sure."""
    letters = "hmr"

    def told(letter: str) -> np.ndarray:
        sure = 0.9 if letter.isupper() else 0.5
        values = np.full(3, (1 - sure) / 2)
        values[letters.index(letter.lower())] = sure
        return values

    truth = np.array([letters.find(letter) for letter in labels])
    return Rows.sorted(
        ids=[f"p{i:02}" for i in range(len(labels))], groups=list(groups or map(str, range(len(labels)))),
        contents=list(labels),
        labels=np.eye(3)[truth] if several else truth, classes=CLASSES, several=several, members=list(answers),
        probabilities=[[told(letter) for letter in each] for each in answers.values()], folds=[0] * len(labels),
    )  # fmt: skip


def grey(name: str) -> np.ndarray:
    del name
    return np.full((40, 20, 3), 99, np.uint8)


def test_each_kind_of_error_has_its_pictures() -> None:
    rows = rows_of({"a": "hmHhh", "b": "hhMrh", "c": "rhHrr"}, "hhrr?")
    every, right, wrong = error_sections(rows, grey)
    assert (every.title, right.title, wrong.title) == tuple(error_pictures.KINDS.values())
    assert [view.title for view in every.views] == ["p02: is rust; said healthy × 2; miner"]
    assert every.text == "1 of 4 pictures."
    assert right.text == "None of 4 pictures."
    assert not right.views
    assert [view.title for view in wrong.views] == [
        "p00: is healthy; c alone says rust",
        "p01: is healthy; a alone says miner",
        "p03: is rust; a alone says healthy",
    ]
    uri = wrong.views[0].uri or ""
    assert uri.startswith("data:image/jpeg;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size == (160, 320)
    (found,) = error_sections(rows_of({"a": "hm", "b": "mm", "c": "mm"}, "hm"), grey)[1].views
    assert found.title == "p00: is healthy; a alone says so, against miner × 2"


def test_the_least_likely_come_first_and_their_number_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_pictures, "SHOWN", 2)
    rows = rows_of({"a": "mMmm", "b": "rRRr"}, "hhhh")
    every, one = error_sections(rows, grey)  # of two members one is right where the other is wrong
    assert [view.title[:3] for view in every.views] == ["p01", "p02"]
    assert every.text == f"4 of 4 pictures. 2 of them are shown. {error_pictures.ORDER}"
    assert one.title == "One member alone is right"
    assert len(error_sections(rows.of_members(["a"]), grey)) == 1
    twins = rows_of({"a": "mMmm", "b": "rRRr"}, "hhhh", groups="xyyz")  # p02 looks like p01
    assert [view.title[:3] for view in error_sections(twins, grey)[0].views] == ["p01", "p00"]


def test_a_picture_that_cannot_be_read_is_a_gap_with_the_reason() -> None:
    def lost(name: str) -> np.ndarray:
        raise DataError(f"`{name}.png` should be a picture. Found no file.\nMore.")

    (view,) = error_sections(rows_of({"a": "m", "b": "m"}, "h"), lost)[0].views
    assert view.uri is None
    assert view.alt == "the picture could not be read: `p00.png` should be a picture. Found no file."


def test_of_several_classes_every_one_is_named() -> None:
    rows = rows_of({"a": "M", "b": "h"}, "h", several=True)
    (view,) = error_sections(rows, grey)[1].views
    assert view.title == "p00: is healthy; b alone says so, against miner"
