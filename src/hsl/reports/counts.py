"""From the counts that a run stored to those that have scores."""

import math
from collections.abc import Mapping
from functools import lru_cache

from hsl.metrics.images.image_counts import ImageCounts
from hsl.metrics.pixels.pixel_counts import EMPTY_ONE, PixelCounts
from hsl.run_folder.image_predictions import ImagePictures
from hsl.run_folder.pixel_counts import Pictures
from hsl.run_folder.run import Run, ScoredOn


def pixel_counts(run: Run, on: ScoredOn) -> PixelCounts | None:
    """Sums over the pictures of a part; none where there are no counts per picture."""
    pictures = run.pictures.get(on)
    return None if pictures is None else PixelCounts(**pictures.totals)


def picture_counts(pictures: Pictures) -> PixelCounts:
    """Of every picture by itself."""
    return PixelCounts(**pictures.arrays)


def empty_one(run: Run, on: ScoredOn) -> Mapping[str, float]:
    """The two of ``EMPTY_ONE``; NaN where there are no counts per picture."""
    pictures = run.pictures.get(on)
    return dict.fromkeys(EMPTY_ONE, math.nan) if pictures is None else _empty_one(pictures)


@lru_cache(maxsize=512)
def _empty_one(pictures: Pictures) -> Mapping[str, float]:
    return picture_counts(pictures).empty_one()


def image_counts(pictures: ImagePictures) -> ImageCounts:
    """Of every picture by itself."""
    return ImageCounts.of(pictures.target, pictures.predicted, pictures.several)
