import hashlib
import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hsl.data.files import reading
from hsl.data.files.decoding import Decoding
from hsl.data.files.reading import make_thumbnail, read_record, read_records
from hsl.data.files.records import FileSource, Record

PLAIN = Decoding(palette=None, value_range=None, ignore_index=255)


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def write_record(folder: Path, name: str, image: bytes, mask: bytes | None) -> Record:
    (folder / f"{name}.png").write_bytes(image)
    if mask is not None:
        (folder / f"{name}_mask.png").write_bytes(mask)
    source = None if mask is None else FileSource(folder / f"{name}_mask.png")
    return Record(name, FileSource(folder / f"{name}.png"), source, None, {}, None)


def records_on_disk(folder: Path, number: int) -> list[Record]:
    generator = np.random.default_rng(0)
    records = []
    for i in range(number):
        size = (20 + i, 30)
        image = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
        mask = generator.choice(np.array([0, 1, 2, 255], np.uint8), size)
        records.append(write_record(folder, f"p{i:03d}", png(image), png(mask)))
    return records


def test_a_record_is_read_as_its_parts_say(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 41, 3), dtype=np.uint8)
    mask = np.zeros((30, 41), np.uint8)
    mask[:2], mask[5, 7], mask[6, :3] = 255, 4, 200
    found = read_record(write_record(tmp_path, "a", png(image), png(mask)), PLAIN)
    assert found.content == hashlib.sha256(png(image)).hexdigest()
    assert found.mask_content == hashlib.sha256(png(mask)).hexdigest()
    assert (found.image_size, found.mask_size) == ((30, 41), (30, 41))
    assert {v: int(n) for v, n in enumerate(found.class_counts) if n} == {
        0: 28 * 41 - 4,
        4: 1,
        200: 3,
        255: 82,
    }
    assert found.class_counts.dtype == np.int64
    assert found.error == ""


def test_sizes_may_differ_and_a_mask_may_be_absent(tmp_path: Path) -> None:
    image, mask = np.zeros((8, 9, 3), np.uint8), np.ones((4, 3), np.uint8)
    assert read_record(write_record(tmp_path, "a", png(image), png(mask)), PLAIN).mask_size == (4, 3)
    found = read_record(write_record(tmp_path, "b", png(image), None), PLAIN)
    assert (found.mask_content, found.mask_size, found.class_counts.sum(), found.error) == ("", (0, 0), 0, "")


def test_what_can_be_read_is_read_and_every_error_names_its_file(tmp_path: Path) -> None:
    good = png(np.full((6, 7), 3, np.uint8))
    bad_image = read_record(write_record(tmp_path, "a", b"\x89PNG\r\n\x1a\nbroken", good), PLAIN)
    assert str(tmp_path / "a.png") in bad_image.error
    assert bad_image.image_size == (0, 0)
    assert bad_image.class_counts[3] == 42
    bad_mask = read_record(write_record(tmp_path, "b", good, good[:40]), PLAIN)
    assert str(tmp_path / "b_mask.png") in bad_mask.error
    assert bad_mask.image_size == (6, 7)
    assert bad_mask.mask_content != ""
    both = read_record(write_record(tmp_path, "c", b"", b""), PLAIN)
    assert "c.png" in both.error
    assert "c_mask.png" in both.error
    (tmp_path / "b.png").unlink()
    gone = Record("b", FileSource(tmp_path / "b.png"), None, None, {}, None)
    assert "b.png` cannot be read" in read_record(gone, PLAIN).error


def test_masks_are_decoded_as_the_catalogue_says(tmp_path: Path) -> None:
    colours = np.zeros((2, 2, 3), np.uint8)
    colours[0, 0] = 9, 8, 7
    record = write_record(tmp_path, "a", png(colours), png(colours))
    counts = read_record(record, Decoding({(0, 0, 0): 0, (9, 8, 7): 5}, None, 255)).class_counts
    assert (counts[0], counts[5]) == (3, 1)


def test_a_thumbnail_averages_areas_of_the_grey_picture() -> None:
    image = np.zeros((128, 64, 3), np.uint8)
    image[::2, :, :] = 100
    np.testing.assert_array_equal(make_thumbnail(image), np.full((64, 64), 50, np.uint8))
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 200
    assert make_thumbnail(red)[0, 0] == 60  # 0.299 * 200: the channels are RGB


