import errno
import logging
import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from hsl.data.files.decoding import Decoding, Picture
from hsl.data.files.records import Catalogue, FileSource, Record
from hsl.data.loading import cache as module
from hsl.data.loading import storage
from hsl.data.loading.cache import PictureCache
from hsl.data.loading.storage import SharedMemory, SparseFile
from hsl.errors import ConfigError

SIZES = ((7, 5), (4, 9), (6, 6), (1, 1))
FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Pictures:
    """Four pictures of unlike sizes on disk; the last has no mask."""

    records: tuple[Record, ...]
    images: tuple[NDArray[np.uint8], ...]
    masks: tuple[NDArray[np.uint8] | None, ...]

    @property
    def image_sizes(self) -> NDArray[np.int64]:
        return np.array([image.shape[:2] for image in self.images])

    @property
    def mask_sizes(self) -> NDArray[np.int64]:
        return np.array([(0, 0) if mask is None else mask.shape for mask in self.masks])


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    random = np.random.default_rng(0)
    images = [random.integers(0, 255, (*size, 3), dtype=np.uint8) for size in SIZES]
    masks = [random.integers(0, 3, size, dtype=np.uint8) for size in SIZES[:-1]]
    records = []
    for number, image in enumerate(images):
        path = tmp_path / f"{number}.png"
        cv2.imwrite(str(path), image[..., ::-1])
        mask = None
        if number < len(masks):
            mask = tmp_path / f"{number}-mask.png"
            cv2.imwrite(str(mask), masks[number])
        records.append(
            Record(str(number), FileSource(path), None if mask is None else FileSource(mask), None, {}, None)
        )
    return Pictures(tuple(records), tuple(images), (*masks, None))


class Counter:
    """A decoder that counts; processes count together."""

    def __init__(self) -> None:
        self.decoder = Decoding()
        self.count = FORK.Value("i", 0)

    def __call__(self, record: Record) -> Picture:
        with self.count.get_lock():
            self.count.value += 1
        return self.decoder(record)

    def __repr__(self) -> str:  # part of the name of a file on disk
        return "Counter"


@pytest.fixture
def make(pictures: Pictures, tmp_path: Path) -> Callable[..., PictureCache]:
    def make(decode: Callable[[Record], Picture] | None = None, **changed: object) -> PictureCache:
        given = {"kind": "ram", "gigabytes": 1.0, "cache_dir": tmp_path / "cache"} | changed
        return PictureCache(pictures.records, pictures.image_sizes, pictures.mask_sizes, decode or Decoding(), **given)

    return make


def check(cache: PictureCache, pictures: Pictures) -> None:
    for index, (image, mask) in enumerate(zip(pictures.images, pictures.masks, strict=True)):
        found = cache[index]
        np.testing.assert_array_equal(found.image, image)
        if mask is None:
            assert found.mask is None
        else:
            np.testing.assert_array_equal(found.mask, mask)


def in_process(function: Callable[[], object]) -> int:
    """Runs it in a forked process; the exit code, 0 if all went well."""
    process = FORK.Process(target=function)
    process.start()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


