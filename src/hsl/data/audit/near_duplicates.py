"""Pictures that are the same picture, also flipped, turned, brighter or saved anew; and whether copies say the same."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.data.audit.rules import WARN, Finding, Subject
from hsl.data.files.decoding import Decoding
from hsl.data.splits.grouping import name_some
from hsl.errors import ConfigError, DataError
from hsl.files.io import read_arrays, write_arrays


def copied_pictures(subject: Subject, severity: str, image_labels: str | Sequence[str] | None) -> list[Finding]:
    """(g) Pictures of one content whose masks or labels contradict each other; alike ones inside a part are warned of.

    Copies in two parts are rule (a). A mask or label that is not known contradicts none, nor does a training mask that
    is not the data set's own: it may show another draw of the objects.

    Args:
        subject: What is audited.
        severity: Of contradictions.
        image_labels: The columns that are learnt, as in `hsl.data.labels.image_labels.read_image_labels`.
    """
    columns = [image_labels] if isinstance(image_labels, str) else list(image_labels or ())
    holders: dict[str, list[str]] = defaultdict(list)
    for name, content in zip(subject.scan.ids, subject.scan.content, strict=True):
        if content and name in subject.part_of:
            holders[content].append(name)
    masks = dict(zip(subject.scan.ids, subject.scan.mask_content, strict=True))
    alike, unlike = [], []
    for names in holders.values():
        if len(names) == 1:
            continue
        odd = [f"`{column}`" for column in columns if _labels_differ(subject, names, column)]
        odd += ["mask"] * _masks_differ(subject, names, masks)
        if odd:
            unlike.append((names, f" (unlike {', '.join(odd)})"))
        elif len({subject.part_of[name][0] for name in names}) == 1:
            alike.append((names, ""))
    way = "Keep the right one of each, or correct them, or go on with both by `data.audit.conflicts=warn`."
    counted = "files are there several times, with unlike masks or labels"
    found = [_finding(subject, severity, counted, unlike, way)] if unlike else []
    counted = "files are there several times in one part, and count as often"
    return found + ([_finding(subject, WARN, counted, alike, "Remove the copies.")] if alike else [])


def _finding(subject: Subject, severity: str, counted: str, sets: Sequence[tuple[list[str], str]], way: str) -> Finding:
    named = [" = ".join(map(subject.labelled, names)) + how for names, how in sets]
    ids = tuple(name for names, _ in sets for name in names)
    files = tuple(file for name in ids for file in subject.files(name))
    return Finding("g", severity, f"{len(sets)} {counted}: {name_some(named, 3)}. {way}", ids, files)


def _labels_differ(subject: Subject, names: Sequence[str], column: str) -> bool:
    return len({subject.records[name].attributes.get(column) for name in names} - {None}) > 1


def _masks_differ(subject: Subject, names: Sequence[str], contents: Mapping[str, str]) -> bool:
    """By their pixels: the same mask can be stored in several ways."""
    catalogue, records = subject.catalogue, subject.records
    decoding = Decoding.of(catalogue)
    own = [name for name in names if name not in catalogue.relabelled and name not in subject.scan.errors]
    masks = {contents[name]: mask for name in own if (mask := records[name].mask) is not None}
    if len(masks) < 2:
        return False
    first, *others = (decoding.mask(mask) for mask in masks.values())
    return any(not np.array_equal(first, other) for other in others)


log = logging.getLogger(__name__)

Floats = NDArray[np.float32]

ORIENTATIONS = ("identity", "rot90", "rot180", "rot270", "hflip", "transpose", "vflip", "antitranspose")
"""The symmetries of a square, by the index that `Pairs.orientation` holds. Turns are counter-clockwise."""

BLANK_STD = 1.0
_LAYOUT = 2  # raised when a stored search would find others
_BLOCK = 512
_SIDE, _POOLED = 64, 16
_GATHER = 1024  # pairs confirmed at a time: two float32 arrays of 16 MiB
_DENSE = 1 / 256  # above this share of candidates one matrix product is cheaper than gathering the pairs
_SLACK = 1e-4  # float32 rounding of the bound


@dataclass(frozen=True, eq=False)
class Pairs:
    """Near-duplicates: ``second[i]`` put into ``orientation[i]`` is ``first[i]``.

    Attributes:
        first: ``int32 (P,)`` row of one picture, smaller than ``second``.
        second: ``int32 (P,)`` row of the other.
        orientation: ``uint8 (P,)`` index into ``ORIENTATIONS``; the first of equals for a symmetric picture.
        correlation: ``float32 (P,)`` in that orientation.
    """

    first: NDArray[np.int32]
    second: NDArray[np.int32]
    orientation: NDArray[np.uint8]
    correlation: Floats

    def __len__(self) -> int:
        return len(self.first)


def turned(picture: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Put ``(H, W, ...)`` into one of the eight orientations.

    >>> turned(np.array([[1, 2], [3, 4]]), ORIENTATIONS.index("rot90")).tolist()
    [[2, 4], [1, 3]]
    >>> turned(np.array([[1, 2], [3, 4]]), ORIENTATIONS.index("transpose")).tolist()
    [[1, 3], [2, 4]]
    """
    return np.rot90(picture[:, ::-1] if orientation >= 4 else picture, orientation % 4)


