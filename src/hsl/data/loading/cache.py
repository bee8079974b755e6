"""Decoded pictures kept for later, in memory that workers share or in a file that outlives the run."""

import errno
import hashlib
import logging
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.data.files.decoding import Decoding, Picture
from hsl.data.files.records import Record
from hsl.data.files.scan import stamp_of
from hsl.data.loading.storage import SharedMemory, SparseFile, room_for
from hsl.errors import ConfigError

logger = logging.getLogger(__name__)

KINDS = ("ram", "disk", None)

# One per picture, at the start of the buffer. It is written after the pixels, so that a writer killed
# half-way leaves an entry that does not count; `crc` catches pixels that a crash of the machine or a second
# writer has mixed up.
_HEADER = np.dtype([("written", "<u4"), ("crc", "<u4"), ("stamp", "<u8")])
_WRITTEN = 0x48534C31
_ALIGNMENT = 64
_LAYOUT_VERSION = 3
_READ_AHEAD = 1 << 24  # bytes; of larger pictures perhaps only a patch is looked at


class PictureCache:
    """Decodes each picture once, as far as the given memory reaches.

    ``ram``: an anonymous shared mapping, seen by every worker that is forked from this process. It does not
    use ``/dev/shm``, which containers keep at 64 MB; it does count as memory of this process.

    ``disk``: a sparse file in ``cache_dir``, read through a memory map. Any number of processes may use it at
    once, also of other runs: what one decodes the others wait for. A process that is killed leaves nothing that
    others would wait for or take for a picture. The file takes half of the free disk at most; where the disk or a
    quota is full nothing more is stored, with one warning.

    Which pictures are kept is settled at the start and never changes: where not all fit, each epoch finds the same
    ones, while a cache that gives up the least recently used one would find none.

    The file on disk is that of these bytes at these places: where a picture changes, all are decoded again into a
    new file, and the old one is removed (runs that have it open keep it).

    Args:
        records: What may be asked for; the place in this sequence is the key.
        image_sizes: Height and width of each picture, ``int (N, 2)``.
        mask_sizes: The same of the masks; ``(0, 0)`` where there is none.
        decode: How a record becomes a picture.
        kind: ``"ram"``, ``"disk"`` or ``None`` (decode each time).
        gigabytes: Bound of the memory, in 10^9 bytes: of the pixels that are kept (``ram``), or of those that one
            process has in its map at once (``disk``).
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
        self._budget, self._viewed, self._run, self._full = int(gigabytes * 1e9), 0, os.getpid(), False
        if kind is not None and len(records):
            self._lay_out(cache_dir, first)

    def _lay_out(self, cache_dir: Path | None, first: Iterable[int]) -> None:
        """Give each picture its place. On disk the places do not depend on what this run wants to keep."""
        lengths = self._image_sizes.prod(1) * self._channels + self._mask_sizes.prod(1)
        lengths = -(-lengths // _ALIGNMENT) * _ALIGNMENT
        start = -(-len(lengths) * _HEADER.itemsize // _ALIGNMENT) * _ALIGNMENT
        if self._kind == "ram" or cache_dir is None:
            self._kept = _fitting(lengths, first, self._budget)
            room = lengths * self._kept
            self._store = SharedMemory(start + int(room.sum()))
            limit = f"`data.cache_gigabytes = {self._budget / 1e9:g}` holds"
            way_out = f"All of them need {lengths.sum() / 1e9:.3g}: raise it, or set `data.cache=disk`."
        else:
            room, path = lengths, cache_dir / self._file_name()
            self._store = SparseFile(path, start + int(lengths.sum()))
            _remove_older(path)
            bound = room_for(path)
            self._kept = _fitting(lengths, first, bound)
            limit = f"Half of the free disk of `{cache_dir}`, {bound / 1e9:.3g} GB, holds"
            way_out = (
                f"All of them need {lengths.sum() / 1e9:.3g} GB: free some, or set `data.cache_dir` to a larger disk."
            )
        self._offsets = start + np.cumsum(room) - room
        if not self._kept.all():
            logger.warning(
                "%s %d of %d pictures, the others are decoded each time they are read. %s",
                limit, self._kept.sum(), len(lengths), way_out,
            )  # fmt: skip

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Picture:
        """The decoded picture at a place.

        Raises:
            DataError: The picture cannot be read or decoded.
        """
        if self._store is None or not self._kept[index]:
            return self._read(index)
        if index not in self._checked:
            if self._check is not None:
                self._check(self._records[index])
            stamp = _stamp(self._records[index])
            if not self._is_stored(index, stamp):
                with self._alone(index):
                    if not self._is_stored(index, stamp):  # another process may have come first
                        picture = self._read(index)
                        if not self._fill(index, stamp, picture):
                            return picture
            self._checked.add(index)
        return self._view(index)

    @contextmanager
    def _alone(self, index: int) -> Iterator[None]:
        if not isinstance(self._store, SparseFile) or not self._store.writable or self._full:
            yield
            return
        with self._store.claimed(index):
            yield

    def expect(self, places: Iterable[int]) -> None:
        """Let the system read pictures of a batch from the disk while those before them are worked on."""
        if not isinstance(self._store, SparseFile):
            return
        for index in places:
            length = self._pixels(index).size if self._kept[index] and index in self._checked else 0
            if 0 < length <= _READ_AHEAD:
                self._store.expect(int(self._offsets[index]), length)

    def _read(self, index: int) -> Picture:
        picture = self._decode(self._records[index])
        if self._check is not None:
            self._check(self._records[index])
        return picture

    def _file_name(self) -> str:
        """Names the pictures, how they are decoded, and which bytes they had."""
        names, stamps = hashlib.sha256(repr((_LAYOUT_VERSION, self._decode)).encode()), hashlib.sha256()
        for record in self._records:
            mask = "" if record.mask is None else record.mask.name
            names.update("\0".join((record.id, record.image.name, mask, "")).encode())
            stamps.update(stamp_of(record).encode())
        stamps.update(bytes([self._channels]) + self._image_sizes.tobytes() + self._mask_sizes.tobytes())
        return f"pictures-{names.hexdigest()[:16]}-{stamps.hexdigest()[:16]}.cache"

    def _is_stored(self, index: int, stamp: int) -> bool:
        header = self._header(index)
        if header["written"] != _WRITTEN or header["stamp"] != stamp:
            return False
        return bool(header["crc"] == zlib.crc32(self._pixels(index).data))

    def _fill(self, index: int, stamp: int, picture: Picture) -> bool:
        """Store a picture unless its size is not the one that room was kept for (changed since the scan)."""
        mask_size = (0, 0) if picture.mask is None else picture.mask.shape
        same = (picture.image.shape[:2], mask_size) == self._shapes(index) and picture.image.shape[2] == self._channels
        if not same or self._store is None or self._full:
            return False
        if isinstance(self._store, SparseFile) and not self._store.writable:
            return False
        pixels = picture.image.tobytes() + (b"" if picture.mask is None else picture.mask.tobytes())
        header = np.array((_WRITTEN, zlib.crc32(pixels), stamp), dtype=_HEADER)
        place = index * _HEADER.itemsize
        try:
            self._store.write(place, bytes(_HEADER.itemsize))
            self._store.write(int(self._offsets[index]), pixels)
            self._store.write(place, header.tobytes())
        except OSError as error:
            self._stop_storing(error)
        return not self._full

    def _stop_storing(self, error: OSError) -> None:
        self._full = True
        if not isinstance(self._store, SparseFile) or not self._store.claim(len(self._store.view) + self._run):
            return  # another worker of this run has said it
        way_out = (
            "Free some space, or the run cannot store its checkpoints either; or set `data.cache_dir` to a larger disk."
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            else "Set `data.cache_dir` to another folder, or `data.cache=ram`."
        )
        logger.warning(
            "`%s` cannot be written (%s); from now on what is not in it is decoded each time it is read. %s",
            self._store.path, error.strerror, way_out,
        )  # fmt: skip

    def _view(self, index: int) -> Picture:
        (height, width), mask_size = self._shapes(index)
        pixels = self._pixels(index)
        if isinstance(self._store, SparseFile):
            self._viewed += pixels.size
            if self._viewed > self._budget:
                self._store.forget()
                self._viewed = pixels.size
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


def _remove_older(path: Path) -> None:
    """Files of the same pictures with other bytes, which are read by nobody any more."""
    for other in path.parent.glob(f"{path.name.rpartition('-')[0]}-*.cache"):
        if other != path:
            with suppress(OSError):
                other.unlink()


def _stamp(record: Record) -> int:
    text = record.image.stamp() + "\0" + ("" if record.mask is None else record.mask.stamp())
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
