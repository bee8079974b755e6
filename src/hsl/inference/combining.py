"""Members' probabilities into one, in NumPy: the combinations of an ensemble that a few numbers say.

An exported ensemble combines with these very functions. A *formula* is a combination as JSON holds it, its ``kind`` and
numbers; see `combined`.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Formula: TypeAlias = Mapping[str, Any]

FLOOR = 1e-7
"""The least probability that enters a logarithm."""
CHUNK = 65_536
"""Pixels that are combined at once."""


def combined(formula: Formula, probabilities: Floats, several: bool) -> Floats:
    """``(N, K)`` by a formula; the kinds are

    ``soft``: the mean. ``hard``: `hard_vote`. ``logit``: `logit_vote`. ``weighted``: the sum, each member times its of
    the ``weights``. ``weighted_by_class``: `weighted_by_class` with ``weights``. ``linear``: `linear` of the members'
    probabilities next to each other, with ``weights``, ``bias`` and ``present``.

    Args:
        formula: as an ensemble states it, see `hsl.ensembles.nested.Combined`.
        probabilities: ``(M, N, K)``.
        several: whether several classes may be shown.

    Raises:
        ValueError: there is no such kind.

    Example:
        >>> combined({"kind": "weighted", "weights": [0.75, 0.25]}, np.array([[[1.0, 0.0]], [[0.0, 1.0]]]), False)
        array([[0.75, 0.25]])
    """
    match formula["kind"]:
        case "soft":
            return soft_vote(probabilities)
        case "hard":
            return hard_vote(probabilities, several)
        case "logit":
            return logit_vote(probabilities, several)
        case "weighted":
            return np.asarray(np.einsum("m,mnk->nk", formula["weights"], probabilities))
        case "weighted_by_class":
            return weighted_by_class(probabilities, np.array(formula["weights"]), several)
        case "linear":
            return linear(formula, side_by_side(probabilities), several)
    kinds = "soft, hard, logit, weighted, weighted_by_class or linear"
    raise ValueError(f"`kind` should be {kinds}. Found `kind = {formula['kind']}`. Export the ensemble again.")


def soft_vote(probabilities: Floats) -> Floats:
    """``(N, K)``: mean of the members' probabilities ``(M, N, K)``."""
    return np.asarray(probabilities.mean(axis=0))


def hard_vote(probabilities: Floats, several: bool) -> Floats:
    """``(N, K)``: (votes + mean probability) / (M + 1), of which no mean outweighs a vote: it decides between equals.

    With several classes a member votes for each class at or above 0.5, and more than half of the votes put the class
    at or above 0.5.
    """
    num_members, _, num_classes = probabilities.shape
    cast = probabilities >= 0.5 if several else np.eye(num_classes, dtype=bool)[probabilities.argmax(axis=2)]
    return np.asarray((cast.sum(axis=0) + soft_vote(probabilities)) / (num_members + 1))


def logit_vote(probabilities: Floats, several: bool) -> Floats:
    """``(N, K)``: the normalised geometric mean of the members' probabilities ``(M, N, K)``."""
    logs = np.log(np.maximum(probabilities, FLOOR)).mean(axis=0)
    if several:
        absent = np.log(np.maximum(1 - probabilities, FLOOR)).mean(axis=0)
        return np.asarray(1 / (1 + np.exp(absent - logs)))
    return softmax(logs)


def weighted_by_class(probabilities: Floats, weights: Floats, several: bool) -> Floats:
    """``(N, K)``: sum of the members' probabilities ``(M, N, K)`` times ``weights (M, K)``, which add up to 1 for each
    class; normalised where one class is shown."""
    summed = np.einsum("mk,mnk->nk", weights, probabilities)
    return np.asarray(summed if several else summed / summed.sum(axis=1, keepdims=True))


def linear(formula: Formula, columns: Floats, several: bool) -> Floats:
    """``(N, K)``: softmax, or a sigmoid for each class, of ``columns @ weights + bias``.

    Args:
        formula: ``weights (D, J)``, ``bias (J,)`` and ``present (J,)``, the classes that they are of; any other has
            probability 0. ``classes``: K.
        columns: ``(N, D)``.
        several: whether several classes may be shown.
    """
    logits = columns @ np.array(formula["weights"]) + np.array(formula["bias"])
    probabilities = np.zeros((len(columns), formula["classes"]))
    probabilities[:, formula["present"]] = sigmoid(logits) if several else softmax(logits)
    return probabilities


def side_by_side(probabilities: Floats) -> Floats:
    """``(N, M K)``: the members' probabilities ``(M, N, K)`` of each row."""
    return np.concatenate(list(probabilities), axis=1)


def tempered(probabilities: Floats, temperature: float, several: bool) -> Floats:
    """``(N, K)``: softmax of ``log p / T``; where several may be shown, the sigmoid of ``logit(p) / T``.

    Example:
        >>> tempered(np.array([[0.8, 0.2]]), 2.0, several=False).round(4).tolist()  # odds 4 become 2
        [[0.6667, 0.3333]]
    """
    logits = log_odds(probabilities, several) / temperature
    return sigmoid(logits) if several else softmax(logits)


def log_odds(probabilities: Floats, several: bool) -> Floats:
    """Logits of probabilities ``(N, K)``: their logarithms, or those of ``p / (1 - p)`` where several may be shown."""
    logs = np.log(np.maximum(probabilities, FLOOR))
    return np.asarray(logs - np.log(np.maximum(1 - probabilities, FLOOR)) if several else logs)


def shares(maps: NDArray[np.uint8]) -> Floats:
    """Bytes ``(M, C, N)`` -> ``float64 (M, N, C)`` that add up to 1; a view, along whose pixels sums are fast."""
    sums = maps.sum(axis=1, keepdims=True, dtype=np.float64)
    return np.moveaxis(np.where(sums > 0, maps / np.maximum(sums, 1), 1 / maps.shape[1]), 1, 2)


def combined_maps(formula: Formula, maps: NDArray[np.uint8]) -> NDArray[np.float32]:
    """``float32 (C, H, W)``: the combined probabilities of ``maps (M, C, H, W)`` in bytes, some pixels at a time."""
    flat = maps.reshape(*maps.shape[:2], -1)
    result = np.empty(flat.shape[1:], np.float32)
    for start in range(0, flat.shape[2], CHUNK):
        part = slice(start, start + CHUNK)
        result[:, part] = combined(formula, shares(flat[:, :, part]), several=False).T
    return result.reshape(maps.shape[1:])


def softmax(logits: Floats) -> Floats:
    """Of each row."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def sigmoid(logits: Floats) -> Floats:
    """Of each number, without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(logits / 2)))
