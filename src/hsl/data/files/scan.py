"""One pass over a data set: what the split, the audit and the class weights have to know of every picture."""

import errno
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hsl.data.files.decoding import Decoding
from hsl.data.files.reading import Reading, read_records
from hsl.data.files.records import Catalogue, IndexMask, Record, by_block
from hsl.errors import DataError
from hsl.files.io import read_arrays, write_arrays
from hsl.files.locks import locked, try_lock

LAYOUT = 3
"""Raised when a stored row comes to mean something else; all rows are then made anew."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_COLUMNS = ("key", "content", "mask_content", "sizes", "class_counts", "thumbnail", "numbers")
_WHOLE = ("largest", "frames", "overlap")
_NUMBERS = (*_WHOLE, "contrast", "sharpness", "brightness")

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Scan:
    """What one pass found; row ``i`` belongs to ``ids[i]``, in the order of the catalogue.

    Attributes:
        ids: Ids of the pictures.
        content: SHA-256 of the bytes of each picture, ``""`` if they cannot be read.
        mask_content: The same of the masks, ``""`` also where there is none.
        image_sizes: ``int64 (N, 2)``: height and width in pixels, 0 if it cannot be decoded.
        mask_sizes: The same of the masks, 0 also where there is none.
        class_counts: ``int64 (N, 256)``: pixels of each value in the mask, ignored ones at 255.
        thumbnails: ``uint8 (N, 64, 64)``: the picture in grey, averaged over areas; of more than 8 bits it goes from
            its own darkest to its own brightest place.
        largest: ``int64 (N,)``: the largest number in a picture of 16 bits, 0 of any other.
        frames: ``int64 (N,)``: pages or frames of the picture, of which the first is read; 2 stands for several.
        contrast: ``float64 (N,)``: see `hsl.data.files.reading.contrast`, as the network sees the picture.
        stamps: By the stamp of its sources, whether a picture or its mask has changed since; ``""`` if one was gone.
        errors: Id -> why its picture or mask cannot be read; the sentences name the file.
        overlap: ``int64 (N,)``: pixels that annotations of different classes claim, of a mask painted from them; it
            and the next two are empty where nobody looked.
        sharpness: ``float64 (N,)``: see `hsl.data.files.reading.sharpness`.
        brightness: ``float64 (N,)``: mean of the RGB values, of 255.
    """

    ids: tuple[str, ...]
    content: tuple[str, ...]
    mask_content: tuple[str, ...]
    image_sizes: NDArray[np.int64]
    mask_sizes: NDArray[np.int64]
    class_counts: NDArray[np.int64]
    thumbnails: NDArray[np.uint8]
    largest: NDArray[np.int64]
    frames: NDArray[np.int64]
    contrast: NDArray[np.float64]
    stamps: tuple[str, ...]
    errors: Mapping[str, str]
    overlap: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    sharpness: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    brightness: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Row numbers of some ids."""
        position = {name: row for row, name in enumerate(self.ids)}
        return np.array([position[name] for name in ids], dtype=np.int64)

    def by_size(self, ids: Sequence[str]) -> tuple[str, ...]:
        """Some ids in the order of height, then width, then name."""
        sizes = self.image_sizes[self.rows(ids)].tolist()
        return tuple(name for _, name in sorted(zip(sizes, ids, strict=True)))


