"""Stage 8, segmentation-weighted vote: a member's vote weighs how well it finds the foreground."""

import warnings
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hsl.ensembles.nested import Combined, Fit
from hsl.ensembles.rows import Floats, Rows


def segmentation_vote() -> dict[str, Fit]:
    """The variants of the stage: one weight a member (``overall``), and one a member and class (``per_class``)."""
    return {
        "segmentation_vote/overall": partial(weighted_by_foreground, False),
        "segmentation_vote/per_class": partial(weighted_by_foreground, True),
    }


def weighted_by_foreground(per_class: bool, rows: Rows) -> Combined:
    """Mean of the probabilities, each member's times its mean foreground IoU over the fitted rows.

    Per class, the mean is over the rows that show the class; where there are none with a known IoU, over all. With one
    class per image the result is normalised. A member without masks has no vote. Where no member has a foreground IoU
    above 0, all weigh alike. The IoU of rows that are combined is never read: it is made with their annotation.

    Raises:
        ValueError: no foreground IoU is known of any member.
    """
    rows = rows.labelled()
    if rows.foreground is None or np.isnan(rows.foreground).all():
        raise ValueError(
            "A segmentation-weighted vote should have members whose foreground IoU is known. Found none. Take members "
            "with a dense head, or leave the stage out."
        )
    overall = _mean_over(rows.foreground, np.ones(len(rows.ids), dtype=bool))
    weights = np.repeat(np.nan_to_num(overall)[:, None], len(rows.classes), axis=1)
    if per_class:
        for k, truth in enumerate(rows.truth.T):
            of_class = _mean_over(rows.foreground, truth == 1)
            weights[:, k] = np.nan_to_num(np.where(np.isnan(of_class), overall, of_class))
    weights[:, weights.sum(axis=0) == 0] = 1
    weights = weights / weights.sum(axis=0)

    shown = weights if per_class else weights[:, 0]
    notes = {"weights": dict(zip(rows.members, shown.tolist(), strict=True))}
    return Combined.by({"kind": "weighted_by_class", "weights": weights.tolist()}, rows.members, rows.classes, notes)


def _mean_over(foreground: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """``(M,)``: mean over the chosen rows, NaN where none is known."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mean of empty slice", category=RuntimeWarning)
        return np.asarray(np.nanmean(np.where(chosen, foreground, np.nan), axis=1))