def test_a_pool_reads_what_one_process_reads_in_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = records_on_disk(tmp_path, 37)
    Path(records[20].image.name).write_bytes(b"nonsense")
    alone = list(read_records("test", records, PLAIN, workers=0))
    monkeypatch.setattr(reading, "JUDGE_AFTER_S", 0.0)
    monkeypatch.setattr(reading, "POOL_PAYS_S", 0.0)
    monkeypatch.setattr(reading, "CHUNK", 4)
    pooled = list(read_records("test", records, PLAIN, workers=2))
    assert len(alone) == len(pooled) == 37
    for one, other in zip(alone, pooled, strict=True):
        for field in ("content", "mask_content", "image_size", "mask_size", "error"):
            assert getattr(one, field) == getattr(other, field)
        np.testing.assert_array_equal(one.class_counts, other.class_counts)
        np.testing.assert_array_equal(one.thumbnail, other.thumbnail)
    assert [bool(found.error) for found in pooled].index(True) == 20


def test_a_small_data_set_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "ProcessPoolExecutor", lambda *_, **__: pytest.fail("a pool was started"))
    assert len(list(read_records("test", records_on_disk(tmp_path, 3), PLAIN, workers=8))) == 3


def test_a_bar_is_drawn_on_terminals_only(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    list(read_records("test", records_on_disk(tmp_path, 3), PLAIN, workers=0))
    assert capfd.readouterr() == ("", "")


# Sources that do what is hard to bring about with files; in a module, so that workers can import them.
SOURCES = """
    import multiprocessing, os, time
    from dataclasses import dataclass
    from pathlib import Path

    @dataclass(frozen=True)
    class Deadly:
        name: str
        def stamp(self): return "1"
        def read(self):
            if multiprocessing.parent_process():
                os._exit(9)
            return b""

    @dataclass(frozen=True)
    class Slow:
        name: str
        def stamp(self): return "1"
        def read(self):
            if multiprocessing.parent_process():
                (Path(self.name) / f"{os.getpid()}.pid").touch()
            time.sleep(0.2)
            return b""
"""

SCRIPT = """
    import signal
    import sys
    from pathlib import Path
    import sources
    from hsl.data.files import reading
    from hsl.data.files.records import Catalogue, Record
    from hsl.data.files.scan import scan

    if __name__ == "__main__":
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell is born deaf to it
        reading.JUDGE_AFTER_S = reading.POOL_PAYS_S = 0.0
        source = getattr(sources, sys.argv[1])(sys.argv[2])
        records = tuple(Record(f"{i:03d}", source, None, None, {}, None) for i in range(400))
        scan(Catalogue("test", records, ("a", "b")), Path(sys.argv[2]) / "cache", 2)
"""


def start(folder: Path, source: str) -> subprocess.Popen[str]:
    (folder / "sources.py").write_text(textwrap.dedent(SOURCES))
    (folder / "script.py").write_text(textwrap.dedent(SCRIPT))
    path = f"{folder}:{Path(reading.__file__).parents[3]}"
    command = [sys.executable, "script.py", source, str(folder)]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def workers_of(folder: Path, timeout_s: float = 120) -> list[int]:
    """Process ids of both workers, once they work."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        found = [int(path.stem) for path in folder.glob("*.pid")]
        if len(found) == 2:
            return found
        time.sleep(0.05)
    return pytest.fail("the workers did not start")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def all_end(pids: list[int], timeout_s: float = 20) -> bool:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end and any(map(is_running, pids)):
        time.sleep(0.05)
    return not any(map(is_running, pids))


@pytest.mark.slow
def test_a_killed_worker_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    _, errors = start(tmp_path, "Deadly").communicate(timeout=120)
    assert "DataError: A process that reads pictures was killed" in errors
    assert "data.num_workers=1" in errors


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_end_by_force_leaves_no_worker_and_nothing_half_written(tmp_path: Path, how: signal.Signals) -> None:
    process = start(tmp_path, "Slow")
    workers = workers_of(tmp_path)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # Ctrl-C reaches every process of the terminal's group
    else:
        process.kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert all_end(workers)
    left = sorted(path.suffix for path in (tmp_path / "cache").glob("*"))
    assert left in ([], [".lock"])  # the lock of the pass, which ended with its process
    assert errors.count("Traceback") <= (how == signal.SIGINT)  # that of the parent; workers keep quiet
