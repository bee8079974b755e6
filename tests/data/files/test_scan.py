import errno
import io
import logging
import multiprocessing
import os
import pickle
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hsl.data.files import scan as module
from hsl.data.files.records import Catalogue, FileSource, Record, select
from hsl.data.files.scan import Scan, scan
from hsl.errors import ConfigError, DataError
from hsl.files.io import write_arrays


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    folder = tmp_path / "data"
    folder.mkdir()
    generator = np.random.default_rng(0)
    records = []
    for i in range(6):
        image, mask = folder / f"p{i}.png", folder / f"p{i}_mask.png"
        image.write_bytes(png(generator.integers(0, 256, (16 + i, 20), dtype=np.uint8)))
        mask.write_bytes(png(generator.integers(0, 3, (16 + i, 20), dtype=np.uint8)))
        source = FileSource(mask) if i != 4 else None
        records.append(Record(f"p{i}", FileSource(image), source, None, {}, None))
    return Catalogue("test", tuple(records), ("clean", "a", "b"))


@pytest.fixture
def read_ids(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the records that are really read from now on."""
    ids: list[str] = []
    original = module.read_records

    def spy(title, records, how, workers):  # type: ignore[no-untyped-def]
        ids.extend(record.id for record in records)
        return original(title, records, how, workers)

    monkeypatch.setattr(module, "read_records", spy)
    return ids


def assert_same(one: Scan, other: Scan) -> None:
    assert (one.ids, one.content, one.mask_content) == (other.ids, other.content, other.mask_content)
    assert dict(one.errors) == dict(other.errors)
    for name in ("image_sizes", "mask_sizes", "class_counts", "thumbnails"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype


def test_rows_follow_the_catalogue(catalogue: Catalogue) -> None:
    found = scan(catalogue, None, 0)
    assert found.ids == ("p0", "p1", "p2", "p3", "p4", "p5")
    assert found.image_sizes.tolist() == [[16 + i, 20] for i in range(6)]
    assert found.mask_sizes[4].tolist() == [0, 0]
    assert found.class_counts.shape == (6, 256)
    assert found.class_counts.sum(axis=1).tolist() == [320, 340, 360, 380, 0, 420]
    assert (found.thumbnails.shape, found.thumbnails.dtype) == ((6, 64, 64), np.uint8)
    assert found.errors == {}
    assert found.rows(["p5", "p0"]).tolist() == [5, 0]


def test_a_second_call_reads_nothing(catalogue: Catalogue, tmp_path: Path, read_ids: list[str]) -> None:
    first = scan(catalogue, tmp_path / "cache", 0)
    assert len(read_ids) == 6
    second = scan(catalogue, tmp_path / "cache", 0)
    assert len(read_ids) == 6
    assert_same(first, second)
    assert_same(first, scan(catalogue, None, 0))


def test_a_changed_picture_or_mask_is_read_anew_and_no_other(
    catalogue: Catalogue, tmp_path: Path, read_ids: list[str]
) -> None:
    scan(catalogue, tmp_path / "cache", 0)
    del read_ids[:]
    image, mask = Path(catalogue.records[1].image.name), Path(catalogue.records[3].mask.name)
    image.write_bytes(png(np.zeros((5, 5), np.uint8)))
    status = mask.stat()
    mask.write_bytes(png(np.full((19, 20), 2, np.uint8)))
    os.utime(mask, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    found = scan(catalogue, tmp_path / "cache", 0)
    assert read_ids == ["p1", "p3"]
    assert_same(found, scan(catalogue, None, 0))
    assert found.image_sizes[1].tolist() == [5, 5]
    assert found.class_counts[3, 2] == 380


def test_pictures_come_and_go(catalogue: Catalogue, tmp_path: Path, read_ids: list[str]) -> None:
    fewer = replace(catalogue, records=catalogue.records[:4])
    scan(fewer, tmp_path / "cache", 0)
    del read_ids[:]
    assert_same(scan(catalogue, tmp_path / "cache", 0), scan(catalogue, None, 0))
    assert read_ids[:2] == ["p4", "p5"]
    scan(fewer, tmp_path / "cache", 0)
    assert len(read_ids) == 2 + 6
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 1


@pytest.mark.parametrize("change", [{"palette": {(0, 0, 0): 0}}, {"value_range": (0.0, 9.0)}, {"ignore_index": 2}])
def test_another_way_to_decode_reads_anew(
    catalogue: Catalogue, tmp_path: Path, read_ids: list[str], change: dict[str, object]
) -> None:
    scan(catalogue, tmp_path / "cache", 0)
    del read_ids[:]
    other = scan(replace(catalogue, **change), tmp_path / "cache", 0)
    assert len(read_ids) == 6
    if "ignore_index" in change:
        assert other.class_counts[:, 2].sum() == 0 < other.class_counts[:, 255].sum()


def test_a_mask_taken_away_is_noticed(catalogue: Catalogue, tmp_path: Path) -> None:
    scan(catalogue, tmp_path / "cache", 0)
    records = tuple(replace(record, mask=None) for record in catalogue.records)
    assert scan(replace(catalogue, records=records), tmp_path / "cache", 0).class_counts.sum() == 0


def test_all_broken_files_are_named_and_a_repaired_one_is_read(catalogue: Catalogue, tmp_path: Path) -> None:
    good = Path(catalogue.records[2].image.name).read_bytes()
    Path(catalogue.records[2].image.name).write_bytes(good[:60])
    Path(catalogue.records[5].mask.name).unlink()
    found = scan(catalogue, tmp_path / "cache", 0)
    assert sorted(found.errors) == ["p2", "p5"]
    assert "p2.png" in found.errors["p2"]
    assert "p5_mask.png" in found.errors["p5"]
    assert found.content[5] != ""
    assert scan(catalogue, tmp_path / "cache", 0).errors == found.errors
    Path(catalogue.records[2].image.name).write_bytes(good)
    assert sorted(scan(catalogue, tmp_path / "cache", 0).errors) == ["p5"]


def test_a_damaged_store_is_made_anew(catalogue: Catalogue, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = scan(catalogue, tmp_path / "cache", 0)
    (path,) = (tmp_path / "cache").glob("*.npz")
    for damaged in (b"", path.read_bytes()[:-100], b"PK\x03\x04 no archive"):
        path.write_bytes(damaged)
        with caplog.at_level(logging.WARNING):
            assert_same(first, scan(catalogue, tmp_path / "cache", 0))
        assert str(path) in caplog.text
        caplog.clear()
    scan(catalogue, tmp_path / "cache", 0)
    assert caplog.text == ""


def test_a_store_of_another_version_is_made_anew(catalogue: Catalogue, tmp_path: Path) -> None:
    first = scan(catalogue, tmp_path / "cache", 0)
    (path,) = (tmp_path / "cache").glob("*.npz")
    with np.load(path) as stored:
        columns = {name: stored[name] for name in stored.files}
    write_arrays(path, {**columns, "numbers": columns["numbers"][:, :-1]})  # it measured one thing less
    assert_same(first, scan(catalogue, tmp_path / "cache", 0))


def test_two_at_once(catalogue: Catalogue, tmp_path: Path, read_ids: list[str]) -> None:
    found: list[Scan] = []
    threads = [threading.Thread(target=lambda: found.append(scan(catalogue, tmp_path / "cache", 0))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    for other in found:
        assert_same(found[0], other)
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".lock", ".npz"]
    assert len(read_ids) == 6  # by the first; the others wait


def test_a_reader_killed_is_not_waited_for_and_locks_may_be_missing(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed() -> None:
        monkeypatch.setattr(module, "read_records", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        scan(catalogue, tmp_path / "cache", 0)

    process = multiprocessing.get_context("fork").Process(target=killed)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert_same(scan(catalogue, tmp_path / "cache", 0), scan(catalogue, None, 0))

    def no_locks(path: Path) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(module, "try_lock", no_locks)
    assert_same(scan(catalogue, tmp_path / "other", 0), scan(catalogue, None, 0))


def test_data_sets_of_one_name_do_not_share_a_file(catalogue: Catalogue, tmp_path: Path) -> None:
    other = replace(catalogue, records=catalogue.records[1:])
    scan(catalogue, tmp_path / "cache", 0)
    assert_same(scan(other, tmp_path / "cache", 0), scan(other, None, 0))
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 2


def test_an_interrupted_scan_writes_nothing(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = module.read_records

    def interrupted(title, records, how, workers):  # type: ignore[no-untyped-def]
        yield from original(title, records[:3], how, workers)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "read_records", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scan(catalogue, tmp_path / "cache", 0)
    assert not list((tmp_path / "cache").glob("*.npz"))


def test_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"`empty` should hold pictures. Found none. Check `data.root`."):
        scan(Catalogue("empty", (), ("a", "b")), tmp_path, 0)


def test_a_file_source_reads_the_bytes_as_they_are(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"\x00\xff\r\n")
    assert FileSource(path).read() == b"\x00\xff\r\n"
    assert FileSource(path).name == str(path)


def test_the_stamp_stays_while_the_file_does_and_changes_with_it(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"1234")
    os.utime(path, ns=(0, 1_000_000_007))
    stamp = FileSource(path).stamp()
    assert FileSource(path).stamp() == stamp
    os.utime(path, ns=(0, 1_000_000_008))
    later = FileSource(path).stamp()
    path.write_bytes(b"12345")
    os.utime(path, ns=(0, 1_000_000_007))
    longer = FileSource(path).stamp()
    path.write_bytes(b"54321")
    os.utime(path, ns=(0, 1_000_000_007))  # nothing but the bytes differs, as after `cp -p`
    assert len({stamp, later, longer, FileSource(path).stamp()}) == 4


@pytest.mark.parametrize("use", [FileSource.read, FileSource.stamp])
def test_a_missing_file_is_named(tmp_path, use):
    path = tmp_path / "gone.png"
    with pytest.raises(DataError, match=r"gone\.png.*No such file"):
        use(FileSource(path))


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        FileSource(tmp_path).read()


def test_a_catalogue_travels_to_another_process(tmp_path):
    record = Record("a", FileSource(tmp_path / "a.png"), None, None, {"group": "g"}, "train")
    catalogue = Catalogue("set", (record,), ("clean", "crack"), {(0, 0, 0): 0}, (0.0, 1.0), 7)
    assert pickle.loads(pickle.dumps(catalogue)) == catalogue


def test_defaults_mean_index_masks_and_255():
    catalogue = Catalogue("set", (), ("clean", "crack"))
    assert (catalogue.palette, catalogue.value_range, catalogue.ignore_index) == (None, None, 255)


def test_a_selection_by_attributes() -> None:
    rows = {"a": {"label": "x", "site": "1"}, "b": {"label": "y", "site": "1"}, "c": {"label": "y"}, "d": {}}
    source = FileSource(Path("p.png"))
    records = tuple(Record(name, source, None, None, attributes, None) for name, attributes in rows.items())
    catalogue = Catalogue("data", records, ("background", "crack"))

    def ids(**only: Any) -> str:
        return "".join(record.id for record in select(catalogue, only).records)

    assert ids() == "abcd"
    assert ids(label="y") == ids(label=["y"]) == "bc"
    assert ids(label=["x", "y"]) == "abc"
    assert ids(site=1) == "ab"  # YAML makes a number of it
    assert ids(label="y", site=[1]) == "b"
    with pytest.raises(ConfigError, match=r"`data\.only\.label`.*Found \['z'\].*\['x', 'y'\]"):
        ids(label=["x", "z"])
    with pytest.raises(ConfigError, match=r"`data\.only` should name attributes.* Found `colour`.*\['label', 'site'\]"):
        ids(colour="red")
    with pytest.raises(ConfigError, match=r"Found `lable`\. Did you mean `label`\?"):
        ids(lable="x")
    rows["a"]["site"] = "2"
    with pytest.raises(ConfigError, match="leaves no picture"):
        ids(label="y", site=2)
