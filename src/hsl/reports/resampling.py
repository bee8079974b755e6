"""The bootstrap of pooled scores: counts are summed over the pictures drawn, then scored."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from hsl.reports.pixel_counts import Floats
from hsl.reports.statistics import CHUNK, Interval


class Counts(Protocol):
    """Counts of pictures that add up: `PixelCounts` of dense heads, `ImageCounts` of image heads."""

    @property
    def num_pictures(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def total(self) -> "Counts": ...
    def score(self, name: str, weights: Floats | None = None) -> Floats: ...


def pooled_bootstrap(
    metric: str,
    groups: Sequence[str],
    n: int,
    seed: int,
    first: Counts,
    second: Counts | None = None,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap of a pooled score, or of its difference between two models on the same pictures.

    In every resample whole groups are drawn with replacement, the counts of their pictures are summed (for both
    models) and the sums are scored: the statistic of the resampled data (Efron & Tibshirani 1993, chapter 10).
    The mean of the per-picture scores may rank two models the other way round: on a picture without foreground
    one wrong pixel halves the picture's mIoU, in the sum it is one pixel. A macro mean is over the classes that
    occur in the resample; a resample without a score is left out.

    Args:
        metric: a score that the counts have.
        groups: the group of each of the N pictures; its id where pictures stand for themselves.
        n: resamples, at least 1.
        seed: of the resampling.
        first: counts of the N pictures.
        second: counts of the same pictures by another model, to be subtracted.
        level: share of the resamples inside the interval, in (0, 1).

    Returns:
        What the pictures themselves give as ``mean``, and the interval; NaN where nothing is scored.

    Raises:
        ValueError: the numbers of pictures differ, or there is none.
    """
    sizes = {len(groups), first.num_pictures, (second or first).num_pictures}
    if len(sizes) > 1 or sizes == {0}:
        raise ValueError(f"`groups`, `first`, `second` should be of the same pictures, at least 1. Found {sizes}.")
    models = [first] if second is None else [first, second]
    resampled = []
    for weights in _draws(groups, n, seed, first.width):
        resampled.append(_difference([model.score(metric, weights) for model in models]))
    known = np.concatenate(resampled)
    known = known[np.isfinite(known)]
    tail = 50 * (1 - level)
    low, high = np.percentile(known, [tail, 100 - tail]) if len(known) else (np.nan, np.nan)
    whole = _difference([model.total.score(metric) for model in models])
    return Interval(float(whole), float(low), float(high))


def _difference(scores: Sequence[Floats]) -> Floats:
    return scores[0] if len(scores) == 1 else scores[0] - scores[1]


def _draws(groups: Sequence[str], n: int, seed: int, size: int) -> Iterator[Floats]:
    """How often each picture is in each resample ``(r, N)``, in pieces that bound the memory."""
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    rng, num = np.random.default_rng(seed), int(index.max()) + 1
    for start in range(0, n, step := max(1, CHUNK // max(size, len(groups)))):
        rows = min(step, n - start)
        drawn = rng.integers(num, size=(rows, num)) + num * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * num).reshape(rows, num)
        yield times[:, index].astype(np.float64)
