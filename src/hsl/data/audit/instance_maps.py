"""One look at a map of instance ids beside its mask: what the check of a data set with objects has to know."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.batch import IGNORE_INDEX
from hsl.data.files.decoding import Decoding
from hsl.data.files.records import Record
from hsl.errors import DataError

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
