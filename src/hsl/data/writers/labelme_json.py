"""LabelMe: a JSON file for each picture, its regions as polygons."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hsl.data.writers.outlines import Ring, outlines_of
from hsl.data.writers.regions import Segmented
from hsl.files.io import write_atomically

_VERSION = "5.5.0"  # of the format that is written


class LabelmeFiles:
    """Writes ``labelme/<id>.json``.

    A region with holes is one polygon with bridges (`hsl.data.writers.outlines.Outline.bridged`): LabelMe has no holes.
    The parts of one object share their ``group_id``.

    Args:
        folder: where it is written.
        classes: names; index 0 is drawn by nobody.
        place: where the folder will lie, for the ways to the pictures.
    """

    def __init__(self, folder: Path, classes: Sequence[str], place: Path) -> None:
        self._folder, self._classes = folder / "labelme", classes
        self._place = place.resolve() / "labelme"

    def add(self, segmented: Segmented) -> None:
        """Write the file of a picture, whether it shows something or not."""
        shapes = []
        for number, region in enumerate(segmented.regions(), start=1):
            outlines = outlines_of(region)
            group = number if len(outlines) > 1 else None
            shapes += [_shape(outline.bridged(), self._classes[region.label], group) for outline in outlines]
        page: dict[str, Any] = {
            "version": _VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": Path(os.path.relpath(segmented.picture.resolve(), self._place)).as_posix(),
            "imageData": None,
            "imageHeight": segmented.height,
            "imageWidth": segmented.width,
        }
        write_atomically(self._folder / f"{segmented.id}.json", json.dumps(page, ensure_ascii=False).encode())

    def close(self) -> None:
        """Nothing is left to do."""


def _shape(ring: Ring, label: str, group: int | None) -> dict[str, Any]:
    return {
        "label": label, "points": ring.tolist(), "group_id": group, "description": "", "shape_type": "polygon",
        "flags": {}, "mask": None,
    }  # fmt: skip
