"""What cutting patches did to a data set: shares of the classes, coverage, distances."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from hsl.channels import class_pixels
from hsl.data.files.records import Catalogue
from hsl.data.patches.centres import Pixels

STRIP = 512
"""Rows that are looked at at once."""


@dataclass(frozen=True, eq=False)
class PictureCounts:
    """What was counted in one source picture.

    Attributes:
        id: Of the picture.
        shape: Height and width.
        before: ``int64 (256,)``: pixels of each value in its mask.
        after: The same summed over its patches; where patches overlap pixels count in each.
        foreground: Pixels of the classes that centres lie on.
        covered: Those of them that lie in a patch.
        centres: ``int64 (N, 2)``.
        corners: ``int64 (N, 2)``: first pixels of the patches.
    """

    id: str
    shape: tuple[int, int]
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    foreground: int
    covered: int
    centres: Pixels
    corners: Pixels


def covered_pixels(foreground: NDArray[np.bool_], corners: Pixels, size: int) -> int:
    """How many foreground pixels lie in at least one patch; takes the memory of `STRIP` rows.

    Example:
        >>> covered_pixels(np.ones((4, 4), bool), np.array([[0, 0], [0, 1]]), size=2)
        6
    """
    height, width = foreground.shape
    total = 0
    for top in range(0, height, STRIP):
        covered = np.zeros((min(STRIP, height - top), width), bool)
        for y, x in corners[(corners[:, 0] < top + STRIP) & (corners[:, 0] + size > top)].tolist():
            covered[max(y - top, 0) : y + size - top, x : x + size] = True
        total += int(np.count_nonzero(covered & foreground[top : top + STRIP]))
    return total


def neighbour_distances(centres: Pixels) -> NDArray[np.float64]:
    """For each centre the distance to the nearest other one; empty where there is no other."""
    if len(centres) < 2:
        return np.empty(0)
    return np.asarray(cKDTree(centres).query(centres, k=2)[0][:, 1], np.float64)


def class_table(counts: Sequence[PictureCounts], catalogue: Catalogue) -> pd.DataFrame:
    """A row for each class: pixels and shares of the labelled pixels before and after, and the ratio of the shares."""
    classes = catalogue.classes
    before, after = (
        class_pixels(np.sum([getattr(one, part) for one in counts], axis=0), len(classes), catalogue.overlapping)
        for part in ("before", "after")
    )
    table = pd.DataFrame({"class": classes, "pixels_before": before, "share_before": before / max(1, before.sum())})
    table["pixels_after"], table["share_after"] = after, after / max(1, after.sum())
    table["ratio"] = table["share_after"] / table["share_before"].where(before > 0)
    return table


def cut_table(counts: Sequence[PictureCounts]) -> pd.DataFrame:
    """A row for each source picture."""
    return pd.DataFrame([_row(one) for one in counts])


def summary(counts: Sequence[PictureCounts]) -> dict[str, float]:
    """Numbers of the whole set; ``coverage`` is pooled over the foreground pixels of all pictures."""
    distances = np.concatenate([neighbour_distances(one.centres) for one in counts])
    foreground = sum(one.foreground for one in counts)
    return {
        "pictures": len(counts),
        "pictures_without_patch": sum(not len(one.corners) for one in counts),
        "patches": sum(len(one.corners) for one in counts),
        "coverage": sum(one.covered for one in counts) / foreground if foreground else np.nan,
        "distance_min": float(distances.min()) if len(distances) else np.nan,
        "distance_median": float(np.median(distances)) if len(distances) else np.nan,
    }


def _row(counts: PictureCounts) -> dict[str, str | float]:
    distances = neighbour_distances(counts.centres)
    return {
        "id": counts.id,
        "height": counts.shape[0],
        "width": counts.shape[1],
        "patches": len(counts.corners),
        "foreground_pixels": counts.foreground,
        "coverage": counts.covered / counts.foreground if counts.foreground else np.nan,
        "distance_min": float(distances.min()) if len(distances) else np.nan,
        "distance_median": float(np.median(distances)) if len(distances) else np.nan,
    }
