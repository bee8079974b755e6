"""COCO: one JSON file, its regions as run lengths, which keep every pixel."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hsl.data.writers.regions import Region, Segmented
from hsl.data.writers.streams import JsonList, run_counts


class CocoFile:
    """Writes ``coco.json``: ``annotations`` as they come, then ``images`` and ``categories``.

    ``segmentation`` is ``{"size": [H, W], "counts": [...]}``, down the columns, the form in which COCO itself stores
    run lengths; ``iscrowd`` is 0, since each is one object or one connected region. A category's id is the class index.

    Args:
        folder: where it is written.
        classes: names; index 0 is no category.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self._annotations = JsonList(folder / "coco.json", '{"annotations": [')
        self._classes, self._images, self._number = classes, list[dict[str, Any]](), 0

    def add(self, segmented: Segmented) -> None:
        """Write the annotations of a picture."""
        height, width = segmented.height, segmented.width
        number = len(self._images) + 1
        self._images.append({"id": number, "file_name": segmented.picture.name, "height": height, "width": width})
        for region in segmented.regions():
            self._number += 1
            rows, columns = region.mask.shape
            self._annotations.add({
                "id": self._number, "image_id": number, "category_id": region.label, "iscrowd": 0,
                "segmentation": {"size": [height, width], "counts": column_counts(region, height, width)},
                "area": int(region.mask.sum()), "bbox": [region.left, region.top, columns, rows],
            })  # fmt: skip

    def close(self) -> None:
        """Write pictures and categories."""
        categories = [{"id": index, "name": name} for index, name in enumerate(self._classes) if index]
        rest = f'"images": {json.dumps(self._images, ensure_ascii=False)}'
        rest += f',\n"categories": {json.dumps(categories, ensure_ascii=False)}'
        self._annotations.close(f"],\n{rest}}}")


def column_counts(region: Region, height: int, width: int) -> list[int]:
    """The run lengths of a region in its picture, down the columns, see `run_counts`.

    Example:
        >>> column_counts(Region(1, 1, 1, np.array([[True, True]])), height=3, width=3)
        [4, 1, 2, 1, 1]
    """
    rows, columns = region.mask.shape
    below = height - region.top - rows
    counts = run_counts(np.pad(region.mask.T, ((0, 0), (region.top, below))).ravel())
    counts[0] += region.left * height
    if right := (width - region.left - columns) * height:
        if len(counts) % 2:
            counts[-1] += right
        else:
            counts.append(right)
    return counts
