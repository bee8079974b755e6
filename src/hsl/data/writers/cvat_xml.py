"""CVAT for images 1.1: one XML file, its regions as masks, which keep every pixel."""

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from hsl.data.writers.regions import Region, Segmented
from hsl.data.writers.streams import append, run_counts


class CvatFile:
    """Writes ``annotations.xml``: the labels, then an ``<image>`` after the other with a ``<mask>`` for each region.

    ``rle`` counts along the rows of the box of the region, first the pixels that are not set.

    Args:
        folder: where it is written.
        classes: names; index 0 is no label.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self._classes, self._number = classes, 0
        self._path = folder / "annotations.xml"
        labels = "".join(f"<label><name>{escape(name)}</name><type>mask</type></label>" for name in classes[1:])
        head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n'
        folder.mkdir(parents=True, exist_ok=True)
        self._path.write_text(f"{head}<meta><task><labels>{labels}</labels></task></meta>\n", encoding="utf8")

    def add(self, segmented: Segmented) -> None:
        """Write the element of a picture."""
        append(
            self._path,
            f'<image id="{self._number}" name={quoteattr(segmented.picture.name)} '
            f'width="{segmented.width}" height="{segmented.height}">\n',
        )
        self._number += 1
        for region in segmented.regions():
            append(self._path, _mask(region, self._classes[region.label]))
        append(self._path, "</image>\n")

    def close(self) -> None:
        """Write the end."""
        append(self._path, "</annotations>\n")


def _mask(region: Region, label: str) -> str:
    rows, columns = region.mask.shape
    runs = ", ".join(map(str, run_counts(region.mask.ravel())))
    return (
        f'<mask label={quoteattr(label)} source="auto" occluded="0" rle="{runs}" left="{region.left}" '
        f'top="{region.top}" width="{columns}" height="{rows}" z_order="0"></mask>\n'
    )