def scan(catalogue: Catalogue, cache_dir: Path | None, workers: int) -> Scan:
    """Read and decode every picture and mask once, and keep what was found.

    A broken file does not end the pass: all of them are found and named in ``errors``. What was found is
    stored in ``cache_dir`` under the stamps of the sources, so that only new and changed files are read
    again. Of two processes that would do so at once the second waits for the first, so that it is done once.

    Args:
        catalogue: The data set.
        cache_dir: Where to store; ``None`` stores nothing.
        workers: Processes that read, as in `hsl.data.files.reading.read_records`.

    Raises:
        DataError: There is no picture, or a worker was killed.
        OSError: ``cache_dir`` cannot be written, or its disk is full.
    """
    records = catalogue.records
    how = Decoding.of(catalogue)
    if not records:
        raise DataError(f"`{catalogue.name}` should hold pictures. Found none. Check `data.root`.")
    stamps = tuple(stamp_of(record) for record in records)
    keys = _keys(records, stamps, how)
    path = None if cache_dir is None else Path(cache_dir) / _file_name(catalogue)
    known = {} if path is None else _load(path)
    if path is None or all(key in known for key in keys):
        complete = _complete(catalogue, keys, known, how, workers)
    else:
        with _alone(path, catalogue.name):
            known = _load(path)  # another process may have read the pictures meanwhile
            complete = _complete(catalogue, keys, known, how, workers)
            if any(key not in known for key in keys):
                _store(path, keys, complete)
    return Scan(
        ids=tuple(record.id for record in records),
        content=tuple(reading.content for reading in complete),
        mask_content=tuple(reading.mask_content for reading in complete),
        image_sizes=np.array([reading.image_size for reading in complete], np.int64),
        mask_sizes=np.array([reading.mask_size for reading in complete], np.int64),
        class_counts=np.stack([reading.class_counts for reading in complete]),
        thumbnails=np.stack([reading.thumbnail for reading in complete]),
        largest=np.array([reading.largest for reading in complete], np.int64),
        frames=np.array([reading.frames for reading in complete], np.int64),
        contrast=np.array([reading.contrast for reading in complete]),
        stamps=stamps,
        errors={record.id: reading.error for record, reading in zip(records, complete, strict=True) if reading.error},
        overlap=np.array([reading.overlap for reading in complete], np.int64),
        sharpness=np.array([reading.sharpness for reading in complete]),
        brightness=np.array([reading.brightness for reading in complete]),
    )


def _complete(
    catalogue: Catalogue, keys: Sequence[str], known: Mapping[str, Reading], how: Decoding, workers: int
) -> list[Reading]:
    """What is known, and what has to be read now, in the order of the catalogue."""
    new = by_block(catalogue.records, [i for i, key in enumerate(keys) if key not in known])
    read = read_records(f"reading {catalogue.name}", [catalogue.records[i] for i in new], how, workers)
    readings = dict(zip(new, read, strict=True))
    return [readings[i] if i in readings else known[key] for i, key in enumerate(keys)]


