"""The check of all maps of instance ids before the first epoch, those of validation and test included."""

import dataclasses
import functools
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.batch import IGNORE_INDEX
from hsl.data.files.decoding import Decoding
from hsl.data.files.reading import read_each
from hsl.data.files.records import Catalogue, Record
from hsl.data.splits.grouping import name_some
from hsl.errors import DataError
from hsl.files.io import write_atomically

OBJECT = 1
"""The class of the mask that the ids belong to."""


@dataclass(frozen=True, slots=True)
class InstanceMap:
    """What was found in one map.

    Attributes:
        height: In pixels.
        width: In pixels.
        wanted_height: That of the mask; of the picture where there is no mask.
        wanted_width: The same.
        num_objects: Different ids, 0 left out.
        largest: The largest of them, 0 without objects.
        absent: The smallest id that is missing below the largest, 0 if none is.
        marked: Pixels of an object in the map or the mask, those that the mask ignores left out; 0 without a mask, or
            with one of another size.
        unlike: Those of them that are so in one of both only.
        error: Why it cannot be read; the sentence names the file.
    """

    height: int = 0
    width: int = 0
    wanted_height: int = 0
    wanted_width: int = 0
    num_objects: int = 0
    largest: int = 0
    absent: int = 0
    marked: int = 0
    unlike: int = 0
    error: str = ""


def read_instance_map(record: Record, how: Decoding) -> InstanceMap:
    """Read and decode the map of one record, and its mask; what cannot be read ends up in ``error``.

    A mask or picture that cannot be read is the audit's finding, not one of the map.
    """
    source = record.instances
    if source is None:
        raise ValueError(f"`record.instances` should be a source. Found none for `{record.id}`.")
    try:
        ids = how.instances(source)
    except DataError as error:
        return InstanceMap(error=str(error))
    present = np.unique(ids)
    number, largest = int((present > 0).sum()), int(present[-1])
    mask, (wanted_height, wanted_width) = None, ids.shape
    try:
        if record.mask is None:
            wanted_height, wanted_width = how.image(record.image).shape[:2]
        else:
            mask = how.mask(record.mask)
            wanted_height, wanted_width = mask.shape
    except DataError:
        mask = None
    marked = unlike = 0
    if mask is not None and mask.shape == ids.shape:
        of_map, of_mask = (ids > 0) & (mask != IGNORE_INDEX), mask == OBJECT
        marked, unlike = int((of_map | of_mask).sum()), int((of_map != of_mask).sum())
    height, width = ids.shape
    return InstanceMap(height, width, wanted_height, wanted_width, number, largest, first_gap(present), marked, unlike)


def first_gap(present: NDArray[np.integer[Any]]) -> int:
    """The smallest id from 1 on that is missing below the largest, 0 if none is.

    Args:
        present: The ids of a map, each once and in order; 0 may be among them.

    Example:
        >>> first_gap(np.array([0, 1, 3])), first_gap(np.array([1, 2])), first_gap(np.array([0]))
        (2, 0, 0)
    """
    objects = present[present > 0]
    gaps = np.flatnonzero(objects != np.arange(1, objects.size + 1))
    return int(gaps[0]) + 1 if gaps.size else 0


LAYOUT = 2
"""Raised when a stored row comes to mean something else; all rows are then made anew."""
WARN_ABOVE, STOP_ABOVE = 0.1, 0.5
"""Share of the pixels of objects that are such in the map or in the mask only. Masks often leave out the borders of
objects that touch; where map and mask share less than half they were made from different annotations."""

log = logging.getLogger(__name__)


