"""A file is the old one or the new one, no name leads out of its folder, and a formula in a name stays text."""

import csv
import io
import math
import os
import random
import re
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsl.errors import ConfigError, DataError
from hsl.files.cells import csv_of, neutral, neutral_row, original, original_rows
from hsl.files.io import check_archive, read_arrays, read_bytes, read_json, write_arrays, write_atomically
from hsl.files.names import below, check_names, file_name, is_below, leaves_folder

ARRAYS = {"ids": np.array(["a", "bé"]), "counts": np.arange(12).reshape(3, 4), "nll": np.ones(2)}
OUTSIDE = ["../../x", "..", "a/../../x", "/etc/x", "a//b", "/", "a/", "", " ", ".", "./a", "a/.", ".hidden", "a.",
           "a /b", "a\\b", "..\\x", "a\0b", "a\nb", "a\x1b[31mb", "a\u202eb", "x" * 300, "ä" * 150]  # fmt: skip
FORMULAS = ["=1+1", "=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "-", "+", "=", "-a",
            "＝1", "'=1", "''@x", "+-1", "-1e", "- 1", "-inf", "-1_0", "-١"]  # fmt: skip
PLAIN = ["-0.5", "+3", "-1e-5", "-.5", "1", "leaf", "a=b", "", " =1", "'", "'quoted'", "'-0.5", "x@y"]


def test_it_writes_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_atomically(tmp_path / "deep" / "file", b"new")
    assert (tmp_path / "deep" / "file").read_bytes() == b"new"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["file"]


def test_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"x" * 1000)
    tracemalloc.start()
    assert len(read_bytes(tmp_path / "small")) == 1000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(target, b"new")
    assert str(caught.value) == f"[Errno 28] No space left on device: {str(target)!r}"
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is missing"),
        (b'{"a": 1', "is not valid JSON"),
        (b"[1]", "should be a JSON object"),
        (b"\xff", "cannot be read"),
    ],
)
def test_a_damaged_page_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    page = tmp_path / "page.json"
    if content is not None:
        page.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read_json(page)
    assert f"`{page}`" in str(caught.value)


def changed_bytes(whole: bytes) -> Iterator[bytes]:
    """The content with one byte changed: every tenth, and all of the directory at its end."""
    draw = random.Random(0)
    directory = whole.index(b"PK\x01\x02")
    for place in [*range(0, directory, 10), *range(directory, len(whole))]:
        yield whole[:place] + bytes([whole[place] ^ draw.randrange(1, 256)]) + whole[place + 1 :]


def test_arrays_with_a_changed_byte_are_the_same_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    write_arrays(path, ARRAYS)
    told = 0
    for content in changed_bytes(path.read_bytes()):
        path.write_bytes(content)
        try:
            read = read_arrays(path, tuple(ARRAYS))
        except DataError as error:
            told += str(error).startswith(f"`{path}` ")
            continue
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(read[name], array, strict=True)
    assert told > 100


