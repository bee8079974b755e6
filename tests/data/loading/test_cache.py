import errno
import logging
import multiprocessing
import os
import pickle
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from hsl.data.files.decoding import Decoding, Picture
from hsl.data.files.records import Catalogue, FileSource, Record
from hsl.data.loading.cache import PictureCache, SharedMemory, SparseFile
from hsl.errors import ConfigError, DataError

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
    make: Callable[..., PictureCache], pictures: Pictures, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    counter = Counter()
    # 7*5*4 = 140 -> 192 bytes; 4*9*4 = 144 -> 192; 6*6*4 = 144 -> 192; 3 -> 64
    with caplog.at_level(logging.WARNING):
        cache = make(counter, kind=kind, gigabytes=(192 + 64) / 1e9, first=[2])
        check(cache, pictures)
        check(cache, pictures)
    assert counter.count.value == 2 * 4 - 2  # the preferred third and, of the rest, the one that still fits
    assert [record.message.split(",")[0] for record in caplog.records] == [
        "`data.cache_gigabytes = 2.56e-07` holds 2 of 4 pictures"
    ]
    caplog.clear()
    make(kind=kind, gigabytes=(3 * 192 + 64) / 1e9)
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


def test_full_disk_is_one_sentence(make: Callable[..., PictureCache], monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make(kind="disk")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DataError, match=r"cache` cannot be written \(No space left on device\)\. Free some"):
        cache[0]
    monkeypatch.undo()
    assert cache[0].image.shape == (7, 5, 3)


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
        except DataError as error:
            (tmp_path / "message").write_text(str(error))
        store.write(4000, b"2" * 900)

    process = FORK.Process(target=write)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    message = (tmp_path / "message").read_text()
    assert message.startswith(f"`{tmp_path / 'file'}` cannot be written (File too large). Free some space")
    content = SparseFile(tmp_path / "file", 10**6).view
    assert bytes(content[4000:5001]) == b"2" * 900 + b"1" * 100 + b"\0"


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot be opened for `data\.cache = disk`"):
        SparseFile(tmp_path / "file/cache", 10)


def test_error_other_than_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SparseFile(tmp_path / "file", 10)

    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pwrite", broken)
    with pytest.raises(DataError, match=r"Input/output error\)\. Set `data\.cache_dir` to another folder"):
        store.write(0, b"1")


def test_memory_cannot_be_sent() -> None:
    with pytest.raises(ConfigError, match="reaches only workers that are forked"):
        pickle.dumps(SharedMemory(10))


def test_more_memory_than_there_is_of_storage() -> None:
    with pytest.raises(ConfigError, match=r"no room for `data\.cache = ram` with 1000000000\.0 GB"):
        SharedMemory(10**18)
