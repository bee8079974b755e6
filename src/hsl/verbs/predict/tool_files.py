"""The formats of `hsl predict` and what writes each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from hsl.data.splits.grouping import name_some
from hsl.data.writers.coco_json import CocoFile
from hsl.data.writers.cvat_xml import CvatFile
from hsl.data.writers.geotiff_masks import GeotiffFiles
from hsl.data.writers.label_studio_json import LabelStudioFile
from hsl.data.writers.labelme_json import LabelmeFiles
from hsl.data.writers.regions import Segmented
from hsl.data.writers.yolo_text import YoloFiles

FORMATS = ("png", "rle", "labelme", "coco", "cvat", "label_studio", "yolo", "geotiff")


class Writer(Protocol):
    """Takes a picture after the other; what it wrote is whole once it is closed."""

    def add(self, segmented: Segmented) -> None:
        """Write a picture, or its part of a file."""

    def close(self) -> None:
        """Write what comes last."""


def writer_of(wanted: str, folder: Path, classes: Sequence[str], place: Path) -> Writer | None:
    """What writes a format; ``None`` of png and rle, which are no tool's.

    Args:
        wanted: one of `FORMATS`.
        folder: where it is written.
        classes: names; index 0 is background.
        place: where the folder will lie in the end.
    """
    match wanted:
        case "labelme":
            return LabelmeFiles(folder, classes, place)
        case "coco":
            return CocoFile(folder, classes)
        case "cvat":
            return CvatFile(folder, classes)
        case "label_studio":
            return LabelStudioFile(folder, classes)
        case "yolo":
            return YoloFiles(folder, classes)
        case "geotiff":
            return GeotiffFiles(folder, classes)
        case _:
            return None


def told_of(writer: Writer | None) -> list[str]:
    """What is said in the end of what was written."""
    if not isinstance(writer, GeotiffFiles) or not writer.without:
        return []
    named = name_some([f"`{name}`" for name in writer.without])
    return [f"{len(writer.without)} pictures have no position on earth, and neither have their maps: {named}."]