def test_a_part_that_the_directory_of_an_archive_no_longer_names(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    write_arrays(path, ARRAYS)
    whole = bytearray(path.read_bytes())
    first, second, third = (found.start() for found in re.finditer(b"PK\x01\x02", whole))
    whole[first + 32 : first + 34] = (third - second).to_bytes(2, "little")  # the comment swallows the next entry
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"damaged: it should have 3 parts\. Found 2"):
        check_archive(path)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"ids": ARRAYS["ids"]}, "should hold the array `nll`"),
        ({"nll": np.array([{"code": 1}], dtype=object)}, "cannot be read as arrays: Object arrays cannot be loaded"),
    ],
)
def test_arrays_that_are_missing_or_code(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    np.savez(tmp_path / "arrays.npz", **arrays)
    with pytest.raises(DataError, match=said):
        read_arrays(tmp_path / "arrays.npz", ["nll"])


@pytest.mark.parametrize(
    "content", [b"no array", b"\x93NUMPY\x01\x00\x05\x00{((\n\n", b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f8'}\n"]
)
def test_a_part_that_is_no_array(tmp_path: Path, content: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "arrays.npz", "w") as archive:
        archive.writestr("nll.npy", content)
    with pytest.raises(DataError, match=r"should hold the array|cannot be read as arrays"):
        read_arrays(tmp_path / "arrays.npz", ["nll"])


@pytest.mark.parametrize("name", OUTSIDE, ids=repr)
@pytest.mark.parametrize("key", ["name", "inference_name", "callbacks.evaluation.inference"])
def test_a_name_that_is_no_folder_inside_is_refused(name: str, key: str) -> None:
    content = {"callbacks": {"evaluation": {"inference": name}}} if "." in key else {key: name}
    with pytest.raises(ConfigError, match=f"`{key}` should be plain names of folders") as caught:
        check_names({"monitor": "val/miou", **content})
    assert f"Found `{key} = {name}`" in str(caught.value)


@pytest.mark.parametrize("name", ["leaf", "steel/mit_b0", "Größe 3", "segmentation-mit_b0", "a.b", "v1.2/b", "日本"])
def test_names_that_are(name: str) -> None:
    check_names({"monitor": "val/miou", "name": name, "callbacks": {"history": None, "x": {"inference": "tta"}}})


def test_only_the_name_of_a_run_has_several_parts() -> None:
    with pytest.raises(ConfigError, match="`name`"):
        check_names({"name": "a/b"})
    with pytest.raises(ConfigError, match="`inference_name`"):
        check_names({"monitor": "val/miou", "name": "a/b", "inference_name": "a/b"})


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "link/x", "file_link", "a\0b", "circle"])
def test_a_name_of_data_does_not_leave_its_folder(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret").touch()
    (inside / "link").symlink_to(tmp_path)
    (inside / "file_link").symlink_to(tmp_path / "secret")
    (inside / "circle").symlink_to(inside / "circle")
    if name != "circle":  # which leads nowhere
        with pytest.raises(DataError, match="should name a file below"):
            below(inside, name)
    assert not (is_below(inside, inside / name) and (inside / name).exists())


def test_a_name_inside_stays(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "moved").symlink_to(tmp_path / "a")
    moved = tmp_path / "moved"
    assert below(moved, "b/../c.png") == moved / "b/../c.png"
    assert not leaves_folder("b/c.png")


def test_two_ids_have_two_files() -> None:
    names = ["a/b", "a b", "a-b", "..", "../x", "a\0", "ü", "\udcff", "x" * 100, "x" * 101]
    files = [file_name(name) for name in names]
    assert len(set(files)) == len(names)
    assert not any(set(file) & set("/\\\0") for file in files)


@pytest.mark.parametrize("text", FORMULAS, ids=repr)
def test_a_formula_is_neutral_and_comes_back(text: str) -> None:
    assert neutral(text) == f"'{text}"
    assert original(neutral(text)) == text


@pytest.mark.parametrize("text", PLAIN, ids=repr)
def test_other_text_stays(text: str) -> None:
    assert neutral(text) == original(text) == text


@pytest.mark.parametrize("value", [-0.5, -3, None, True, math.nan, np.float32(-0.1)])
def test_numbers_stay_numbers(value: object) -> None:
    assert neutral(value) is value


@given(st.text(alphabet="'=+-@\t\r\n1.e a＝"))
def test_every_text_comes_back(text: str) -> None:
    assert original(neutral(text)) == text
    assert not neutral(text).startswith(("=", "@", "\t", "\r", "\n"))


def test_a_frame_changes_nothing_but_formulas() -> None:
    frame = pd.DataFrame({
        "id": ["=a", "b", None],
        "x": np.array([-0.1, 2, math.nan], np.float32),
        "n": [-1, 2, 3],
        "mixed": ["-x", -1.5, None],
        "kind": pd.Categorical(["@a", "b", "@a"]),
        "=name": [True, False, True],
    })  # fmt: skip
    assert csv_of(frame[["x", "n"]]) == frame[["x", "n"]].to_csv(index=False)
    rows = original_rows(csv.DictReader(io.StringIO(csv_of(frame), newline="")))
    assert [row["id"] for row in rows] == ["=a", "b", ""]
    assert [row["mixed"] for row in rows] == ["-x", "-1.5", ""]
    assert [row["kind"] for row in rows] == ["@a", "b", "@a"]
    assert list(rows[0]) == list(frame.columns)
    assert "\n=" not in csv_of(frame)
    assert ",=" not in csv_of(frame)


def test_frames_that_were_joined() -> None:
    joined = pd.concat([pd.DataFrame({"id": ["=a"]}), pd.DataFrame({"id": ["=b"]})])
    assert csv_of(joined).splitlines() == ["id", "'=a", "'=b"]
    assert csv_of(pd.DataFrame()) == pd.DataFrame().to_csv(index=False)


def test_rows_of_a_writer() -> None:
    text = io.StringIO()
    table = csv.DictWriter(text, ["a", "b"])
    table.writeheader()
    table.writerow(neutral_row({"a": "=1", "b": -2}))
    assert text.getvalue().splitlines()[1] == "'=1,-2"
