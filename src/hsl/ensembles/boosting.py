"""Stage 10, boosting: SAMME over members that were trained one after the other."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hsl.ensembles.nested import Combined, Fit
from hsl.ensembles.rows import Floats, Rows
from hsl.metrics.images.image_scores import predicted_labels


class Boosted(NamedTuple):
    """Weights of the members, ``alphas (R,)``, and of what the next one is trained on, ``(N,)``, of mean 1."""

    alphas: Floats
    row_weights: Floats


def boosting(order: Sequence[str]) -> dict[str, Fit]:
    """The one variant of the stage.

    Args:
        order: members in the order in which they were trained, each with the weights of `samme` over those before.

    Raises:
        ValueError: there is none, or one is named twice.
    """
    order = tuple(order)
    if not order or len(set(order)) < len(order):
        raise ValueError(f"`order` should name unlike members. Found {', '.join(order) or 'none'}. Name each once.")
    return {"boosting/samme": partial(weighted_votes, order)}


def weighted_votes(order: Sequence[str], rows: Rows) -> Combined:
    """Fit the members' weights; the result is each class's share of the weighted votes.

    Where no member is better than chance all weigh alike.
    """
    rows = rows.labelled().of_members(order)
    alphas = samme(order, rows).alphas
    weights = alphas / alphas.sum() if alphas.sum() > 0 else np.full(len(alphas), 1 / len(alphas))
    index = [rows.members.index(name) for name in order]

    def combine(new: Rows) -> Floats:
        votes = [predicted_labels(new.probabilities[i], new.several) for i in index]
        return np.asarray(np.einsum("m,mnk->nk", weights, np.array(votes, dtype=float)))

    return Combined(rows.members, rows.classes, combine, {"alphas": dict(zip(order, alphas.tolist(), strict=True))})


def samme(order: Sequence[str], rows: Rows) -> Boosted:
    """SAMME over out-of-fold predictions.

    Source: Hastie, Rosset, Zhu & Zou 2009, "Multi-class AdaBoost", algorithm 2: all weights w begin alike; of each
    member in turn ``err = sum w [wrong] / sum w``, ``alpha = log((1 - err) / err) + log(K - 1)``, and w of what it gets
    wrong is multiplied by exp(alpha). As in scikit-learn a member that is never wrong has alpha 1 and ends the series,
    and one that is no better than chance (alpha <= 0) ends it with alpha 0; members behind the end have alpha 0.

    Where several classes may be shown, each known label of an image is one decision between two (Schapire & Singer
    1999, AdaBoost.MH: K = 2 in the formula), and an image weighs the sum over its labels.

    Args:
        order: members in the order of training.
        rows: with labels. An image whose labels are not known has weight 1 for training.

    Returns:
        The weights.
    """
    known = np.isfinite(rows.truth if rows.several else rows.truth[:, :1])
    num_classes = 2 if rows.several else len(rows.classes)
    weights = known / max(known.sum(), 1)
    alphas = np.zeros(len(order))
    for i, name in enumerate(order):
        wrong = _wrong(rows, rows.members.index(name)) & known
        error = float(weights[wrong].sum() / weights.sum())
        if error == 0:
            alphas[i] = 1.0
            break
        alpha = float(np.log(max(1 - error, np.finfo(float).tiny) / error) + np.log(num_classes - 1))
        if alpha <= 0:
            break
        alphas[i] = alpha
        weights = np.where(wrong, weights * np.exp(alpha), weights)
        weights = weights / weights.sum()
    of_rows, some = weights.sum(axis=1), known.any(axis=1)
    return Boosted(alphas, np.where(some, of_rows * some.sum() / of_rows.sum(), 1.0))


def _wrong(rows: Rows, member: int) -> NDArray[np.bool_]:
    """``(N, 1)``, or ``(N, K)`` where several may be shown."""
    wrong = np.asarray(predicted_labels(rows.probabilities[member], rows.several) != (rows.truth == 1))
    return wrong if rows.several else np.asarray(wrong.any(axis=1, keepdims=True))
