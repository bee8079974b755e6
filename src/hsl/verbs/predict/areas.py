"""What of a picture which class covers: a row of ``areas.csv``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Areas:
    """Pixels, share and mean confidence of each class of one picture, from all of it or part by part.

    Args:
        name: id of the picture.
        classes: their names.

    Example:
        >>> areas = Areas("reef", ["sand", "coral"])
        >>> areas.add(np.array([[0, 1]]), np.array([[0.5, 0.75]], np.float32))
        >>> areas.add(np.array([[0, 0]]), np.array([[1.0, 0.75]], np.float32))
        >>> areas.row(2, 2)["share/sand"], areas.row(2, 2)["confidence/sand"]
        (0.75, 0.75)
    """

    def __init__(self, name: str, classes: Sequence[str]) -> None:
        self._name, self._classes = name, classes
        self._counts = np.zeros(len(classes), np.int64)
        self._confidence = np.zeros(len(classes))

    def add(self, prediction: NDArray[np.integer[Any]], confidence: NDArray[np.float32]) -> None:
        """Take a part ``(h, w)``."""
        flat, number = prediction.ravel(), len(self._classes)
        self._counts += np.bincount(flat, minlength=number)
        self._confidence += np.bincount(flat, confidence.ravel(), minlength=number)

    def row(self, height: int, width: int) -> dict[str, Any]:
        """The row of a picture of this size."""
        pixels = height * width
        row: dict[str, Any] = {
            "id": self._name, "height": height, "width": width, "confidence": float(self._confidence.sum() / pixels)
        }  # fmt: skip
        counts = dict(zip(self._classes, self._counts.tolist(), strict=True))
        row |= {f"pixels/{each}": count for each, count in counts.items()}
        row |= {f"share/{each}": count / pixels for each, count in counts.items()}
        sums = zip(counts, self._confidence.tolist(), strict=True)
        return row | {f"confidence/{each}": total / counts[each] if counts[each] else None for each, total in sums}
