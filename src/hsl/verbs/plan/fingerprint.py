"""What the training part of a data set is like: the facts that the rules of a plan go by."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hsl.batch import IGNORE_INDEX
from hsl.data.files.decoding import Decoding
from hsl.data.files.scan import bits_of
from hsl.data.prepared import PreparedData
from hsl.errors import ConfigError, DataError

MOST_MASKS = 1000
"""So many masks are looked at for objects; of a larger part they are drawn."""
MOST_IMAGES = 100
"""So many pictures are looked at for colour."""
DUST = 0.001
"""The smallest objects that together hold no more of the pixels of their class are slips of a brush, not objects."""
GREY = 2.0
"""So many grey levels of 255 may the three channels of a grey picture differ on average, as JPEG makes them."""
TENTH = 0.1

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ClassFacts:
    """One class but the background in the training part.

    Attributes:
        name: Of the class.
        num_images: That show it.
        num_groups: That show it.
        share: Of the pixels that count.
        num_objects: Connected regions (8 neighbours) of the masks looked at, without dust.
        num_dust: Regions left out, see `DUST`.
        smallest_tenth: So many pixels across is the largest of the smallest tenth of the objects; across is the
            diameter of the largest disc inside. NaN without objects.
        median: The same of the median object.
    """

    name: str
    num_images: int
    num_groups: int
    share: float
    num_objects: int = 0
    num_dust: int = 0
    smallest_tenth: float = float("nan")
    median: float = float("nan")


@dataclass(frozen=True)
class Fingerprint:
    """The training part of one fold.

    Attributes:
        data: Name of the data set.
        fold: Number of the fold.
        num_images: Of the part.
        num_groups: Of the part; a picture is its own where the split keeps none whole.
        grouped: Whether the split keeps groups whole.
        heights: Least, median and most, in pixels.
        widths: The same.
        bits: Of pictures of more than 8 bits, the least and the most; ``None`` without such.
        colour: Whether the pictures looked at have colour.
        num_copies: Pictures whose file is in the part before, byte for byte.
        num_empty: Pictures that show no class but the background.
        boundary: Share of the pixels looked at that touch another class.
        num_masks: Looked at for objects; 0: there are none.
        classes: But the background, class 0.
        labels: Classes of whole pictures and how many show each; empty where none are learnt.
        several_labels: Whether a picture may have several.
        num_val: Pictures of the fold's validation part.
        num_test: Pictures of the test part.
        num_scored: Groups of the training and validation parts of all folds, which are scored out of fold.
    """

    data: str
    fold: int
    num_images: int
    num_groups: int
    grouped: bool
    heights: tuple[int, int, int]
    widths: tuple[int, int, int]
    bits: tuple[int, int] | None
    colour: bool
    num_copies: int
    num_empty: int
    boundary: float
    num_masks: int
    classes: tuple[ClassFacts, ...]
    labels: Mapping[str, int]
    several_labels: bool
    num_val: int
    num_test: int
    num_scored: int
    objects: Mapping[str, Floats]
    """By class ``(N, 3)``: pixels across, height and width of its picture, of each object."""

    def as_json(self) -> dict[str, Any]:
        """All but the table of the objects."""
        return {key: value for key, value in asdict(self).items() if key != "objects"}


def fingerprint(data: PreparedData) -> Fingerprint:
    """Look at the training part of a prepared data set; no other file is opened.

    Raises:
        ConfigError: Its masks hold overlapping channels or are read by several heads.
        DataError: There is neither a mask nor a label to learn.
    """
    _check(data)
    ids = data.parts["train"]
    rows = data.scan.rows(ids)
    groups = np.unique([data.group(name) for name in ids], return_inverse=True)[1]
    counts = data.scan.class_counts[rows][:, : len(data.catalogue.classes)]
    masked = [ids[i] for i in np.flatnonzero(counts.any(axis=1)).tolist()]
    looked = _draw(masked, MOST_MASKS)
    regions, boundary = _regions(data, looked)
    sizes = data.scan.image_sizes[rows]
    contents = [data.scan.content[row] for row in rows]
    every = {name for part in ("train", "stop", "val") for fold in range(len(data.fold_assignment.folds))
             for name in data.fold_assignment.parts(fold).get(part, ())}  # fmt: skip
    facts, objects = [], {}
    for number, name in enumerate(data.catalogue.classes[1:], start=1):
        shown = counts[:, number] > 0
        kept, dust = _without_dust(regions.get(number, np.zeros((0, 4))))
        objects[name] = kept[:, 1:]
        across = kept[:, 1]
        share = float(counts[:, number].sum() / max(1, counts.sum()))
        found = [float(np.quantile(across, q, method="lower")) if len(across) else float("nan") for q in (TENTH, 0.5)]
        facts.append(
            ClassFacts(name, int(shown.sum()), len(set(groups[shown].tolist())), share, len(kept), dust, *found)
        )
    return Fingerprint(
        data=data.catalogue.name, fold=data.fold, num_images=len(ids), num_groups=int(groups.max()) + 1,
        grouped=data.fold_assignment.groups is not None, heights=_spread(sizes[:, 0]), widths=_spread(sizes[:, 1]),
        bits=bits_of(data.scan, ids), colour=_has_colour(data, _draw(ids, MOST_IMAGES)),
        num_copies=len(contents) - len(set(contents)), num_empty=int((~(counts[:, 1:] > 0).any(axis=1)).sum()),
        boundary=boundary, num_masks=len(looked), classes=tuple(facts), labels=_labels(data),
        several_labels=data.image_labels is not None and data.image_labels.several,
        num_val=len(data.parts.get("val", ())), num_test=len(data.parts.get("test", ())),
        num_scored=len({data.group(name) for name in every}), objects=objects,
    )  # fmt: skip


def _check(data: PreparedData) -> None:
    if data.catalogue.overlapping or len(data.classes) > 1:
        raise ConfigError(
            "`hsl plan` plans masks with one class per pixel, or labels of whole pictures. Found "
            f"{'overlapping channels' if data.catalogue.overlapping else 'several heads'}. Start from a preset that "
            "`hsl options experiment` shows."
        )
    masks = data.scan.class_counts[data.scan.rows(data.parts["train"])][:, :IGNORE_INDEX].any()
    if not masks and data.image_labels is None:
        known = sorted({name for record in data.catalogue.records for name in record.attributes})
        raise DataError(
            f"The training part of `{data.catalogue.name}` should have masks or labels to learn. Found none. Add "
            f"masks, or name the column to learn: `data.image_labels=COLUMN`, of {', '.join(known) or 'a labels.csv'}."
        )


def _draw(ids: Sequence[str], most: int) -> list[str]:
    if len(ids) <= most:
        return list(ids)
    return [ids[i] for i in sorted(np.random.default_rng(0).choice(len(ids), most, replace=False).tolist())]


def _spread(lengths: NDArray[np.int64]) -> tuple[int, int, int]:
    return int(lengths.min()), int(np.median(lengths)), int(lengths.max())


def _labels(data: PreparedData) -> dict[str, int]:
    if data.image_labels is None:
        return {}
    numbers = data.image_labels.count([data.places[name] for name in data.parts["train"]]).tolist()
    return dict(zip(data.image_labels.classes, map(int, numbers), strict=True))


def _has_colour(data: PreparedData, ids: Sequence[str]) -> bool:
    decode = Decoding.of(data.catalogue)
    images = (decode.image(data.catalogue.records[data.places[name]].image) for name in ids)
    return any(image.shape[2] != 3 or float(np.ptp(image.astype(np.int16), axis=2).mean()) > GREY for image in images)


def _regions(data: PreparedData, ids: Sequence[str]) -> tuple[dict[int, Floats], float]:
    """By class ``(N, 4)``: area, pixels across, height and width of the picture; and the share of boundary pixels."""
    decode = Decoding.of(data.catalogue)
    found: dict[int, list[Floats]] = {}
    boundary = pixels = 0
    for name in ids:
        source = data.catalogue.records[data.places[name]].mask
        if source is None:
            continue
        mask = decode.mask(source)
        boundary, pixels = boundary + num_boundary_pixels(mask), pixels + int((mask != IGNORE_INDEX).sum())
        for number in np.unique(mask).tolist():
            if 0 < number < len(data.catalogue.classes):
                found.setdefault(number, []).append(objects_of(mask == number))
    return {number: np.concatenate(tables) for number, tables in found.items()}, boundary / max(1, pixels)


def objects_of(shown: NDArray[np.bool_]) -> Floats:
    """``(N, 4)``: area, pixels across, and height and width of the mask, of each connected region (8 neighbours).

    Across is the diameter of the largest disc inside, ``2 d - 1`` with d the largest Euclidean distance to a pixel
    outside: a line of one pixel has 1, a square of three has 3. What lies beyond the border of the mask is outside.

    Example:
        >>> shown = np.zeros((6, 9), bool)
        >>> shown[1:4, 1:4], shown[5, 4:9] = True, True
        >>> objects_of(shown)[:, :2].tolist()
        [[9.0, 3.0], [5.0, 1.0]]
    """
    flags = np.pad(shown.astype(np.uint8), 1)
    number, names, stats, _ = cv2.connectedComponentsWithStats(flags, connectivity=8)
    distance = cv2.distanceTransform(flags, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    deepest = np.zeros(number)
    np.maximum.at(deepest, np.asarray(names, np.int64).ravel(), distance.ravel())
    rows = [np.full(number - 1, float(side)) for side in shown.shape]
    return np.stack([stats[1:, cv2.CC_STAT_AREA].astype(float), 2 * deepest[1:] - 1, *rows], axis=1)


def num_boundary_pixels(mask: NDArray[np.uint8]) -> int:
    """Pixels beside one of another class, above, below, left or right; ignored ones are no class.

    Example:
        >>> num_boundary_pixels(np.array([[0, 0, 1, 255]], np.uint8))
        2
    """
    edge = np.zeros(mask.shape, bool)
    for first, second in ((np.s_[1:, :], np.s_[:-1, :]), (np.s_[:, 1:], np.s_[:, :-1])):
        unlike = (mask[first] != mask[second]) & (mask[first] != IGNORE_INDEX) & (mask[second] != IGNORE_INDEX)
        edge[first] |= unlike
        edge[second] |= unlike
    return int(edge.sum())


def _without_dust(regions: Floats) -> tuple[Floats, int]:
    """The objects of a class without the smallest ones, see `DUST`; and the number of those."""
    regions = regions[np.argsort(regions[:, 0], kind="stable")]
    dust = int((np.cumsum(regions[:, 0]) <= DUST * regions[:, 0].sum()).sum()) if len(regions) else 0
    return regions[dust:], dust


def groups_of_classes(data: PreparedData) -> tuple[dict[str, int], int]:
    """Groups that show each class but the background, and all groups, of all pictures outside the test part.

    It is what the split itself goes by to deal every fold its share, and says nothing of any picture but that.
    """
    test = set(data.parts["test"])
    ids = [name for name in data.scan.ids if name not in test]
    groups = np.unique([data.group(name) for name in ids], return_inverse=True)[1]
    shown = data.scan.class_counts[data.scan.rows(ids)] > 0
    classes = enumerate(data.catalogue.classes[1:], start=1)
    return {name: len(set(groups[shown[:, i]].tolist())) for i, name in classes}, int(groups.max()) + 1
