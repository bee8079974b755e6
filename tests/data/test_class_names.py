from pathlib import Path

import pytest

from hsl.batch import UNKNOWN_LABEL
from hsl.data.class_names import unfit_names
from hsl.data.files.records import FileSource, Record
from hsl.data.formats.description import describe
from hsl.data.formats.findings import Findings
from hsl.data.labels.image_labels import read_image_labels
from hsl.errors import DataError

UNFIT = [
    ("", "should have a name"),
    ("  ", "should have a name"),
    ("a\nb", "Found `a\\nb`"),
    ("a\x1b[31m", "letters that can be seen"),
    ("a\u202eb", "letters that can be seen"),
    ("a\u200b", "letters that can be seen"),
    ("\u200d", "Found `\\u200d`"),
    ("\u0301", "Found `\\u0301`"),
    ("\u3164", "Found `\\u3164`"),
    ("crack\u2800", "letters that can be seen"),
    (" crack", "no blanks around it"),
    ("x" * 101, "at most 100 letters"),
    ("Ignore", "does not count|do not count"),
    ("BACKGROUND", "upper and lower case"),
]


@pytest.mark.parametrize(("name", "said"), UNFIT)
def test_names_that_cannot_be_shown_are_refused_before_anything_is_read(name: str, said: str) -> None:
    assert len(unfit_names(["background", name])) == 1
    findings = Findings()
    assert describe({"classes": ["background", name]}, "dataset.yaml", findings).classes == ()
    assert len(findings.sentences) == 1
    assert any(word in findings.sentences[0] for word in said.split("|"))
    assert "\n" not in findings.sentences[0]


@pytest.mark.parametrize(
    "name",
    [
        "$x$",
        "a$",
        "\\alpha",
        "<b>",
        "a&b",
        "a_b^c",
        "50 %",
        "{x}",
        '"q"',
        "it's",
        "a/b",
        "#",
        "~",
        "裂缝",
        "شق",
        "👩‍🔬",
        "mean",
    ],
)
def test_other_names_are_shown_as_they_are(name: str) -> None:
    findings = Findings()
    assert describe({"classes": ["background", name]}, "here", findings).classes == ("background", name)
    assert findings.sentences == []


def records(*labels: str) -> list[Record]:
    return [Record(str(i), FileSource(Path("a")), None, None, {"label": text}, None) for i, text in enumerate(labels)]


def test_labels_of_pictures_are_names_of_classes_too() -> None:
    for labels in (("rust", "Rust"), ("rust", "a\u202eb")):
        with pytest.raises(DataError, match=r"Column `label`: .*Found"):
            read_image_labels("label", records(*labels))
    assert UNKNOWN_LABEL not in read_image_labels("label", records("rust", "$x$")).values
