"""What an ensemble keeps of a run: written piece by piece, complete or not there."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from hsl.errors import DataError
from hsl.run_folder import member_rows
from hsl.run_folder.member_rows import KeptRows, RowsWriter, checkpoint_sha256, read_features, read_kept, read_map

IDS = ["b", "a", "site 1/c"]
FEATURES = {name: np.arange(4, dtype=np.float32) + i for i, name in enumerate(IDS)}
MAPS = {name: np.random.default_rng(i).dirichlet([0.3] * 3, (5, 4)).transpose(2, 0, 1) for i, name in enumerate(IDS)}


def settings(**changes: object) -> KeptRows:
    return KeptRows(**{"checkpoint": "abc", "inference": "plain", "classes": ["x", "y", "z"], **changes})


def fill(run: Path, *, maps: bool = True, part: str = "val", kept: KeptRows | None = None) -> RowsWriter:
    writer = RowsWriter(run, kept or settings())
    writer.begin(part)
    for name in IDS:
        if writer.lacks_features(name):
            writer.add_features(name, FEATURES[name])
        if maps and writer.lacks_map(name):
            writer.add_map(name, MAPS[name])
    writer.finish(IDS, maps)
    return writer


def test_there_and_back(tmp_path: Path) -> None:
    assert fill(tmp_path).is_complete("val", maps=True)
    assert list(read_features(tmp_path, "val")) == IDS
    for name in IDS:
        assert read_features(tmp_path, "val")[name].tolist() == FEATURES[name].tolist()
        assert np.abs(read_map(tmp_path, "val", name) / 255 - MAPS[name]).max() <= 1 / 510 + 1e-12
    with pytest.raises(DataError, match=r"should hold the rows of the part test. Found none"):
        read_features(tmp_path, "test")
    fill(tmp_path, part="test")
    assert read_kept(tmp_path).parts.keys() == {"val", "test"}


def test_maps_can_come_later(tmp_path: Path) -> None:
    writer = fill(tmp_path, maps=False)
    assert writer.is_complete("val", maps=False)
    assert not writer.is_complete("val", maps=True)
    assert not list(tmp_path.rglob("maps"))
    again = RowsWriter(tmp_path, settings())
    again.begin("val")
    assert not any(map(again.lacks_features, IDS))
    assert all(map(again.lacks_map, IDS))
    assert fill(tmp_path).is_complete("val", maps=True)


@pytest.mark.parametrize("change", [{"checkpoint": "def"}, {"inference": "tta"}, {"classes": ["x", "y", "w"]}])
def test_what_was_made_otherwise_is_made_anew(tmp_path: Path, change: dict[str, object]) -> None:
    fill(tmp_path)
    writer = RowsWriter(tmp_path, settings(**change))
    assert not writer.is_complete("val", maps=False)
    writer.begin("val")
    assert all(writer.lacks_map(name) and writer.lacks_features(name) for name in IDS)
    assert read_kept(tmp_path).parts == {}


def test_files_of_another_version_and_damaged_ones_are_made_anew(tmp_path: Path) -> None:
    fill(tmp_path)
    page = tmp_path / "rows" / "rows.json"
    for text in (page.read_text().replace('"version": 1', '"version": 0'), "{", "[]"):
        page.write_text(text)
        assert read_kept(tmp_path) is None
        assert not RowsWriter(tmp_path, settings()).is_complete("val", maps=False)
        fill(tmp_path)
    (tmp_path / "rows" / "features_val.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="is damaged"):
        read_features(tmp_path, "val")
    writer = RowsWriter(tmp_path, settings())
    writer.begin("val")
    assert all(map(writer.lacks_features, IDS))


@pytest.mark.parametrize("last", range(5))
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    """The pass is stopped at every file that it writes, and goes on to the same end."""
    monkeypatch.setattr(member_rows, "FLUSH_S", 0.0)
    fill(tmp_path / "whole")
    written = []

    def full(handle: int) -> None:
        written.append(handle)
        if len(written) > last:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left on device") as caught:
            fill(tmp_path / "run")
    assert str(caught.value.filename).startswith(str(tmp_path / "run"))
    assert not list((tmp_path / "run").rglob("*.partial"))
    kept = read_kept(tmp_path / "run")
    assert kept is None or kept.parts == {}
    fill(tmp_path / "run")
    names = [sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*"))
             for root in (tmp_path / "whole", tmp_path / "run")]  # fmt: skip
    assert names[0] == names[1]
    for name in names[0]:
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_the_folder_of_a_stranger_leads_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "rows").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="leaves it"):
        RowsWriter(tmp_path / "run", settings())


def test_the_hash_names_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"best\.ckpt` is missing"):
        checkpoint_sha256(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").write_bytes(b"weights")
    assert len(checkpoint_sha256(tmp_path)) == 64
