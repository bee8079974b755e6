"""Long files written piece by piece, so that none has to fit into memory; and run lengths as the tools count them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class JsonList:
    """A JSON list in a file, an item after the other.

    Args:
        path: the file, in a folder that nobody reads yet: half of a list is no JSON.
        before: what stands before the first item.
    """

    def __init__(self, path: Path, before: str = "[") -> None:
        self._path, self._between = path, "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(before, encoding="utf8")

    def add(self, item: Any) -> None:
        """Write an item."""
        append(self._path, self._between + json.dumps(item, ensure_ascii=False))
        self._between = ",\n"

    def close(self, after: str = "]") -> None:
        """Write what stands after the last item."""
        append(self._path, f"\n{after}\n")


def append(path: Path, text: str) -> None:
    """Write at the end of a file, which is open only meanwhile: whoever stops leaves none open."""
    with path.open("a", encoding="utf8") as file:
        file.write(text)


def run_counts(flat: NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of a flat mask, in turn unset and set; the first is of unset pixels, and may be 0.

    Example:
        >>> run_counts(np.array([True, True, False]))
        [0, 2, 1]
        >>> run_counts(np.array([False, True]))
        [1, 1]
    """
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts: list[int] = np.diff(ends, prepend=0, append=flat.size).tolist()
    return [0, *counts] if flat.size and flat[0] else counts
