"""HD95 and ASSD of 16 classes on masks of 1024x2048, against MONAI in the same process.

MONAI gets its one-hot tensors ready made; ours starts from the class maps. Both are measured in turn, the
shortest of the repeats counts, and the values have to agree.
"""

import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

from benchmarks._coral_masks import NUM_CLASSES, Mask, mask_pairs
from hsl.metrics.objects.surface import surface_distances

GOAL = 15.0
REPEATS = 2
TOLERANCE = 1e-5  # MONAI keeps distances in float32


def run() -> list[dict[str, Any]]:
    ours = peer = difference = 0.0
    number = scored = 0
    for prediction, truth in mask_pairs():
        one_hot = [as_one_hot(mask) for mask in (prediction, truth)]
        times, values = in_turn(
            lambda pair=(prediction, truth): our_distances(*pair),
            lambda pair=one_hot: monai_distances(*pair),
            REPEATS,
        )
        ours, peer, number = ours + times[0], peer + times[1], number + 1
        both = np.isfinite(values[1]).all(axis=1)  # MONAI has no value where a contour is empty
        scored += int(both.sum())
        difference = max(
            difference, float(np.max(np.abs(values[0] / values[1] - 1)[both & (values[1] > 0).all(axis=1)]))
        )
    ratio = peer / ours
    return [
        {
            "name": "metrics: MONAI's time for HD95 and ASSD by ours",
            "sizes": {
                "pictures": number,
                "height_width": [1024, 2048],
                "classes": NUM_CLASSES,
                "contour_pairs": scored,
                "largest_relative_difference": difference,
                "unit": "seconds for all pictures",
            },
            "versions": {name: version(name) for name in ("monai", "torch", "scipy", "numpy")},
            "ours": round(ours, 3),
            "peer": round(peer, 3),
            "ratio": ratio,
            "goal": GOAL,
            "holds": ratio >= GOAL and difference <= TOLERANCE,
        }
    ]


def our_distances(prediction: Mask, truth: Mask) -> np.ndarray:
    scores = surface_distances(prediction, truth, NUM_CLASSES)
    return np.stack([scores["hd95"], scores["assd"]], axis=1)


def monai_distances(prediction: torch.Tensor, truth: torch.Tensor) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # empty classes
        hd95 = compute_hausdorff_distance(prediction, truth, include_background=True, percentile=95)
        assd = compute_average_surface_distance(prediction, truth, include_background=True, symmetric=True)
    return np.stack([hd95[0].numpy(), assd[0].numpy()], axis=1)


def as_one_hot(mask: Mask) -> torch.Tensor:
    classes = np.arange(NUM_CLASSES)[:, None, None]
    return torch.from_numpy((mask == classes)[None]).float()


def in_turn(
    first: Callable[[], Any], second: Callable[[], Any], repeats: int
) -> tuple[tuple[float, float], tuple[Any, Any]]:
    """Shortest time and value of two calls that take turns, so that the load of the machine meets both."""
    times: tuple[list[float], list[float]] = ([], [])
    values: list[Any] = [None, None]
    for _ in range(repeats):
        for index, call in enumerate((first, second)):
            start = time.perf_counter()
            values[index] = call()
            times[index].append(time.perf_counter() - start)
    return (min(times[0]), min(times[1])), (values[0], values[1])
