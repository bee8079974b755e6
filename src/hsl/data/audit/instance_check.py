"""The check of all maps of instance ids before the first epoch, those of validation and test included."""

import dataclasses
import functools
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from hsl.data.audit.instance_maps import InstanceMap, read_instance_map
from hsl.data.files.decoding import Decoding
from hsl.data.files.reading import read_each
from hsl.data.files.records import Catalogue, Record
from hsl.data.splits.grouping import name_some
from hsl.errors import DataError
from hsl.files.io import write_atomically

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
