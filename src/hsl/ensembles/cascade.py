"""Stage 9, cascade: the next member is consulted where the one before is not sure enough."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hsl.ensembles.nested import Combined, Fit, score_of
from hsl.ensembles.rows import Floats, Rows
from hsl.metrics.images.image_scores import predicted_labels

LONGEST = 5
NUM_CANDIDATES = 20


def cascade(order: Sequence[str]) -> dict[str, Fit]:
    """The one variant of the stage.

    Args:
        order: members in the order in which they are consulted, at most 5: each was trained on what the cascade of
            those before got wrong out of fold.

    Raises:
        ValueError: there are more, or one is named twice.
    """
    order = tuple(order)
    if not 1 <= len(order) <= LONGEST or len(set(order)) < len(order):
        raise ValueError(
            f"`order` should name 1 to {LONGEST} unlike members. Found {', '.join(order) or 'none'}. Shorten it."
        )
    return {"cascade/thresholds": partial(with_thresholds, order)}


def with_thresholds(order: Sequence[str], rows: Rows) -> Combined:
    """Fit the thresholds of confidence: the best score, and of equals the fewest members consulted.

    From 0 (nobody further is consulted), one threshold after the other is set to the best of 0 and 20 quantiles of its
    member's confidences, until none changes. The score never falls below that of the first member alone on these rows.
    """
    rows = rows.labelled().of_members(order)
    values = _in_order(rows, order)
    confidences = [confidence(each, rows.several) for each in values]
    levels = np.linspace(0, 1, NUM_CANDIDATES + 1)[1:]
    candidates = [np.unique([0, *(np.nextafter(np.quantile(each, levels), 2))]) for each in confidences[:-1]]
    thresholds = np.zeros(len(order) - 1)
    best = score_of(values[0], rows)
    changed = True
    while changed:
        changed = False
        for i, options in enumerate(candidates):
            for option in options:
                tried = thresholds.copy()
                tried[i] = option
                score = score_of(_answers(values, consulted(confidences, tried)), rows)
                if score > best + 1e-12:
                    best, thresholds, changed = score, tried, True
    last = consulted(confidences, thresholds)
    notes = {
        "thresholds": dict(zip(order, thresholds.tolist(), strict=False)),
        "consulted": {name: float((last >= i).mean()) for i, name in enumerate(order)},
    }

    def combine(new: Rows) -> Floats:
        values = _in_order(new, order)
        return _answers(values, consulted([confidence(each, new.several) for each in values], thresholds))

    return Combined(rows.members, rows.classes, combine, notes)


def confidence(probabilities: Floats, several: bool) -> Floats:
    """``(N,)``: the greatest probability; where several may be shown, the mean over the classes of max(p, 1 - p)."""
    if several:
        return np.asarray(np.maximum(probabilities, 1 - probabilities).mean(axis=1))
    return np.asarray(probabilities.max(axis=1))


def consulted(confidences: Sequence[Floats], thresholds: Sequence[float] | Floats) -> NDArray[np.int64]:
    """``(N,)``: number of the last member asked, whose answer counts; J confidences and J - 1 thresholds."""
    last = np.zeros(len(confidences[0]), dtype=np.int64)
    for i, threshold in enumerate(thresholds):
        last[(last == i) & (confidences[i] < threshold)] = i + 1
    return last


def still_wrong(order: Sequence[str], rows: Rows) -> tuple[str, ...]:
    """Ids that the cascade of these members gets wrong out of fold: what the next member is trained on.

    Only rows whose labels are known count. The thresholds are those of the best score over the rows.
    """
    rows = rows.labelled()
    combined = with_thresholds(tuple(order), rows)(rows)
    right = (predicted_labels(combined, rows.several) == (rows.truth == 1)) | np.isnan(rows.truth)
    return tuple(rows.ids[i] for i in np.flatnonzero(~right.all(axis=1)))


def _in_order(rows: Rows, order: Sequence[str]) -> list[Floats]:
    return [rows.probabilities[rows.members.index(name)] for name in order]


def _answers(values: Sequence[Floats], last: NDArray[np.int64]) -> Floats:
    return np.stack(values)[last, np.arange(len(last))]
