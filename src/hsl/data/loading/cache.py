"""Decoded pictures kept for later, in memory that workers share or in a file that outlives the run."""

import errno
import hashlib
import logging
import mmap
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.data.files.decoding import Decoding, Picture
from hsl.data.files.records import Record
from hsl.errors import ConfigError, DataError


class SharedMemory:
    """A zeroed stretch of memory that forked processes share."""

    def __init__(self, length: int) -> None:
        try:
            self._map = mmap.mmap(-1, length)
        except OSError as error:
            raise ConfigError(
                f"There is no room for `data.cache = ram` with {length / 1e9:.1f} GB ({error.strerror}). "
                "Lower `data.cache_gigabytes` or set `data.cache=disk`."
            ) from error
        self.view = memoryview(self._map).toreadonly()

    def write(self, offset: int, data: bytes) -> None:
        self._map[offset : offset + len(data)] = data

    def __reduce__(self) -> Any:
        raise ConfigError(
            "`data.cache = ram` reaches only workers that are forked, which this platform or start method "
            "does not do. Set `data.cache=disk` or `data.num_workers=0`."
        )


class SparseFile:
    """A sparse file, written by system calls and read through a map.

    Not written through the map: on a full disk that ends the process with SIGBUS instead of an error.
    """

    def __init__(self, path: Path, length: int) -> None:
        self._path, self._length = path, length
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
            os.truncate(self._descriptor, length)
            self.view = memoryview(mmap.mmap(self._descriptor, length, prot=mmap.PROT_READ))
        except OSError as error:
            raise ConfigError(
                f"`{path}` cannot be opened for `data.cache = disk` ({error.strerror}). "
                "Set `data.cache_dir` to a folder that can be written, or `data.cache=ram`."
            ) from error

    def write(self, offset: int, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                written = os.pwrite(self._descriptor, rest, offset)
                rest, offset = rest[written:], offset + written
        except OSError as error:
            way_out = (
                "Free some space, set `data.cache_dir` to a larger disk, or lower `data.cache_gigabytes`."
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
                else "Set `data.cache_dir` to another folder, or `data.cache=null`."
            )
            raise DataError(f"`{self._path}` cannot be written ({error.strerror}). {way_out}") from error

    def __reduce__(self) -> Any:
        return SparseFile, (self._path, self._length)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


logger = logging.getLogger(__name__)

KINDS = ("ram", "disk", None)

# One per picture, at the start of the buffer. It is written after the pixels, so that a writer killed
# half-way leaves an entry that does not count; `crc` catches pixels that a crash of the machine or a second
# writer has mixed up.
_HEADER = np.dtype([("written", "<u4"), ("crc", "<u4"), ("stamp", "<u8")])
_WRITTEN = 0x48534C31
_ALIGNMENT = 64
_LAYOUT_VERSION = 2


class PictureCache:
    """Decodes each picture once, as far as the given memory reaches.

    ``ram``: an anonymous shared mapping, seen by every worker that is forked from this process. It does not
    use ``/dev/shm``, which containers keep at 64 MB; it does count as memory of this process.

    ``disk``: a sparse file in ``cache_dir``, read through a memory map. Any number of processes may use it at
    once.

    A picture whose file has changed since an earlier run stored it is decoded anew; this is looked at when a process
    first reads it, so once per run and worker. Pictures beyond ``gigabytes`` are decoded whenever they are
    read.

    Args:
        records: What may be asked for; the place in this sequence is the key.
        image_sizes: Height and width of each picture, ``int (N, 2)``.
        mask_sizes: The same of the masks; ``(0, 0)`` where there is none.
        decode: How a record becomes a picture.
        kind: ``"ram"``, ``"disk"`` or ``None`` (decode each time).
        gigabytes: Bound of the decoded pixels that are kept, in 10^9 bytes.
        cache_dir: Folder of the ``disk`` cache.
        channels: Of a picture.
        first: Places to be kept first if not all fit; default: in order.
        check: Called for each record that is read from its files, and raises if it should not be used.

    Raises:
        ConfigError: An argument is outside its range, or the memory or the folder is not to be had.
    """

    def __init__(
        self,
        records: Sequence[Record],
        image_sizes: NDArray[np.integer[Any]],
        mask_sizes: NDArray[np.integer[Any]],
        decode: Decoding | Callable[[Record], Picture],
        *,
        kind: str | None,
        gigabytes: float,
        cache_dir: Path | None = None,
        channels: int = 3,
        first: Iterable[int] = (),
        check: Callable[[Record], None] | None = None,
    ) -> None:
        _check(kind, gigabytes, cache_dir)
        self._records, self._decode, self._kind, self._check = records, decode, kind, check
        self._channels = channels
        self._image_sizes = np.asarray(image_sizes, dtype=np.int64).reshape(-1, 2)
        self._mask_sizes = np.asarray(mask_sizes, dtype=np.int64).reshape(-1, 2)
        self._checked: set[int] = set()
        self._store: SharedMemory | SparseFile | None = None
        self._kept = np.zeros(len(records), dtype=bool)
        if kind is not None and len(records):
            self._lay_out(int(gigabytes * 1e9), cache_dir, first)

    def _lay_out(self, budget: int, cache_dir: Path | None, first: Iterable[int]) -> None:
        """Give each picture its place. On disk the places do not depend on what this run wants to keep."""
        lengths = self._image_sizes.prod(1) * self._channels + self._mask_sizes.prod(1)
        lengths = -(-lengths // _ALIGNMENT) * _ALIGNMENT
        self._kept = _fitting(lengths, first, budget)
        room = lengths * self._kept if self._kind == "ram" else lengths
        start = -(-len(lengths) * _HEADER.itemsize // _ALIGNMENT) * _ALIGNMENT
        self._offsets = start + np.cumsum(room) - room
        self._store = self._open(start + int(room.sum()), cache_dir)
        if not self._kept.all():
            logger.warning(
                "`data.cache_gigabytes = %g` holds %d of %d pictures, the others are decoded each time they "
                "are read. All of them need %.3g.",
                budget / 1e9,
                self._kept.sum(),
                len(lengths),
                lengths.sum() / 1e9,
            )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Picture:
        """The decoded picture at a place.

        Raises:
            DataError: The picture cannot be read or decoded, or the disk of the cache is full.
        """
        if self._store is None or not self._kept[index]:
            return self._read(index)
        if index not in self._checked:
            if self._check is not None:
                self._check(self._records[index])
            stamp = _stamp(self._records[index])
            if not self._is_stored(index, stamp):
                picture = self._read(index)
                if not self._fill(index, stamp, picture):
                    return picture
            self._checked.add(index)
        return self._view(index)

    def _read(self, index: int) -> Picture:
        picture = self._decode(self._records[index])
        if self._check is not None:
            self._check(self._records[index])
        return picture

    def _open(self, length: int, cache_dir: Path | None) -> "SharedMemory | SparseFile":
        if self._kind == "ram" or cache_dir is None:
            return SharedMemory(length)
        key = hashlib.sha256(repr((_LAYOUT_VERSION, self._decode)).encode())
        key.update("\0".join(record.id for record in self._records).encode())
        key.update(self._image_sizes.tobytes() + self._mask_sizes.tobytes())
        return SparseFile(cache_dir / f"pictures-{key.hexdigest()[:16]}.cache", length)

    def _is_stored(self, index: int, stamp: int) -> bool:
        header = self._header(index)
        if header["written"] != _WRITTEN or header["stamp"] != stamp:
            return False
        return bool(header["crc"] == zlib.crc32(self._pixels(index).data))

    def _fill(self, index: int, stamp: int, picture: Picture) -> bool:
        """Store a picture unless its size is not the one that room was kept for (changed since the scan)."""
        mask_size = (0, 0) if picture.mask is None else picture.mask.shape
        same = (picture.image.shape[:2], mask_size) == self._shapes(index) and picture.image.shape[2] == self._channels
        if not same or self._store is None:
            return False
        pixels = picture.image.tobytes() + (b"" if picture.mask is None else picture.mask.tobytes())
        header = np.array((_WRITTEN, zlib.crc32(pixels), stamp), dtype=_HEADER)
        place = index * _HEADER.itemsize
        self._store.write(place, bytes(_HEADER.itemsize))
        self._store.write(int(self._offsets[index]), pixels)
        self._store.write(place, header.tobytes())
        return True

    def _view(self, index: int) -> Picture:
        (height, width), mask_size = self._shapes(index)
        pixels = self._pixels(index)
        image = pixels[: height * width * self._channels].reshape(height, width, self._channels)
        return Picture(image, pixels[image.size :].reshape(mask_size) if all(mask_size) else None)

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        (height, width), (mask_height, mask_width) = self._shapes(index)
        length = height * width * self._channels + mask_height * mask_width
        return np.frombuffer(self._buffer(), np.uint8, length, int(self._offsets[index]))

    def _header(self, index: int) -> Any:
        return np.frombuffer(self._buffer(), _HEADER, 1, index * _HEADER.itemsize)[0]

    def _buffer(self) -> memoryview:
        if self._store is None:
            raise RuntimeError("a cache that keeps nothing was asked for what it keeps")
        return self._store.view

    def _shapes(self, index: int) -> tuple[tuple[int, int], tuple[int, int]]:
        (height, width), (mask_height, mask_width) = self._image_sizes[index], self._mask_sizes[index]
        return (int(height), int(width)), (int(mask_height), int(mask_width))


def _check(kind: str | None, gigabytes: float, cache_dir: Path | None) -> None:
    if kind not in KINDS:
        raise ConfigError(f"`data.cache` should be ram, disk or null. Found `data.cache = {kind}`.")
    if kind is not None and not gigabytes > 0:
        raise ConfigError(
            f"`data.cache_gigabytes` should be above 0. Found `data.cache_gigabytes = {gigabytes}`. "
            "To keep nothing set `data.cache=null`."
        )
    if kind == "disk" and cache_dir is None:
        raise ConfigError("`data.cache = disk` needs a folder. Set `data.cache_dir`.")


def _fitting(lengths: NDArray[np.int64], first: Iterable[int], budget: int) -> NDArray[np.bool_]:
    """Which entries are kept: the preferred ones, then the rest, each if it still fits."""
    kept = np.zeros(len(lengths), dtype=bool)
    for index in dict.fromkeys([*first, *range(len(lengths))]):
        if lengths[index] <= budget:
            kept[index] = True
            budget -= int(lengths[index])
    return kept


def _stamp(record: Record) -> int:
    text = record.image.stamp() + "\0" + ("" if record.mask is None else record.mask.stamp())
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
