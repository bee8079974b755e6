"""Copies and near-duplicates as pairs, with how unlike their masks are: those first that contradict each other."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsl.data.audit.near_duplicates import ORIENTATIONS, stored_near_duplicates
from hsl.data.files.records import Catalogue
from hsl.data.files.scan import Scan

NOTABLE = 0.01
_BLOCK, _ROUNDING = 1024, 1e-9


@dataclass(frozen=True)
class Twin:
    """Two pictures of one content, or two near-duplicates.

    Attributes:
        first: Id of one picture.
        second: Id of the other, which put into ``orientation`` looks like the first.
        orientation: One of `hsl.data.audit.near_duplicates.ORIENTATIONS`.
        correlation: Of the small grey pictures; 1 for copies.
        copy: Whether the files are the same, byte for byte.
        unlike: Half the summed difference of the class shares of the two masks, 0 to 1: at least so large a share of
            pixels is of another class. ``None``: there are no two masks of the data set's own to compare.
    """

    first: str
    second: str
    orientation: str
    correlation: float
    copy: bool
    unlike: float | None


@dataclass(frozen=True)
class Twins:
    """The first pairs in the order of how unlike their masks are, and how many there are.

    Attributes:
        pairs: Those to show.
        number: Of all pairs.
        contradicting: Of those whose masks are unlike in the shares of the classes: at all, of copies; by ``NOTABLE``
            of the pixels or more, of near-duplicates.
    """

    pairs: tuple[Twin, ...]
    number: int
    contradicting: int


def find_twins(catalogue: Catalogue, scan: Scan, threshold: float | None, cache_dir: Path | None, most: int) -> Twins:
    """Pairs by what the scan knows: the most unlike masks first, then the most alike pictures. No file is read.

    Of a file that is there n times there are n - 1 pairs, each with the first of them. Copies whose masks are other
    files come before near-duplicates, whose masks nearly always are.

    Args:
        catalogue: The data set.
        scan: Its scan.
        threshold: Of near-duplicates, see `hsl.data.audit.near_duplicates.find_near_duplicates`; ``None``: copies only.
        cache_dir: Where the search is stored.
        most: So many pairs are returned.
    """
    first, second = _copies(scan)
    copy = np.ones(len(first), bool)
    turn, correlation = np.zeros(len(first), np.int64), np.ones(len(first))
    if threshold is not None:
        decoded = np.flatnonzero(scan.image_sizes[:, 0] > 0)
        near = stored_near_duplicates(scan.thumbnails[decoded], threshold, cache_dir)
        content = np.unique(scan.content, return_inverse=True)[1]
        other = content[decoded[near.first]] != content[decoded[near.second]]
        first = np.concatenate([first, decoded[near.first][other]])
        second = np.concatenate([second, decoded[near.second][other]])
        copy = np.concatenate([copy, np.zeros(int(other.sum()), bool)])
        turn = np.concatenate([turn, near.orientation[other]])
        correlation = np.concatenate([correlation, near.correlation[other]])
    unlike = _unlike(catalogue, scan, first, second)
    mask = np.unique(scan.mask_content, return_inverse=True)[1]
    unlike_copy = copy & (mask[first] != mask[second])
    order = np.lexsort((second, first, -correlation, ~unlike_copy, -np.nan_to_num(unlike), np.isnan(unlike)))
    pairs = tuple(
        Twin(scan.ids[first[i]], scan.ids[second[i]], ORIENTATIONS[turn[i]], float(correlation[i]), bool(copy[i]),
             None if np.isnan(unlike[i]) else float(unlike[i]))
        for i in order[:most].tolist()
    )  # fmt: skip
    return Twins(pairs, len(order), int((unlike >= np.where(copy, _ROUNDING, NOTABLE)).sum()))


def _copies(scan: Scan) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the first and the others of each content that is there several times."""
    holders: dict[str, list[int]] = defaultdict(list)
    for row, content in enumerate(scan.content):
        if content:
            holders[content].append(row)
    rows = [(names[0], other) for names in holders.values() for other in names[1:]]
    first, second = np.array(rows, np.int64).reshape(-1, 2).T
    return first, second


def _unlike(
    catalogue: Catalogue, scan: Scan, first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.float64]:
    """``(P,)``; NaN where a mask is missing, cannot be read, or is not the data set's own."""
    counts = scan.class_counts[:, scan.class_counts.any(0)]
    pixels = counts.sum(1, keepdims=True)
    shares = counts / np.maximum(pixels, 1)
    own = (pixels[:, 0] > 0) & ~np.isin(scan.ids, list(catalogue.relabelled))
    found = np.full(len(first), np.nan)
    for start in range(0, len(first), _BLOCK):
        one, other = first[start : start + _BLOCK], second[start : start + _BLOCK]
        half = np.abs(shares[one] - shares[other]).sum(1) / 2
        found[start : start + _BLOCK] = np.where(own[one] & own[other], half, np.nan)
    return found