@contextmanager
def _alone(path: Path, name: str) -> Iterator[None]:
    """Of two runs that start at once the second waits and takes what the first has read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_suffix(".lock")
    try:
        held = try_lock(lock)
        if held is None:
            log.warning("Another process reads `%s`; this one waits for what it finds (`%s`).", name, lock)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        yield  # each reads for itself
        return
    with held or locked(lock):
        yield


def bits_of(scan: Scan, ids: Sequence[str]) -> tuple[int, int] | None:
    """The least and the most bits that the largest numbers of pictures of 16 bits have; ``None`` without such pictures.

    Args:
        scan: The scan.
        ids: The pictures.
    """
    bits = [number.bit_length() for number in scan.largest[scan.rows(ids)].tolist() if number]
    return (min(bits), max(bits)) if bits else None


def annotation_hashes(catalogue: Catalogue, scan: Scan, parts: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """SHA-256 of the masks and attributes of each part: what a score depends on beside the pictures themselves.

    Args:
        catalogue: The data set.
        scan: Its scan.
        parts: Name of a part -> ids.
    """
    attributes = {record.id: sorted(record.attributes.items()) for record in catalogue.records}
    masks = dict(zip(scan.ids, scan.mask_content, strict=True))
    palette = None if catalogue.palette is None else sorted(catalogue.palette.items())
    reading: list[Any] = [list(catalogue.classes), palette, catalogue.ignore_index]
    reading += [] if catalogue.values is None else [sorted(catalogue.values.items())]
    reading += ["nearest"] * catalogue.nearest
    pages = {part: [reading, [[name, masks[name], attributes[name]] for name in sorted(ids)]]
             for part, ids in parts.items()}  # fmt: skip
    return {part: hashlib.sha256(json.dumps(page).encode()).hexdigest() for part, page in pages.items()}


def stamp_of(record: Record) -> str:
    """A fingerprint of the bytes of picture and mask; ``""`` if one is gone."""
    try:
        return json.dumps([source.stamp() for source in (record.image, record.mask) if source is not None])
    except DataError:
        return ""


def _keys(records: Sequence[Record], stamps: Sequence[str], how: Decoding) -> list[str]:
    """What names the bytes of each record and how they are decoded; ``""`` if a source is gone."""
    keys = []
    for record, stamp in zip(records, stamps, strict=True):
        names = [source.name for source in (record.image, record.mask) if source is not None]
        page = json.dumps([LAYOUT, repr(how), isinstance(record.mask, IndexMask), names, stamp])
        keys.append(hashlib.sha256(page.encode()).hexdigest() if stamp else "")
    return keys


def _file_name(catalogue: Catalogue) -> str:
    """The same while pictures come and go, another for a data set of the same name elsewhere."""
    first = f"{catalogue.name}\0{catalogue.records[0].image.name}"
    return f"scan-{hashlib.sha256(first.encode()).hexdigest()[:16]}.npz"


def _store(path: Path, keys: Sequence[str], readings: Sequence[Reading]) -> None:
    """What has an error is left out: the moment may have failed, not the file."""
    kept = [(key, reading) for key, reading in zip(keys, readings, strict=True) if key and not reading.error]
    columns = (
        np.array([key for key, _ in kept], dtype=np.str_),
        np.array([reading.content for _, reading in kept], dtype=np.str_),
        np.array([reading.mask_content for _, reading in kept], dtype=np.str_),
        np.array([(*reading.image_size, *reading.mask_size) for _, reading in kept], np.int64),
        np.array([reading.class_counts for _, reading in kept], np.int64),
        np.array([reading.thumbnail for _, reading in kept], np.uint8),
        np.array([[getattr(reading, name) for name in _NUMBERS] for _, reading in kept], np.float64),
    )
    write_arrays(path, dict(zip(_COLUMNS, columns, strict=True)))


def _load(path: Path) -> dict[str, Reading]:
    if not path.is_file():
        return {}
    try:
        columns = list(read_arrays(path, _COLUMNS).values())
    except DataError as error:
        log.warning("%s The data set is read anew.", error)
        return {}
    if columns[-1].shape[1:] != (len(_NUMBERS),):  # of another version, which measured less or more
        return {}
    found = {}
    for key, content, mask_content, sizes, counts, thumbnail, numbers in zip(*columns, strict=True):
        h, w, mask_h, mask_w = sizes.tolist()
        reading = Reading(str(content), str(mask_content), (h, w), (mask_h, mask_w), counts, thumbnail)
        for name, number in zip(_NUMBERS, numbers.tolist(), strict=True):
            setattr(reading, name, int(number) if name in _WHOLE else number)
        found[str(key)] = reading
    return found


@dataclass(frozen=True, eq=False)
class Unchanged:
    """Refuses a record whose picture or mask is not the one that was scanned.

    A stamp costs one look at the file's status. Where it differs the bytes are compared, because a copy, a link or new
    permissions change a stamp too.
    """

    scanned: dict[str, tuple[str, str, str]]

    @classmethod
    def since(cls, scan: Scan) -> Self:
        """Stamp and hashes of every record of a scan."""
        return cls(dict(zip(scan.ids, zip(scan.stamps, scan.content, scan.mask_content, strict=True), strict=True)))

    def __call__(self, record: Record) -> None:
        """Look at a record.

        Raises:
            DataError: Its picture or mask has changed, or is gone.
        """
        stamp, *contents = self.scanned[record.id]
        if stamp_of(record) == stamp:
            return
        for source, content in zip((record.image, record.mask), contents, strict=True):
            if source is not None and hashlib.sha256(source.read()).hexdigest() != content:
                raise DataError(
                    f"`{source.name}` has changed since the run read it first. Put the old file back and go on with "
                    "`resume=last`, or start a new run."
                )
        self.scanned[record.id] = (stamp_of(record), contents[0], contents[1])
