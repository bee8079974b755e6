"""YOLO: a text file for each picture, its regions as polygons in shares of width and height."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hsl.data.writers.outlines import outlines_of
from hsl.data.writers.regions import Segmented
from hsl.files.io import write_atomically


class YoloFiles:
    """Writes ``labels/<id>.txt`` and ``data.yaml``; the pictures belong into ``images/`` beside it.

    The background is no class: what YOLO calls 0 is class 1. A region with holes is one polygon with bridges, see
    `hsl.data.writers.outlines.Outline.bridged`; parts of an object that do not touch are polygons of their own.

    Args:
        folder: where it is written.
        classes: names; index 0 is background.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        import yaml

        self._folder = folder
        names = dict(enumerate(classes[1:]))
        content = {"path": ".", "train": "images", "val": "images", "names": names}
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        write_atomically(folder / "data.yaml", text.encode())

    def add(self, segmented: Segmented) -> None:
        """Write the file of a picture; it is empty where nothing is shown."""
        size = np.array([segmented.width, segmented.height])
        lines = []
        for region in segmented.regions():
            for outline in outlines_of(region):
                shares = (outline.bridged() / size).ravel().tolist()
                lines.append(f"{region.label - 1} {' '.join(f'{share:.9g}' for share in shares)}\n")
        write_atomically(self._folder / "labels" / f"{segmented.id}.txt", "".join(lines).encode())

    def close(self) -> None:
        """Nothing is left to do."""