def check_instances(catalogue: Catalogue, cache_dir: Path | None, workers: int) -> None:
    """Read every map of instance ids once, and stop if one does not fit.

    A map should have the size of its mask, ids from 1 to n without a gap, and objects where the mask has some; a
    picture without objects has an empty map and a mask of background. Objects that differ from those of the mask in
    more than half of their pixels stop, in more than a tenth warn. What was found is stored in ``cache_dir`` under the
    stamps of the files, so that only new and changed ones are read again.

    Args:
        catalogue: The data set; class 1 is that of the objects. Records without instances are passed over.
        cache_dir: Where to store; ``None`` stores nothing.
        workers: Processes that read, as in `hsl.data.files.reading.read_each`.

    Raises:
        DataError: Maps do not fit; all kinds of faults at once, with the first few files of each. Or a worker was
            killed.
        OSError: ``cache_dir`` cannot be written, or its disk is full.
    """
    examples: dict[str, list[str]] = {}
    for record, seen in _read(catalogue, cache_dir, workers):
        name = "" if record.instances is None else record.instances.name
        if (fault := _fault(name, seen)) is not None:
            examples.setdefault(fault[0], []).append(fault[1])
    sentences = {
        kind: f"{len(named)} maps of instance ids {kind}: {name_some(named, 3)}. {_WAYS[kind]}"
        for kind, named in examples.items()
    }
    if sentences.keys() - {_DIFFER}:
        listed = "\n".join(sentences.values())
        raise DataError(f"`{catalogue.name}` should have maps of instance ids that fit. Found:\n{listed}")
    for sentence in sentences.values():
        log.warning("%s", sentence)


_BROKEN = "cannot be read"
_SIZE = "are unlike in size to their masks (height x width)"
_GAPS = "have gaps"
_EMPTY = "are empty though their masks have objects"
_OTHER = "show other objects than their masks"
_DIFFER = "differ from their masks, which does no harm where it is a border that was left out"
_WAYS = {
    _BROKEN: "Restore the files.",
    _SIZE: "Export both at the size of the picture.",
    _GAPS: "Number the objects of each picture from 1 without a gap.",
    _EMPTY: "Add the ids, or remove the pictures.",
    _OTHER: "Make map and mask from one annotation.",
    _DIFFER: "Else make map and mask from one annotation.",
}


def _fault(name: str, seen: InstanceMap) -> tuple[str, str] | None:
    """The first thing that is wrong with a map, a key of `_WAYS`, and how a message shows it."""
    if seen.error:
        return _BROKEN, seen.error
    if (seen.height, seen.width) != (seen.wanted_height, seen.wanted_width):
        return _SIZE, f"`{name}` is {seen.height} x {seen.width}, not {seen.wanted_height} x {seen.wanted_width}"
    if seen.absent:
        return _GAPS, f"`{name}` has no {seen.absent} of 1 to {seen.largest}"
    if not seen.num_objects and seen.marked:
        return _EMPTY, f"`{name}`"
    share = seen.unlike / max(1, seen.marked)
    if share <= WARN_ABOVE:
        return None
    return _OTHER if share > STOP_ABOVE else _DIFFER, f"`{name}` in {100 * share:.0f} % of the pixels of objects"


def _read(catalogue: Catalogue, cache_dir: Path | None, workers: int) -> Sequence[tuple[Record, InstanceMap]]:
    records = [record for record in catalogue.records if record.instances is not None]
    if not records:
        return []
    how = Decoding.of(catalogue)
    first = f"{catalogue.name}\0{records[0].image.name}"
    file = f"instances-{hashlib.sha256(first.encode()).hexdigest()[:16]}.json"
    path = None if cache_dir is None else Path(cache_dir) / file
    known = {} if path is None else _load(path)
    keys = [_key(record, how) for record in records]
    todo = [i for i, key in enumerate(keys) if key not in known]
    read = functools.partial(read_instance_map, how=how)
    new = read_each(f"instances of {catalogue.name}", [records[i] for i in todo], read, workers)
    seen = [known.get(key, InstanceMap()) for key in keys]
    for i, one in zip(todo, new, strict=True):
        seen[i] = one
    if path is not None and (todo or len(known) != len(records)):
        kept = {key: dataclasses.astuple(one) for key, one in zip(keys, seen, strict=True) if key and not one.error}
        write_atomically(path, json.dumps(kept).encode())
    return list(zip(records, seen, strict=True))


def _key(record: Record, how: Decoding) -> str:
    """What names the bytes of a map and of its mask and how they are decoded; ``""`` if a source is gone."""
    sources = [source for source in (record.instances, record.mask or record.image) if source is not None]
    try:
        files = [[source.name, source.stamp()] for source in sources]
    except DataError:
        return ""
    content = json.dumps([LAYOUT, repr(how), record.mask is None, files])
    return hashlib.sha256(content.encode()).hexdigest()


def _load(path: Path) -> dict[str, InstanceMap]:
    if not path.is_file():
        return {}
    try:
        return {key: InstanceMap(*row) for key, row in json.loads(path.read_text(encoding="utf8")).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("`%s` cannot be read (%s). The maps of instance ids are read anew.", path, error)
        return {}
