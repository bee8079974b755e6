"""Class weights from the pixel counts of the training part."""

import math
import warnings
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from hsl.errors import ConfigError

Method = Literal["inverse_sqrt", "inverse", "median_frequency", "effective_number"]


def weigh_classes(
    counts: Tensor,
    method: Method | Sequence[float],
    *,
    max_ratio: float = 40.0,
    beta: float = 0.9999,
    presence_pixels: Tensor | None = None,
    name: str = "Classes",
) -> Tensor:
    """One weight per class, mean 1 over the classes present, an absent class 0.

    With ``n_c`` valid pixels of class c, ``f_c = n_c / sum n``:

    - ``inverse_sqrt``: ``f_c^(-1/2)``; ``inverse``: ``f_c^(-1)``;
    - ``median_frequency``: ``median(g) / g_c`` with ``g_c`` the share of class c in the pictures that contain
      it (Eigen & Fergus 2015, "Predicting Depth, Surface Normals and Semantic Labels");
    - ``effective_number``: ``(1 - beta) / (1 - beta^n_c)`` (Cui et al. 2019, "Class-Balanced Loss",
      proposition 1; counted in pixels here, in pictures there);
    - a sequence: these weights.

    First the weights above ``max_ratio`` times the smallest are lowered to it, then all are divided by their
    mean over the classes present, which leaves the ratio as it is.

    Args:
        counts: ``int64 (C,)`` valid pixels per class in the training part of the fold.
        method: as above.
        max_ratio: largest weight over smallest, at least 1. A published run with a ratio of 734 collapsed,
            one with 36 did not.
        beta: of ``effective_number``, in [0, 1). Pixels are many: with 0.9999 every class above some 50 000
            pixels weighs the same.
        presence_pixels: ``int64 (C,)``, of ``median_frequency`` only: valid pixels of the training pictures
            that contain the class.
        name: what the warning of absent classes calls them.

    Returns:
        ``float32 (C,)``.

    Raises:
        ConfigError: an unknown method, an argument out of range, or a given list that breaks ``max_ratio`` or
            does not fit the classes.

    Example:
        >>> weigh_classes(torch.tensor([900, 100]), "inverse_sqrt").tolist()  # 1 : 3
        [0.5, 1.5]
    """
    if not max_ratio >= 1:
        raise ConfigError(f"`max_ratio` should be at least 1. Found `max_ratio = {max_ratio}`.")
    counts = counts.double().cpu()
    present = counts > 0
    if not present.any():
        raise ConfigError("Class weights need at least one labelled pixel in the training part. Found none.")
    if isinstance(method, str):
        weights = _raw(counts, method, beta, presence_pixels)
    else:
        weights = _given(method, present, max_ratio)
    positive = present & (weights > 0)
    weights = torch.where(present, weights, 0.0).clamp(max=max_ratio * weights[positive].min().item())
    absent = (~present).nonzero().flatten().tolist()
    if absent:
        warnings.warn(
            f"{name} {', '.join(map(str, absent))} have no pixel in the training part: weight 0, and nothing to learn.",
            stacklevel=2,
        )
    return (weights / weights[present].mean()).float()


def _raw(counts: Tensor, method: str, beta: float, presence_pixels: Tensor | None) -> Tensor:
    frequency = counts / counts.sum()
    if method == "inverse_sqrt":
        return frequency.rsqrt()
    if method == "inverse":
        return frequency.reciprocal()
    if method == "median_frequency":
        if presence_pixels is None:
            raise ConfigError(
                "`class_weights=median_frequency` needs the pixels of the pictures that contain each class "
                "(`presence_pixels`), which the data did not give. Choose `class_weights=inverse_sqrt`."
            )
        share = counts / presence_pixels.double().cpu()
        return share[counts > 0].quantile(0.5) / share
    if method == "effective_number":
        if not 0 <= beta < 1:
            raise ConfigError(f"`beta` should be in [0, 1). Found `beta = {beta}`.")
        # 1 - beta^n without cancellation for beta near 1.
        return (1 - beta) / -torch.expm1(counts * math.log(beta)) if beta > 0 else torch.ones_like(counts)
    raise ConfigError(
        "`class_weights` should be null, inverse_sqrt, inverse, median_frequency, effective_number or a list "
        f"of numbers. Found `class_weights = {method}`."
    )


def _given(values: Sequence[float], present: Tensor, max_ratio: float) -> Tensor:
    weights = torch.tensor([float(value) for value in values], dtype=torch.float64)
    if weights.shape != present.shape:
        raise ConfigError(f"`class_weights` should list {len(present)} numbers, one per class. Found {len(weights)}.")
    if not (weights.isfinite().all() and (weights >= 0).all() and (weights[present] > 0).any()):
        raise ConfigError(
            "`class_weights` should be finite, at least 0, and above 0 for a class that is there. "
            f"Found {list(values)}."
        )
    positive = weights[present & (weights > 0)]
    if positive.max() > max_ratio * positive.min():
        raise ConfigError(
            f"`class_weights` should differ by at most `max_ratio = {max_ratio}`. Found {list(values)}. "
            "Raise `loss.max_ratio` if this is meant."
        )
    return weights
