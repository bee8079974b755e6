"""One pass over a data set: what the split, the audit and the class weights have to know of every picture."""

import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsl.config import DataError
from hsl.data.reading import Decoding, Reading, read_records
from hsl.data.records import Catalogue, Record
from hsl.files import write_atomically

LAYOUT = 1
"""Raised when a stored row comes to mean something else; all rows are then made anew."""

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
        thumbnails: ``uint8 (N, 64, 64)``: the picture in grey, averaged over areas.
        errors: Id -> why its picture or mask cannot be read; the sentences name the file.
    """

    ids: tuple[str, ...]
    content: tuple[str, ...]
    mask_content: tuple[str, ...]
    image_sizes: NDArray[np.int64]
    mask_sizes: NDArray[np.int64]
    class_counts: NDArray[np.int64]
    thumbnails: NDArray[np.uint8]
    errors: Mapping[str, str]

    def rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Row numbers of some ids."""
        position = {name: row for row, name in enumerate(self.ids)}
        return np.array([position[name] for name in ids], dtype=np.int64)


def scan(catalogue: Catalogue, cache_dir: Path | None, workers: int) -> Scan:
    """Read and decode every picture and mask once, and keep what was found.

    A broken file does not end the pass: all of them are found and named in ``errors``. What was found is
    stored in ``cache_dir`` under the stamps of the sources, so that only new and changed files are read
    again. Two processes may do so at once.

    Args:
        catalogue: The data set.
        cache_dir: Where to store; ``None`` stores nothing.
        workers: Processes that read, as in `hsl.data.reading.read_records`.

    Raises:
        DataError: There is no picture, or a worker was killed.
        OSError: ``cache_dir`` cannot be written, or its disk is full.
    """
    records = catalogue.records
    how = Decoding(catalogue.palette, catalogue.value_range, catalogue.ignore_index)
    if not records:
        raise DataError(f"`{catalogue.name}` should hold pictures. Found none. Check `data.root`.")
    keys = _keys(records, how)
    path = None if cache_dir is None else Path(cache_dir) / _file_name(catalogue)
    known = {} if path is None else _load(path)
    readings = [known.get(key) for key in keys]
    todo = [i for i, reading in enumerate(readings) if reading is None]
    new = read_records(f"reading {catalogue.name}", [records[i] for i in todo], how, workers)
    for i, reading in zip(todo, new, strict=True):
        readings[i] = reading
    complete = [reading for reading in readings if reading is not None]
    if path is not None and (todo or len(known) != len(records)):
        _store(path, keys, complete)
    return Scan(
        ids=tuple(record.id for record in records),
        content=tuple(reading.content for reading in complete),
        mask_content=tuple(reading.mask_content for reading in complete),
        image_sizes=np.array([reading.image_size for reading in complete], np.int64),
        mask_sizes=np.array([reading.mask_size for reading in complete], np.int64),
        class_counts=np.stack([reading.class_counts for reading in complete]),
        thumbnails=np.stack([reading.thumbnail for reading in complete]),
        errors={record.id: reading.error for record, reading in zip(records, complete, strict=True) if reading.error},
    )


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
    reading = [list(catalogue.classes), palette, catalogue.ignore_index]
    pages = {part: [reading, [[name, masks[name], attributes[name]] for name in sorted(ids)]]
             for part, ids in parts.items()}  # fmt: skip
    return {part: hashlib.sha256(json.dumps(page).encode()).hexdigest() for part, page in pages.items()}


def _keys(records: Sequence[Record], how: Decoding) -> list[str]:
    """What names the bytes of each record and how they are decoded; ``""`` if a source is gone."""
    palette = None if how.palette is None else sorted(how.palette.items())
    decoding = json.dumps([LAYOUT, palette, how.value_range, how.ignore_index])
    return [_key(record, decoding) for record in records]


def _key(record: Record, decoding: str) -> str:
    try:
        image = [record.image.name, record.image.stamp()]
        mask = None if record.mask is None else [record.mask.name, record.mask.stamp()]
    except DataError:
        return ""
    return hashlib.sha256(json.dumps([decoding, image, mask]).encode()).hexdigest()


def _file_name(catalogue: Catalogue) -> str:
    """The same while pictures come and go, another for a data set of the same name elsewhere."""
    first = f"{catalogue.name}\0{catalogue.records[0].image.name}"
    return f"scan-{hashlib.sha256(first.encode()).hexdigest()[:16]}.npz"


def _store(path: Path, keys: Sequence[str], readings: Sequence[Reading]) -> None:
    """What has an error is left out: the moment may have failed, not the file."""
    kept = [(key, reading) for key, reading in zip(keys, readings, strict=True) if key and not reading.error]
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        key=np.array([key for key, _ in kept], dtype=np.str_),
        content=np.array([reading.content for _, reading in kept], dtype=np.str_),
        mask_content=np.array([reading.mask_content for _, reading in kept], dtype=np.str_),
        sizes=np.array([(*reading.image_size, *reading.mask_size) for _, reading in kept], np.int64),
        class_counts=np.array([reading.class_counts for _, reading in kept], np.int64),
        thumbnail=np.array([reading.thumbnail for _, reading in kept], np.uint8),
    )
    write_atomically(path, buffer.getvalue())


def _load(path: Path) -> dict[str, Reading]:
    if not path.is_file():
        return {}
    names = ("key", "content", "mask_content", "sizes", "class_counts", "thumbnail")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            columns = [stored[name] for name in names]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        log.warning("`%s` cannot be read (%s). The data set is read anew.", path, error)
        return {}
    return {
        str(key): Reading(str(content), str(mask_content), (h, w), (mask_h, mask_w), counts, thumbnail)
        for key, content, mask_content, (h, w, mask_h, mask_w), counts, thumbnail in zip(
            columns[0], columns[1], columns[2], columns[3].tolist(), *columns[4:], strict=True
        )
    }
