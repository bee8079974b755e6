"""Several sources of votes to one mask with a confidence for each pixel."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from hsl.batch import IGNORE_INDEX

ROUNDING = 1e-6  # votes are float32: 0.3 + 0.3 is not below 0.6


def renormalise(weights: Mapping[str, float], sources: Iterable[str]) -> dict[str, float]:
    """The weights of the sources present, scaled to sum to 1.

    Args:
        weights: weight of each source, above 0.
        sources: names of those present.

    Raises:
        ValueError: no source is present, or one has no weight above 0.

    Example:
        >>> renormalise({"grabcut": 0.25, "gradcam": 0.5, "sam": 0.25}, ["gradcam", "sam"])
        {'gradcam': 0.6666666666666666, 'sam': 0.3333333333333333}
    """
    names = list(sources)
    if not names:
        raise ValueError(f"`votes` should hold one or more of the sources {sorted(weights)}. Found none.")
    without = [name for name in names if not weights.get(name, 0) > 0]
    if without:
        raise ValueError(
            f"`weights` should give every source a weight above 0. Found none for {without} in {dict(weights)}. "
            "Add it, or leave the source out."
        )
    total = sum(weights[name] for name in names)
    return {name: weights[name] / total for name in names}


def fuse_votes(
    votes: Mapping[str, NDArray[np.float32]], weights: Mapping[str, float], uncertain_below: float = 0.6
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The class with the largest weighted vote, where the sources agree enough.

    ``v[c] = sum over sources of weight * vote[c]``, class = argmax of v (the first of equals), confidence = max v / sum
    v. A source without opinion on a pixel (0 for all classes) takes no part there; where none has one the confidence
    is 0.

    Args:
        votes: source to its votes ``(C, H, W)``, not negative.
        weights: weight of each source; those of the sources present are scaled to sum to 1.
        uncertain_below: pixels of less confidence become 255.

    Returns:
        The mask ``uint8 (H, W)`` with 255 where uncertain, and the confidence ``float32 (H, W)`` in [0, 1].

    Raises:
        ValueError: there is no source, one has no weight, shapes differ, or a vote is negative or NaN.

    Example:
        >>> votes = {"grabcut": np.float32([[[0]], [[1]]]), "gradcam": np.float32([[[0.2]], [[0.8]]])}
        >>> mask, confidence = fuse_votes(votes, {"grabcut": 0.3, "gradcam": 0.5, "sam": 0.2})
        >>> mask.tolist(), round(float(confidence[0, 0]), 3)
        ([[1]], 0.875)
    """
    present = renormalise(weights, votes)
    _check_votes(votes)
    total = np.sum([weight * votes[name].astype(np.float64) for name, weight in present.items()], axis=0)
    best, summed = total.max(axis=0), total.sum(axis=0)
    confidence = np.divide(best, summed, out=np.zeros_like(best), where=summed > 0)
    uncertain = (confidence < uncertain_below - ROUNDING) | (summed == 0)
    mask = np.where(uncertain, IGNORE_INDEX, total.argmax(axis=0)).astype(np.uint8)
    return mask, confidence.astype(np.float32)


def _check_votes(votes: Mapping[str, NDArray[np.float32]]) -> None:
    shapes = {name: vote.shape for name, vote in votes.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 3 for shape in shapes.values()):
        raise ValueError(f"`votes` of all sources should have one shape (C, H, W). Found {shapes}.")
    bad = [name for name, vote in votes.items() if not (np.isfinite(vote) & (vote >= 0)).all()]
    if bad:
        raise ValueError(f"`votes` should be finite and not negative. Found others in {bad}.")
