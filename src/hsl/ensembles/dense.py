"""Ensembles of dense heads: fitted on sampled pixels, applied to whole maps, one image after the other.

The stages that apply are the votes (2), the segmentation-weighted vote (8) and logistic stacking (3): each is the fit
of its own file, given rows that are pixels. Classes exclude each other; overlapping channels have no ensemble.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.batch import IGNORE_INDEX, UNKNOWN_LABEL
from hsl.ensembles.nested import Combined, Fit, Trail, one_thread, refit
from hsl.ensembles.rows import Floats, Rows
from hsl.inference.combining import CHUNK, shares

NUM_PIXELS, MOST_ROWS = 2000, 200_000


@dataclass(frozen=True, eq=False)
class ImageMaps:
    """What M members say of every pixel of an image, and its annotation.

    Attributes:
        id: of the image.
        group: that no fit takes apart.
        content: hash of the image.
        fold: number of the fold that predicted it.
        mask: ``uint8 (H, W)``, 255 unknown.
        maps: ``uint8 (M, C, H, W)``: ``round(255 p)``, members sorted by name.
        foreground: ``float64 (M,)``: foreground IoU of each member, NaN unknown.
    """

    id: str
    group: str
    content: str
    fold: int
    mask: NDArray[np.uint8]
    maps: NDArray[np.uint8]
    foreground: Floats | None = None


@dataclass(frozen=True, eq=False)
class PartFits:
    """A variant of a stage fitted on the pixels of all parts but one, for each part, and on all.

    Attributes:
        without: number of the part -> fitted on the others.
        final: fitted on all pixels.
        part_of: id of the image -> number of its part.
    """

    without: Mapping[int, Combined]
    final: Combined
    part_of: Mapping[str, int]

    def of(self, image: str) -> Combined:
        """What was not fitted on an image; one that has no labelled pixel is in no fit."""
        return self.without.get(self.part_of.get(image, -1), self.final)

    @property
    def trails(self) -> tuple[Trail, ...]:
        """A part each; ids of images."""
        every = sorted(self.part_of)
        return tuple(
            Trail(
                tuple(name for name in every if self.part_of[name] != number),
                tuple(name for name in every if self.part_of[name] == number),
            )
            for number in self.without
        )

    @property
    def choices(self) -> tuple[Mapping[str, Any], ...]:
        """The notes of the fit of each part."""
        return tuple(combined.notes for combined in self.without.values())


def pixel_rows(
    images: Iterable[ImageMaps], members: Sequence[str], classes: Sequence[str], num_pixels: int = NUM_PIXELS
) -> Rows:
    """Rows of sampled pixels, with ids ``"<id>@<index of the pixel>"``.

    Args:
        images: read once, one after the other.
        members: M names, sorted, as in the maps.
        classes: C names.
        num_pixels: of each image; see `affordable_pixels`.

    Raises:
        ValueError: an image does not fit; none has a pixel with a label.
    """
    names: dict[str, list[str]] = {"ids": [], "groups": [], "contents": []}
    labels, folds, probabilities, foreground = [], [], [], []
    for image in images:
        _check(image, members, classes)
        index = stratified_pixels(image.mask, image.id, num_pixels)
        names["ids"] += [f"{image.id}@{i:09d}" for i in index]
        names["groups"] += [image.group] * len(index)
        names["contents"] += [image.content] * len(index)
        labels.append(image.mask.ravel()[index].astype(np.int64))
        folds.append(np.full(len(index), image.fold))
        probabilities.append(shares(image.maps.reshape(*image.maps.shape[:2], -1)[:, :, index]))
        known = np.full(len(members), np.nan) if image.foreground is None else image.foreground
        foreground.append(np.repeat(known[:, None], len(index), axis=1))
    if not names["ids"]:
        raise ValueError("At least one pixel should have a label. Found none. Give images that are annotated.")
    return Rows.sorted(
        **names,
        labels=np.concatenate(labels),
        classes=tuple(classes),
        several=False,
        members=tuple(members),
        probabilities=np.concatenate(probabilities, axis=1),
        folds=np.concatenate(folds),
        foreground=np.concatenate(foreground, axis=1),
    )


def stratified_pixels(mask: NDArray[np.uint8], image_id: str, num_pixels: int) -> NDArray[np.int64]:
    """Sorted indices of at most ``num_pixels`` labelled pixels: of each class its share, at least one if it is there.

    Drawn with a seed made from the id, so that an image gives the same pixels in whatever company it is.
    """
    flat = mask.ravel()
    classes, counts = np.unique(flat[flat != IGNORE_INDEX], return_counts=True)
    if not len(classes):
        return np.zeros(0, dtype=np.int64)
    generator = np.random.default_rng(int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big"))
    wanted = np.clip((counts * (num_pixels / counts.sum())).astype(np.int64), 1, counts)
    largest = int(counts.argmax())
    wanted[largest] = np.clip(num_pixels - (wanted.sum() - wanted[largest]), 1, counts[largest])
    chosen = [
        generator.choice(np.flatnonzero(flat == value), num, replace=False)
        for value, num in zip(classes, wanted, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def affordable_pixels(num_images: int) -> int:
    """How many pixels of each image to sample: 2000, or fewer where the rows of all would be above 200 000."""
    return max(1, min(NUM_PIXELS, MOST_ROWS // max(num_images, 1)))


def fit_parts(fit: Fit, rows: Rows, parts: NDArray[np.int64]) -> PartFits:
    """Fit on the pixels of all parts but one, for each part, and on all.

    Args:
        fit: the variant.
        rows: of `pixel_rows`.
        parts: ``(N,)`` number of the part of each row; see `hsl.ensembles.nested.meta_folds`.
    """
    owners = (pixel.rpartition("@")[0] for pixel in rows.ids)
    part_of = dict(zip(owners, parts.tolist(), strict=True))
    without = {number: refit(fit, rows.take(parts != number)) for number in sorted(set(part_of.values()))}
    return PartFits(without, refit(fit, rows), part_of)


def combine_maps(
    combined: Combined, maps: NDArray[np.uint8], members: Sequence[str], classes: Sequence[str]
) -> NDArray[np.float32]:
    """``float32 (C, H, W)``: the combined probabilities of an image, some pixels at a time; ``maps (M, C, H, W)``."""
    return np.asarray(combine_each([combined], maps, members, classes)[0])


def combine_each(
    combinations: Sequence[Combined], maps: NDArray[np.uint8], members: Sequence[str], classes: Sequence[str]
) -> NDArray[np.float32]:
    """``(R, C, H, W)``: what each of R combinations makes of the same maps."""
    num_members, num_classes, height, width = maps.shape
    flat = maps.reshape(num_members, num_classes, -1)
    result = np.empty((len(combinations), num_classes, height * width), dtype=np.float32)
    with one_thread():
        for start in range(0, height * width, CHUNK):
            values = shares(flat[:, :, start : start + CHUNK])
            num = values.shape[1]
            names, unknown = _numbers(num), np.full(num, UNKNOWN_LABEL)
            rows = Rows(names, names, names, unknown, tuple(classes), False, tuple(members), values, np.full(num, -1))
            for combined, into in zip(combinations, result, strict=True):
                into[:, start : start + num] = combined.apply(rows).T
    return result.reshape(len(combinations), num_classes, height, width)


@lru_cache(maxsize=4)
def _numbers(num: int) -> tuple[str, ...]:
    return tuple(f"{i:09d}" for i in range(num))


def _check(image: ImageMaps, members: Sequence[str], classes: Sequence[str]) -> None:
    wanted = (len(members), len(classes), *image.mask.shape)
    if image.maps.shape != wanted or image.maps.dtype != np.uint8:
        raise ValueError(
            f"Maps of {image.id} should be uint8 {wanted}. Found {image.maps.dtype} {image.maps.shape}. "
            "Predict it again with every member."
        )
    if list(members) != sorted(members):
        raise ValueError(f"`members` should be sorted, as in the maps. Found {', '.join(members)}. Sort both.")
    labels = image.mask[image.mask != IGNORE_INDEX]
    if labels.size and labels.max() >= len(classes):
        raise ValueError(
            f"The mask of {image.id} should hold classes below {len(classes)}. Found {labels.max()}. Overlapping "
            "channels have no ensemble."
        )
