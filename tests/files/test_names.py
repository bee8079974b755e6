"""No name leads out of the folder that is meant for it."""

from pathlib import Path

import pytest

from hsl.errors import ConfigError, DataError
from hsl.files.names import below, check_names, file_name, is_below, leaves_folder

OUTSIDE = ["../../x", "..", "a/../../x", "/etc/x", "a//b", "/", "a/", "", " ", ".", "./a", "a/.", ".hidden", "a.",
           "a /b", "a\\b", "..\\x", "a\0b", "a\nb", "a\x1b[31mb", "a\u202eb", "x" * 300, "ä" * 150]  # fmt: skip


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