@pytest.mark.parametrize(("kind", "decoded"), [("ram", 4), ("disk", 4), (None, 12)])
def test_same_pictures_decoded_once(
    make: Callable[..., PictureCache], pictures: Pictures, kind: str | None, decoded: int
) -> None:
    counter = Counter()
    cache = make(counter, kind=kind)
    for _ in range(3):
        check(cache, pictures)
    assert counter.count.value == decoded
    assert len(cache) == 4


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_what_one_process_decodes_the_others_have(
    make: Callable[..., PictureCache], pictures: Pictures, kind: str
) -> None:
    counter = Counter()
    cache = make(counter, kind=kind)
    assert in_process(lambda: check(cache, pictures)) == 0
    check(cache, pictures)
    assert in_process(lambda: check(cache, pictures)) == 0
    assert counter.count.value == 4


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_pictures_cannot_be_written(make: Callable[..., PictureCache], kind: str) -> None:
    cache = make(kind=kind)
    for _ in range(2):
        with pytest.raises(ValueError, match="read-only"):
            cache[0].image[0, 0] = 0


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_bounded_and_said_once(
    make: Callable[..., PictureCache],
    pictures: Pictures,
    kind: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counter = Counter()
    # 7*5*4 = 140 -> 192 bytes; 4*9*4 = 144 -> 192; 6*6*4 = 144 -> 192; 3 -> 64
    monkeypatch.setattr(module, "room_for", lambda path: 192 + 64)
    with caplog.at_level(logging.WARNING):
        cache = make(counter, kind=kind, gigabytes=(192 + 64) / 1e9, first=[2])
        check(cache, pictures)
        check(cache, pictures)
    assert counter.count.value == 2 * 4 - 2  # the preferred third and, of the rest, the one that still fits
    (said,) = caplog.messages
    assert "holds 2 of 4 pictures, the others are decoded each time they are read. All of them need 6.4e-07" in said
    assert said.startswith("`data.cache_gigabytes = 2.56e-07`" if kind == "ram" else "Half of the free disk of `")
    caplog.clear()
    monkeypatch.setattr(module, "room_for", lambda path: 3 * 192 + 64)
    make(kind=kind, gigabytes=(3 * 192 + 64) / 1e9)
    assert not caplog.records


def test_the_disk_keeps_what_memory_could_not_hold(
    make: Callable[..., PictureCache], pictures: Pictures, caplog: pytest.LogCaptureFixture
) -> None:
    counter = Counter()
    cache = make(counter, kind="disk", gigabytes=64e-9)  # a tenth
    for _ in range(3):
        check(cache, pictures)
    assert counter.count.value == 4
    assert not caplog.records


def test_ram_holds_no_more_than_its_bound(make: Callable[..., PictureCache]) -> None:
    cache = make(gigabytes=(192 + 64) / 1e9)
    assert len(cache._store.view) == 4 * 16 + 192 + 64


def test_disk_outlives_the_run_whatever_its_bound(
    make: Callable[..., PictureCache], pictures: Pictures, tmp_path: Path
) -> None:
    check(make(kind="disk", gigabytes=200 / 1e9), pictures)
    check(make(kind="disk"), pictures)
    counter = Counter()
    check(make(counter, kind="disk"), pictures)
    assert counter.count.value == 4  # another decoder has its own file
    again = Counter()
    check(make(again, kind="disk"), pictures)
    assert again.count.value == 0
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("part", ["image", "mask"])
def test_changed_file_is_read_anew(make: Callable[..., PictureCache], pictures: Pictures, part: str) -> None:
    check(make(kind="disk"), pictures)
    source = getattr(pictures.records[1], part)
    content = np.zeros((4, 9, 3) if part == "image" else (4, 9), np.uint8)
    cv2.imwrite(str(source.path), content)
    os.utime(source.path, ns=(1, 1))
    cache = make(kind="disk")
    np.testing.assert_array_equal(getattr(cache[1], part), content)
    np.testing.assert_array_equal(getattr(cache[1], part), content)
    np.testing.assert_array_equal(cache[0].image, pictures.images[0])


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_picture_of_another_size_than_scanned(make: Callable[..., PictureCache], pictures: Pictures, kind: str) -> None:
    cache = make(kind=kind)
    larger = np.full((20, 30, 3), 7, np.uint8)
    cv2.imwrite(str(pictures.records[0].image.path), larger)
    for _ in range(2):
        np.testing.assert_array_equal(cache[0].image, larger)
        np.testing.assert_array_equal(cache[1].image, pictures.images[1])


@pytest.mark.parametrize("num_writes", [0, 1, 2])
def test_killed_writer_leaves_no_entry(make: Callable[..., PictureCache], pictures: Pictures, num_writes: int) -> None:
    def die_after() -> None:
        cache = make(kind="disk")
        write, left = cache._store.write, num_writes

        def counted(offset: int, data: bytes) -> None:
            nonlocal left
            if not left:
                write(offset, data[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            write(offset, data)

        cache._store.write = counted  # type: ignore[method-assign]
        cache[0]

    assert in_process(die_after) == -signal.SIGKILL
    check(make(kind="disk"), pictures)


def test_damaged_pixels_are_noticed(make: Callable[..., PictureCache], pictures: Pictures, tmp_path: Path) -> None:
    check(make(kind="disk"), pictures)
    (path,) = (tmp_path / "cache").iterdir()
    content = bytearray(path.read_bytes())
    content[4 * 16 + 3] ^= 1  # the fourth byte of the first picture
    path.write_bytes(content)
    check(make(kind="disk"), pictures)


def test_two_processes_at_once(make: Callable[..., PictureCache], pictures: Pictures) -> None:
    def work() -> None:
        for _ in range(20):
            check(make(kind="disk"), pictures)

    processes = [FORK.Process(target=work) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]


@pytest.mark.parametrize(
    ("code", "reason", "way"),
    [(errno.ENOSPC, "No space left on device", "Free some"), (errno.EIO, "Input/output", "Set")],
)
def test_full_disk_is_one_sentence_and_nothing_is_lost(
    make: Callable[..., PictureCache],
    pictures: Pictures,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    code: int,
    reason: str,
    way: str,
) -> None:
    counter, pwrite, together = Counter(), os.pwrite, FORK.Barrier(3)
    cache = make(counter, kind="disk")
    cache[0]

    def full(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    def read() -> None:
        logging.basicConfig(force=True)
        for _ in range(2):
            check(cache, pictures)
        together.wait(60)  # as workers of one run, none ends before the others

    monkeypatch.setattr(os, "pwrite", full)
    workers = [FORK.Process(target=read) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    said = capfd.readouterr().err
    assert said.count("cannot be written") == 1  # by one of three
    assert f"cannot be written ({reason}" in said
    assert f"decoded each time it is read. {way}" in said
    assert counter.count.value == 1 + 3 * 2 * 3  # the first is still read from the cache
    monkeypatch.setattr(os, "pwrite", pwrite)
    check(make(counter, kind="disk"), pictures)
    check(make(counter, kind="disk"), pictures)
    assert counter.count.value == 1 + 3 * 2 * 3 + 3


def test_the_map_takes_no_more_memory_than_its_bound(tmp_path: Path) -> None:
    """Of 100 pictures 10 fit; measured by what the system says of the process."""
    side, records = 300, [Record(str(n), FileSource(Path(__file__)), None, None, {}, None) for n in range(100)]
    sizes, nothing = np.full((100, 2), side), np.zeros((100, 2), np.int64)

    def decode(record: Record) -> Picture:
        return Picture(np.full((side, side, 3), int(record.id), np.uint8), None)

    def mapped_mb() -> float:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssFile")) / 1e3

    cache = PictureCache(
        records, sizes, nothing, decode, kind="disk", gigabytes=10 * side * side * 3 / 1e9, cache_dir=tmp_path
    )
    before, most = mapped_mb(), 0.0
    for _ in range(3):
        for number in range(100):
            assert int(cache[number].image.sum()) == number * side * side * 3
            most = max(most, mapped_mb())
    assert most - before < 1.3 * 10 * side * side * 3 / 1e6  # of 27 MB
    assert most - before > 0.5 * 10 * side * side * 3 / 1e6


def test_only_what_lies_in_the_file_is_read_ahead(
    make: Callable[..., PictureCache], pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead: list[tuple[int, int]] = []
    monkeypatch.setattr(SparseFile, "expect", lambda self, *stretch: ahead.append(stretch))
    for kind in ("ram", None, "disk"):
        cache = make(kind=kind)
        cache.expect(range(4))  # nothing is stored yet
        check(cache, pictures)
        cache.expect([1, 3])
    assert ahead == [(64 + 192, 4 * 9 * 4), (64 + 3 * 192, 3)]
    check(cache, pictures)
    cache._store.expect(0, 100)  # type: ignore[union-attr]


def test_two_runs_at_once_do_not_decode_twice(tmp_path: Path) -> None:
    """Two interpreters of their own, in the same order, while the first is killed in the middle of a picture."""
    script = tmp_path / "run.py"
    script.write_text(RUN)
    command = [sys.executable, str(script), str(tmp_path)]
    killed = subprocess.Popen([*command, "killed"])
    assert killed.wait(60) == -signal.SIGKILL
    runs = [subprocess.Popen([*command, "whole"]) for _ in range(2)]
    assert [run.wait(60) for run in runs] == [0, 0]
    decoded = (tmp_path / "decoded").read_text().split()
    assert sorted(decoded) == sorted(["0", "1", "2", *map(str, range(2, 12))])  # two were stored by the killed run


RUN = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from hsl.data.files.decoding import Picture
from hsl.data.files.records import FileSource, Record
from hsl.data.loading import cache as module
from hsl.data.loading import storage
from hsl.data.loading.cache import PictureCache

folder, how = Path(sys.argv[1]), sys.argv[2]

class Slow:
    def __repr__(self):
        return "slow"

    def __call__(self, record):
        with (folder / "decoded").open("a") as file:
            file.write(record.id + "\\n")
        if how == "killed" and record.id == "2":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.02)
        return Picture(np.full((20, 20, 3), int(record.id), np.uint8), None)

records = [Record(str(n), FileSource(Path(__file__)), None, None, {}, None) for n in range(12)]
cache = PictureCache(
    records, np.full((12, 2), 20), np.zeros((12, 2), int), Slow(), kind="disk", gigabytes=1, cache_dir=folder / "cache"
)
for number in [*range(12)] * 2:
    if not (cache[number].image == number).all():
        sys.exit(1)
"""


def test_a_suspended_process_is_not_waited_for_long(
    make: Callable[..., PictureCache], pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the batch system that suspends it, and perhaps for days."""
    monkeypatch.setattr(storage, "PATIENCE_S", 0.1)

    def stopped(record: Record) -> Picture:
        os.kill(os.getpid(), signal.SIGSTOP)
        raise AssertionError(record)

    decode = Counter()
    monkeypatch.setattr(decode, "decoder", stopped)
    process = FORK.Process(target=lambda: make(decode, kind="disk")[0])
    process.start()
    os.waitid(os.P_PID, process.pid or 0, os.WSTOPPED | os.WNOWAIT)
    check(make(Counter(), kind="disk"), pictures)
    process.kill()
    process.join(60)


def test_two_versions_of_a_file_do_not_meet(make: Callable[..., PictureCache], pictures: Pictures) -> None:
    """A run that goes on with what it has read is not given pixels of another; its file is removed under it."""
    old = make(kind="disk")
    check(old, pictures)
    cv2.imwrite(str(pictures.records[1].image.path), np.zeros((4, 9, 3), np.uint8))
    new = make(kind="disk")
    assert not new[1].image.any()
    check(old, pictures)
    assert not new[1].image.any()


def test_data_sets_with_the_same_names_and_sizes_do_not_meet(
    make: Callable[..., PictureCache], pictures: Pictures, tmp_path: Path
) -> None:
    check(make(kind="disk"), pictures)
    black = tmp_path / "black"
    black.mkdir()
    records = []
    for record, image in zip(pictures.records, pictures.images, strict=True):
        cv2.imwrite(str(black / f"{record.id}.png"), np.zeros_like(image))
        records.append(replace(record, image=FileSource(black / f"{record.id}.png")))
    other = PictureCache(
        records, pictures.image_sizes, pictures.mask_sizes, Decoding(), kind="disk", gigabytes=1,
        cache_dir=tmp_path / "cache",
    )  # fmt: skip
    assert not any(other[number].image.any() for number in range(4))
    check(make(kind="disk"), pictures)


def test_a_cache_of_another_user_is_read_and_left_as_it_is(
    make: Callable[..., PictureCache], pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make(Counter(), kind="disk")
    first[0], first[1]
    (path,) = (tmp_path / "cache").iterdir()
    content, opened = path.read_bytes(), os.open

    def refuse(name: object, flags: int, *rest: int, **more: object) -> int:  # root may write everywhere
        if flags & os.O_RDWR:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(name, flags, *rest, **more)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "open", refuse)
    counter = Counter()
    cache = make(counter, kind="disk")
    for _ in range(2):
        check(cache, pictures)
    assert counter.count.value == 2 * 2  # what the other user has not stored
    assert path.read_bytes() == content
    path.write_bytes(content[:-1])
    for broken in (lambda: make(kind="disk"), lambda: make(kind="disk", cache_dir=tmp_path / "none")):
        with pytest.raises(ConfigError, match=r"cannot be opened .* \(Permission denied\)\. Set `data.cache_dir`"):
            broken()


def test_short_writes_are_continued(
    make: Callable[..., PictureCache], pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: pwrite(file, data[:11], offset))
    check(make(kind="disk"), pictures)
    monkeypatch.undo()
    check(make(kind="disk"), pictures)


def test_disk_cache_can_be_sent_to_a_process_and_ram_cannot(
    make: Callable[..., PictureCache], pictures: Pictures
) -> None:
    check(pickle.loads(pickle.dumps(make(kind="disk"))), pictures)
    check(pickle.loads(pickle.dumps(make(kind=None))), pictures)
    with pytest.raises(ConfigError, match=r"`data\.cache = ram` reaches only workers that are forked"):
        pickle.dumps(make(kind="ram"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kind": "tape"}, r"`data\.cache` should be ram, disk or null\. Found `data\.cache = tape`"),
        ({"gigabytes": 0}, r"`data\.cache_gigabytes` should be above 0\. Found `data\.cache_gigabytes = 0`"),
        ({"gigabytes": float("nan")}, "should be above 0"),
        ({"kind": "disk", "cache_dir": None}, r"needs a folder\. Set `data\.cache_dir`"),
    ],
)
def test_wrong_settings(make: Callable[..., PictureCache], changed: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**changed)


def test_folder_that_cannot_be_made(make: Callable[..., PictureCache], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot be opened for `data\.cache = disk`"):
        make(kind="disk", cache_dir=tmp_path / "file")


def test_more_memory_than_there_is(pictures: Pictures) -> None:
    sizes = np.full((4, 2), 10**7)
    with pytest.raises(ConfigError, match=r"no room for `data\.cache = ram`"):
        PictureCache(pictures.records, sizes, sizes, Decoding(), kind="ram", gigabytes=1e9)


def test_no_records() -> None:
    nothing = np.zeros((0, 2), np.int64)
    assert len(PictureCache((), nothing, nothing, Decoding(), kind="ram", gigabytes=1)) == 0


def test_decoder_follows_the_catalogue(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "i.png"), np.array([[100, 200]], np.uint16))
    cv2.imwrite(str(tmp_path / "m.png"), np.array([[[0, 0, 255], [0, 255, 0]]], np.uint8))  # red, green
    record = Record("i", FileSource(tmp_path / "i.png"), FileSource(tmp_path / "m.png"), None, {}, None)
    catalogue = Catalogue("c", (record,), ("a", "b"), palette={(255, 0, 0): 1, (0, 255, 0): 0}, value_range=(0, 200))
    picture = Decoding.of(catalogue)(record)
    assert picture.image[0, :, 0].tolist() == [128, 255]
    assert picture.mask is not None
    assert picture.mask.tolist() == [[1, 0]]
    assert repr(Decoding.of(catalogue)) != repr(Decoding())


@pytest.fixture(params=[SharedMemory, SparseFile])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SharedMemory | SparseFile:
    return SharedMemory(1000) if request.param is SharedMemory else SparseFile(tmp_path / "new/file", 1000)


def test_begins_with_zeros_and_keeps_what_is_written(store: SharedMemory | SparseFile) -> None:
    assert bytes(store.view) == bytes(1000)
    store.write(500, b"abc")
    store.write(997, b"xyz")
    assert bytes(store.view[499:504]) == b"\0abc\0"
    assert bytes(store.view[996:]) == b"\0xyz"
    assert store.view.readonly


def test_forked_process_writes_for_all(store: SharedMemory | SparseFile) -> None:
    process = FORK.Process(target=store.write, args=(3, b"child"))
    process.start()
    process.join(60)
    assert bytes(store.view[:10]) == b"\0\0\0child\0\0"


def test_file_is_sparse_and_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    first = SparseFile(path, 10**10)
    first.write(10**9, b"far")
    assert path.stat().st_size == 10**10
    assert path.stat().st_blocks * 512 < 10**6
    for second in (SparseFile(path, 10**10), pickle.loads(pickle.dumps(first))):
        assert bytes(second.view[10**9 : 10**9 + 4]) == b"far\0"


def test_write_that_the_system_cuts_short_and_then_refuses(tmp_path: Path) -> None:
    """A real refusal: of the file's size, by the limit of a process."""

    def write() -> None:
        store = SparseFile(tmp_path / "file", 10**6)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            store.write(4000, b"1" * 3000)
        except OSError as error:
            (tmp_path / "message").write_text(str(error.strerror))
        store.write(4000, b"2" * 900)

    assert in_process(write) == 0
    assert (tmp_path / "message").read_text() == "File too large"
    content = SparseFile(tmp_path / "file", 10**6).view
    assert bytes(content[4000:5001]) == b"2" * 900 + b"1" * 100 + b"\0"


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot be opened for `data\.cache = disk`"):
        SparseFile(tmp_path / "file/cache", 10)


def test_memory_cannot_be_sent() -> None:
    with pytest.raises(ConfigError, match="reaches only workers that are forked"):
        pickle.dumps(SharedMemory(10))


def test_more_memory_than_there_is_of_storage() -> None:
    with pytest.raises(ConfigError, match=r"no room for `data\.cache = ram` with 1000000000\.0 GB"):
        SharedMemory(10**18)
