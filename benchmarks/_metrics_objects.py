"""HD95 and ASSD against MONAI, ARI and VOI against scikit-learn and scikit-image, on masks of 1024x2048.

The masks are truth, and a shifted and block-disturbed copy. MONAI gets its one-hot tensors ready made; ours starts from
the class maps. Clustering is measured once on class maps with 16 labels, once on their connected components with
thousands. Both sides are measured in turn in one process, the shortest of the repeats counts, and the values have to
agree.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from skimage.metrics import variation_of_information
from sklearn.metrics import adjusted_rand_score

from hsl.metrics.objects.clustering import clustering_scores
from hsl.metrics.objects.segments import components
from hsl.metrics.objects.surface import surface_distances

NUM_CLASSES = 16
SHIFT = (5, 8)
BLOCKS, SIDE = 60, 64
DATA = Path(os.environ.get("HSL_REAL_DATA", Path(__file__).parents[2] / "shared/data"))
Mask = npt.NDArray[np.uint8]
SURFACE_GOAL = 15.0
SURFACE_REPEATS = 2
SURFACE_TOLERANCE = 1e-5  # MONAI keeps distances in float32
CLUSTERING_GOAL = 4.0
CLUSTERING_REPEATS = 3
CLUSTERING_TOLERANCE = 1e-10


def mask_pairs() -> Iterator[tuple[Mask, Mask]]:
    """Prediction and truth; source classes are folded onto 16."""
    files = sorted((DATA / "coralscapes_sample" / "gtFine").rglob("*.png"))
    if not files:
        raise FileNotFoundError(f"{DATA / 'coralscapes_sample'} holds no masks: set HSL_REAL_DATA to the data.")
    rng = np.random.default_rng(0)
    for file in files:
        truth = cv2.imread(str(file), cv2.IMREAD_UNCHANGED) % np.uint8(NUM_CLASSES)
        copy = np.roll(truth, SHIFT, (0, 1)).copy()
        for _ in range(BLOCKS):
            top, left = rng.integers(0, truth.shape[0] - SIDE), rng.integers(0, truth.shape[1] - SIDE)
            copy[top : top + SIDE, left : left + SIDE] = rng.integers(0, NUM_CLASSES)
        yield copy, truth


def surface_rows() -> list[dict[str, Any]]:
    ours = peer = difference = 0.0
    number = scored = 0
    for prediction, truth in mask_pairs():
        one_hot = [as_one_hot(mask) for mask in (prediction, truth)]
        times, values = in_turn(
            lambda pair=(prediction, truth): our_distances(*pair),
            lambda pair=one_hot: monai_distances(*pair),
            SURFACE_REPEATS,
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
            "goal": SURFACE_GOAL,
            "holds": ratio >= SURFACE_GOAL and difference <= SURFACE_TOLERANCE,
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


def clustering_rows() -> list[dict[str, Any]]:
    classes = list(mask_pairs())
    objects = [tuple(speckled_components(mask, index) for mask in pair) for index, pair in enumerate(classes)]
    return [row("class maps", classes), row("components", objects)]


def row(kind: str, pairs: list[Any]) -> dict[str, Any]:
    ours = peer = difference = 0.0
    for prediction, truth in pairs:
        times, values = in_turn(
            lambda pair=(prediction, truth): our_scores(*pair),
            lambda pair=(prediction, truth): peer_scores(*pair),
            CLUSTERING_REPEATS,
        )
        ours, peer = ours + times[0], peer + times[1]
        difference = max(difference, float(np.abs(values[0] - values[1]).max()))
    ratio = peer / ours
    return {
        "name": f"metrics: time of scikit-learn and scikit-image for ARI and VOI by ours, {kind}",
        "sizes": {
            "pictures": len(pairs),
            "height_width": [1024, 2048],
            "labels": int(max(image.max() for pair in pairs for image in pair)) + 1,
            "largest_difference": difference,
            "unit": "seconds for all pictures",
        },
        "versions": {name: version(name) for name in ("scikit-learn", "scikit-image", "numpy")},
        "ours": round(ours, 4),
        "peer": round(peer, 3),
        "ratio": ratio,
        "goal": CLUSTERING_GOAL,
        "holds": ratio >= CLUSTERING_GOAL and difference <= CLUSTERING_TOLERANCE,
    }


def our_scores(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    scores = clustering_scores(prediction, truth, ignore_index=None)
    return np.array([scores["ari"], scores["voi_split"], scores["voi_merge"]])


def peer_scores(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    ari = adjusted_rand_score(truth.ravel(), prediction.ravel())
    return np.array([ari, *variation_of_information(truth, prediction)])


def speckled_components(mask: Mask, seed: int) -> np.ndarray:
    """Components of the mask with a few thousand pixels changed: as many objects as a poor prediction has."""
    rng = np.random.default_rng(seed)
    noisy = np.where(rng.random(mask.shape) < 1e-3, rng.integers(0, NUM_CLASSES, mask.shape), mask)
    return components(noisy.astype(np.uint8), range(NUM_CLASSES)).ids
