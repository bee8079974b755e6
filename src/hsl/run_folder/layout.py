"""Where a run folder lies and how its files are called."""

import re


def foldless(value: str, fold: int) -> str:
    """A path below the run folder of the same fold, without the fold and the time of that run.

    The labels and the first weights of a fold come from runs of that fold, so their paths differ in one model.

    >>> foldless("outputs/cam/fold2/2026-01-31_10-00-00/best.ckpt", 2), foldless("fold20/a", 2)
    ('outputs/cam/fold*/best.ckpt', 'fold20/a')
    """
    return re.sub(rf"(?<![^/\"_-])fold{fold}(?![^/\"_-])(/\d{{4}}-\d\d-\d\d_[^/\"]*)?", "fold*", value)
