"""What the parts of a split hold of each class, by groups: from the data to `hsl.reports.statistics.part_tests`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.data.labels.image_labels import HEAD
from hsl.data.prepared import PreparedData
from hsl.reports.statistics.part_tests import PartCounts, compare_parts
from hsl.run_folder.provenance import PartTests


def part_tests(data: PreparedData) -> PartTests:
    """Compare the parts of an inspected data set in the classes of its masks and of its image labels.

    The unit is the group that the split keeps whole; a picture where it keeps none. With pseudo-labels the training
    part is what is trained on.
    """
    unit = "groups" if data.fold_assignment.groups else "pictures"
    groups = {part: _groups(data, ids) for part, ids in data.parts.items() if ids}
    tests = []
    masks = {part: _of_masks(data, part, index) for part, index in groups.items()}
    if any(each.known.any() for each in masks.values()):
        tests += compare_parts(data.head, data.classes[data.head], masks, unit)
    if data.image_labels is not None:
        labels = {part: _of_labels(data, part, index) for part, index in groups.items()}
        one_class = not data.image_labels.several
        tests += compare_parts(HEAD, data.image_labels.classes, labels, unit, one_class=one_class)
    return PartTests(data=data.catalogue.name, fold=data.fold, unit=unit, tests=tests)


def _groups(data: PreparedData, ids: Sequence[str]) -> NDArray[np.int64]:
    """Number of the group of each picture."""
    attributes = {record.id: record.attributes for record in data.catalogue.records}
    values = [attributes[name].get(data.fold_assignment.groups or "", name) for name in ids]
    return np.unique(values, return_inverse=True)[1]


def _of_masks(data: PreparedData, part: str, index: NDArray[np.int64]) -> PartCounts:
    counts = data.heads.count(data.scan.class_counts[data.scan.rows(data.parts[part])])[data.head]
    pixels = _summed(counts, index)
    known = np.broadcast_to(pixels.sum(1, keepdims=True) > 0, pixels.shape)
    return PartCounts(pixels, pixels > 0, known)


def _of_labels(data: PreparedData, part: str, index: NDArray[np.int64]) -> PartCounts:
    place = {record.id: i for i, record in enumerate(data.catalogue.records)}
    chosen = [place[name] for name in data.parts[part]]
    labels: Any = data.image_labels
    return PartCounts(None, _summed(labels.shown()[chosen], index) > 0, _summed(labels.known()[chosen], index) > 0)


def _summed(counts: NDArray[Any], index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Over the pictures of each group."""
    total = np.zeros((int(index.max()) + 1, counts.shape[1]), np.int64)
    np.add.at(total, index, counts)
    return total
