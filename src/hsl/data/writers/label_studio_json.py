"""Label Studio: a JSON list of tasks with brush strokes, which keep every pixel, and the interface that shows them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from hsl.data.writers.regions import Region, Segmented
from hsl.data.writers.streams import JsonList
from hsl.files.io import write_atomically

_SAMPLES = 4  # red, green, blue and alpha of each pixel, all alike
_WORD = 8
_SIZES = (3, 4, 8, 16)
"""Bits that the length of a run may take, in the head of the stream."""


class LabelStudioFile:
    """Writes ``label_studio.json`` and ``label_studio.xml``, the labelling interface.

    The strokes are ``predictions``: Label Studio shows them to whoever opens the task, and what is then submitted is
    exported as annotations. The pictures are called ``/data/local-files/?d=NAME``.

    Args:
        folder: where it is written.
        classes: names; index 0 is no label.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self._tasks, self._classes = JsonList(folder / "label_studio.json"), classes
        labels = "".join(f"\n    <Label value={quoteattr(name)}/>" for name in classes[1:])
        interface = (
            '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
            f'  <BrushLabels name="tag" toName="image">{labels}\n  </BrushLabels>\n</View>\n'
        )
        write_atomically(folder / "label_studio.xml", interface.encode())

    def add(self, segmented: Segmented) -> None:
        """Write the task of a picture: a stroke for each object, and one for all else of a class."""
        regions = enumerate(segmented.regions(connected=False), start=1)
        result = [self._stroke(f"{segmented.id}-{number}", region, segmented) for number, region in regions]
        image = f"/data/local-files/?d={segmented.picture.name}"
        self._tasks.add({"data": {"image": image}, "predictions": [{"model_version": "hsl", "result": result}]})

    def _stroke(self, name: str, region: Region, segmented: Segmented) -> dict[str, Any]:
        whole = np.zeros((segmented.height, segmented.width), dtype=np.uint8)
        rows, columns = region.mask.shape
        whole[region.top : region.top + rows, region.left : region.left + columns] = region.mask * np.uint8(255)
        value = {"format": "rle", "rle": brush_runs(whole), "brushlabels": [self._classes[region.label]]}
        return {
            "id": name, "type": "brushlabels", "from_name": "tag", "to_name": "image", "image_rotation": 0,
            "original_width": segmented.width, "original_height": segmented.height, "value": value,
        }  # fmt: skip

    def close(self) -> None:
        """Write the end."""
        self._tasks.close()


def brush_runs(mask: NDArray[np.uint8]) -> list[int]:
    """A mask as Label Studio packs the RGBA pixels of a stroke, byte by byte.

    A stream of bits: the number of bytes (32), the bits of a byte less 1 (5), four possible widths of a length less 1
    (4 each); then run after run: 1, the place of its width (2), its length less 1, its value (8).

    Source: the run-length form of thi.ng/rle-pack, which Label Studio's brush uses.

    Args:
        mask: ``uint8 (H, W)`` of 0 and 255.

    Example:
        >>> brush_runs(np.array([[0, 255]], dtype=np.uint8))
        [0, 0, 0, 8, 57, 27, 252, 96, 17, 255, 128]
    """
    flat = mask.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=~flat[:1]))
    lengths = np.diff(starts, append=flat.size) * _SAMPLES
    bits = [_bits(flat.size * _SAMPLES, 32), _bits(_WORD - 1, 5), *(_bits(size - 1, 4) for size in _SIZES)]
    for length, value in zip(lengths.tolist(), flat[starts].tolist(), strict=True):
        for part in _parts(length):
            place = next(place for place, size in enumerate(_SIZES) if part <= 1 << size)
            bits += ["1", _bits(place, 2), _bits(part - 1, _SIZES[place]), _bits(value, _WORD)]
    stream = "".join(bits)
    stream += "0" * (-len(stream) % 8)
    packed: list[int] = list(int(stream, 2).to_bytes(len(stream) // 8, "big"))
    return packed


def _parts(length: int) -> list[int]:
    """A run in pieces whose length has a width."""
    most = 1 << _SIZES[-1]
    return [most] * (length // most) + ([length % most] if length % most else [])


def _bits(number: int, width: int) -> str:
    return format(number, f"0{width}b")
