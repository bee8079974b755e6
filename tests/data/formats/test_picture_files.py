import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hsl.data.formats.findings import Findings
from hsl.data.formats.folder import read_pictures
from hsl.data.formats.picture_files import find_pictures, look_through
from hsl.errors import DataError
from hsl.files.output_folder import MARKER


def draw(path: Path, kind: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path, kind)
    return path


def test_what_is_not_read_is_counted_by_reason(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "b.avif").touch()
    (tmp_path / "c.AVIF").touch()
    draw(tmp_path / "scan", "JPEG")
    draw(tmp_path / "odd.dat", "TIFF")
    draw(tmp_path / "more" / "deep" / "d.png")
    draw(tmp_path / "more" / "e.HEIC")
    (tmp_path / "f.jxl").write_bytes(b"")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "readme.txt").write_text("BM is no bitmap")
    (tmp_path / "empty").mkdir()
    pictures, rest = look_through(tmp_path)
    assert pictures == [tmp_path / "a.png"]
    assert str(rest) == (
        "10 not read: 2 avif, 1 broken link, 1 dat, 2 in a sub-folder, 1 jxl, 1 that is no regular file, "
        "1 without a suffix, 1 that is no picture"
    )
    assert (
        rest.way_out == "Point to the sub-folder or write a pattern (`**/{id}`), remove what is no file "
        "and convert the others to PNG."
    )


def test_what_file_managers_and_hsl_leave_is_passed_over(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._a.png"):
        (tmp_path / name).write_bytes(b"\x89PNG\r\n")
    for folder in (".ipynb_checkpoints", "__MACOSX", "predicted/masks"):
        draw(tmp_path / folder / "a.png")
    (tmp_path / "predicted" / MARKER).write_text("{}")
    _, rest = look_through(tmp_path)
    assert (dict(rest.pictures), rest.num_others) == ({}, 0)


@pytest.mark.parametrize("name", ["a.PNG", "b.tif", "c d#%$.jpg"])
def test_one_file_is_an_input(tmp_path: Path, name: str) -> None:
    path = draw(tmp_path / name, {"PNG": "PNG", "tif": "TIFF", "jpg": "JPEG"}[name[-3:]])
    (tmp_path / "link.png").symlink_to(path)
    for given in (path, tmp_path / "link.png"):
        (record,), rest = read_pictures(given)
        assert (record.id, record.image.read(), rest.pictures.total()) == (given.stem, path.read_bytes(), 0)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("folder/text.txt", "should be a picture (.png"),
        ("nowhere", "does not exist. Correct the path"),
        ("foldr", "Did you mean"),
        ("nowhere.png", "should be a picture, or a folder of pictures. Found nothing. Correct the path"),
        ("pipe", "should be a folder. Found a file, or something else"),
        ("pipe.png", "should be a picture, or a folder of pictures. Found something else. Correct the path"),
        ("gone", "should be a file or folder. Found a link to nothing. Restore what it points to"),
        ("links", "holds no picture (1 not read: 1 broken link; remove what is no file). Put"),
        ("empty", "holds no picture. Put some there"),
        (
            "set",
            "1 in a sub-folder; point to the sub-folder or write a pattern (`**/{id}`)). Put",
        ),
        ("gifs", "holds no picture (2 not read: 2 avif; convert the files to PNG). Put"),
    ],
)
def test_an_input_without_pictures(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "text.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    for pipe in ("pipe", "pipe.png"):
        os.mkfifo(tmp_path / pipe)
    (tmp_path / "links").mkdir()
    for link in ("gone", "links/a.png"):
        (tmp_path / link).symlink_to(tmp_path / "lost")
    draw(tmp_path / "set" / "images" / "a.png")
    for each in "ab":
        (tmp_path / "gifs").mkdir(exist_ok=True)
        (tmp_path / "gifs" / f"{each}.avif").touch()
    with pytest.raises(DataError) as error:
        read_pictures(tmp_path / name)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["a.png", "A.png"],
            "differ in more than upper and lower case, as some disks keep only one. Alike are `A.png and a.png`",
        ),
        (["Straße.png", "STRASSE.png"], "upper and lower case"),
        (["\u00e4.png", "a\u0308.png"], "should differ before the suffix"),
        (["a.png", "a.PNG"], "should differ before the suffix"),
    ],
)
def test_names_that_a_disk_may_confuse(tmp_path: Path, names: list[str], said: str) -> None:
    for name in names:
        draw(tmp_path / name)
    findings = Findings()
    find_pictures(tmp_path, findings)
    assert len(findings.sentences) == 1
    assert said in findings.sentences[0]


@pytest.mark.parametrize("one_file", [False, True])
def test_a_name_that_is_no_utf8_is_told(tmp_path: Path, one_file: bool) -> None:
    name = os.fsdecode(b"p\xff.png")
    draw(tmp_path / "a.png").rename(tmp_path / name)
    with pytest.raises(DataError) as error:
        read_pictures(tmp_path / name if one_file else tmp_path)
    assert f"Names in `{tmp_path}` should be UTF-8. Not so are `p\\udcff.png`. Rename them" in str(error.value)
    (tmp_path / name).rename(tmp_path / "p\u00ff.png")
    assert [record.id for record in read_pictures(tmp_path)[0]] == ["p\u00ff"]


def test_nothing_found_raises_nothing():
    findings = Findings()
    findings.add_names([], "Broken are", "Mend them.")
    findings.raise_if_any(Path("root"))


def test_one_finding_is_the_whole_message():
    findings = Findings()
    findings.add("`a` is broken. Correct it.")
    with pytest.raises(DataError) as error:
        findings.raise_if_any(Path("root"))
    assert str(error.value) == "`a` is broken. Correct it."


def test_several_findings_are_raised_together():
    findings = Findings()
    findings.add("`a` is broken. Correct it.")
    findings.add_names(["b", "c"], "Lost are", "Find them.")
    with pytest.raises(DataError) as error:
        findings.raise_if_any(Path("root"))
    assert str(error.value) == "`root` has 2 faults:\n- `a` is broken. Correct it.\n- Lost are `b`, `c`. Find them."


def test_the_first_names_are_shown_and_the_rest_counted():
    findings = Findings()
    findings.add_names([str(number) for number in (0, 0, 1, 2, 3, 4, 5, 6, 7)], "Lost are", "Find them.")
    assert findings.sentences == ["Lost are `0`, `1`, `2`, `3`, `4` and 3 more. Find them."]