def find_near_duplicates(thumbnails: NDArray[np.uint8], threshold: float = 0.98) -> Pairs:
    r"""All pairs whose normalised correlation reaches the threshold in one of the eight orientations.

    With :math:`a, b` the grey 64x64 pictures less their mean and divided by their norm, two pictures are
    near-duplicates if :math:`\max_T a \cdot Tb \ge` threshold, T over the symmetries of the square.
    Brightness and contrast cancel. Candidates come from a bound that misses none: with P the average over 4x4
    pixels (an orthogonal projection that commutes with every T),

    .. math:: a \cdot Tb \le Pa \cdot TPb + \sqrt{1 - |Pa|^2} \sqrt{1 - |Pb|^2}

    which is a matrix product with 257 columns in place of 4096. It is taken in blocks of 512 x 512 pictures;
    a block with many candidates is computed in full. Memory: 1 KiB per picture, 13 bytes per pair found, and
    about 300 MiB.

    A blank picture, see `is_blank`, is a duplicate of none: its correlation would be that of rounding, or of the light
    that falls on it.

    Args:
        thumbnails: ``uint8 (N, 64, 64)``.
        threshold: In (0, 1]. 0.98 finds no false pair on magnetic tile; 0.97 finds 16.

    Raises:
        ConfigError: The threshold is outside its range.
        ValueError: The thumbnails have another shape.
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"`threshold` should be in (0, 1]. Found `threshold = {threshold}`. Usual is 0.98.")
    if thumbnails.ndim != 3 or thumbnails.shape[1:] != (_SIDE, _SIDE):
        raise ValueError(f"`thumbnails` should be (N, {_SIDE}, {_SIDE}). Found shape {thumbnails.shape}.")
    features = _features(thumbnails)
    found = [_empty()]
    for start in range(0, len(thumbnails), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(thumbnails)))
        compare = _Block(thumbnails[rows], features[rows], threshold)
        for column in range(start, len(thumbnails), _BLOCK):
            columns = slice(column, min(column + _BLOCK, len(thumbnails)))
            pairs = compare.with_columns(thumbnails[columns], features[columns])
            found += [_best(pairs, start, column)] if pairs else []
    return Pairs(*(np.concatenate([getattr(pairs, name) for pairs in found]) for name in Pairs.__annotations__))


def is_blank(thumbnails: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """``(N,)``: whether the standard deviation of a thumbnail is below 1 grey level; such pictures are not compared."""
    return np.array([thumbnail.std() < BLANK_STD for thumbnail in thumbnails], np.bool_)


def stored_near_duplicates(thumbnails: NDArray[np.uint8], threshold: float, cache_dir: Path | None) -> Pairs:
    """`find_near_duplicates`, read from ``cache_dir`` where these very pictures were searched before."""
    if cache_dir is None:
        return find_near_duplicates(thumbnails, threshold)
    content = f"{_LAYOUT} {threshold!r} {thumbnails.shape}".encode() + np.ascontiguousarray(thumbnails).tobytes()
    path = Path(cache_dir) / f"near_duplicates-{hashlib.sha256(content).hexdigest()[:16]}.npz"
    if path.is_file():
        try:
            return Pairs(**read_arrays(path, tuple(Pairs.__annotations__)))
        except DataError as error:
            log.warning("%s Near-duplicates are searched anew.", error)
    pairs = find_near_duplicates(thumbnails, threshold)
    write_arrays(path, vars(pairs))
    return pairs


Found = tuple[NDArray[Any], NDArray[Any], NDArray[Any], Floats]
"""Orientation, row, column and correlation of some pairs of a block."""


class _Block:
    """512 pictures in their eight orientations, to be compared with others."""

    def __init__(self, thumbnails: NDArray[np.uint8], features: Floats, threshold: float) -> None:
        self.thumbnails, self.threshold = thumbnails, threshold
        self.features = _all_orientations(features, _POOLED)
        self._full: Floats | None = None

    def with_columns(self, thumbnails: NDArray[np.uint8], features: Floats) -> list[Found]:
        bound = (self.features @ features.T).reshape(8, len(self.thumbnails), len(thumbnails))
        candidates = np.nonzero(bound >= self.threshold - _SLACK)
        if len(candidates[0]) == 0:
            return []
        if len(candidates[0]) > _DENSE * bound.size:
            return [self._in_full(thumbnails)]
        return list(self._one_by_one(thumbnails, *candidates))

    def _in_full(self, thumbnails: NDArray[np.uint8]) -> Found:
        if self._full is None:
            self._full = _all_orientations(_normalised(self.thumbnails)[0], _SIDE)
        correlation = (self._full @ _normalised(thumbnails)[0].T).reshape(8, len(self.thumbnails), len(thumbnails))
        orientation, row, column = np.nonzero(correlation >= self.threshold)
        return orientation, row, column, correlation[orientation, row, column]

    def _one_by_one(
        self,
        thumbnails: NDArray[np.uint8],
        orientation: NDArray[Any],
        row: NDArray[Any],
        column: NDArray[Any],
    ) -> Iterator[Found]:
        turns = np.stack([_turn(t, _SIDE) for t in range(8)])
        for start in range(0, len(row), _GATHER):
            part = slice(start, start + _GATHER)
            t, r, c = orientation[part], row[part], column[part]
            first = _normalised(self.thumbnails[r])[0]
            second = np.take_along_axis(_normalised(thumbnails[c])[0], turns[t], axis=1)
            correlation = np.einsum("pk,pk->p", first, second)
            keep = correlation >= self.threshold
            yield t[keep], r[keep], c[keep], correlation[keep]


def _features(thumbnails: NDArray[np.uint8]) -> Floats:
    """Pooled picture and norm of what pooling loses ``(N, 257)``, all 0 for a blank picture."""
    features = np.zeros((len(thumbnails), _POOLED**2 + 1), np.float32)
    factor = _SIDE // _POOLED
    for start in range(0, len(thumbnails), _BLOCK):
        part = slice(start, start + _BLOCK)
        pictures, blank = _normalised(thumbnails[part])
        tiles = pictures.reshape(-1, _POOLED, factor, _POOLED, factor)
        features[part, :-1] = tiles.sum(axis=(2, 4)).reshape(len(pictures), -1) / factor
        rest = 1 - np.square(features[part, :-1]).sum(axis=1)
        features[part, -1] = np.where(blank, 0, np.sqrt(np.maximum(rest, 0)))
    return features


def _normalised(thumbnails: NDArray[np.uint8]) -> tuple[Floats, NDArray[np.bool_]]:
    """``(N, 4096)`` of mean 0 and norm 1, all 0 for a blank picture; which are blank."""
    pictures = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    pictures -= pictures.mean(axis=1, keepdims=True)
    norm = np.sqrt(np.einsum("nk,nk->n", pictures, pictures))
    blank = norm < BLANK_STD * _SIDE
    pictures *= np.where(blank, 0, 1 / np.maximum(norm, 1e-6)).astype(np.float32)[:, None]
    return pictures, blank


def _turn(orientation: int, side: int) -> NDArray[np.int64]:
    """``flat[turn]`` is the flattened picture in that orientation."""
    return turned(np.arange(side**2).reshape(side, side), orientation).ravel()


def _all_orientations(features: Floats, side: int) -> Floats:
    """``(8 N, K)``: turned the inverse way, because a . Tb = T^-1 a . b. Columns after side^2 stay."""
    turns = [np.argsort(_turn(t, side)) for t in range(8)]
    rest = np.arange(side**2, features.shape[1])
    return np.concatenate([features[:, np.concatenate([turn, rest])] for turn in turns])


def _empty() -> Pairs:
    none = np.zeros(0, np.int32)
    return Pairs(none, none, none.astype(np.uint8), none.astype(np.float32))


def _best(pairs: list[Found], first_row: int, first_column: int) -> Pairs:
    """Each pair once, in its best orientation, the earlier one of those that differ by rounding."""
    orientation, row, column, correlation = (np.concatenate(part) for part in zip(*pairs, strict=True))
    row, column = row + first_row, column + first_column
    order = np.lexsort((orientation, -correlation.round(5), column, row))
    order = order[row[order] < column[order]]
    new = np.ones(len(order), np.bool_)
    new[1:] = (np.diff(row[order]) != 0) | (np.diff(column[order]) != 0)
    kept = order[new]
    return Pairs(
        row[kept].astype(np.int32),
        column[kept].astype(np.int32),
        orientation[kept].astype(np.uint8),
        np.minimum(correlation[kept], 1).astype(np.float32),
    )
