"""ARI and VOI of label images of 1024x2048, against scikit-learn and scikit-image in the same process.

Once on class maps with 16 labels, once on their connected components with thousands. The shortest of the
repeats counts, and the values have to agree.
"""

from importlib.metadata import version
from typing import Any

import numpy as np
from skimage.metrics import variation_of_information
from sklearn.metrics import adjusted_rand_score

from benchmarks._coral_masks import NUM_CLASSES, Mask, mask_pairs
from benchmarks._metrics_surface import in_turn
from hsl.metrics.objects.clustering import clustering_scores
from hsl.metrics.objects.segments import components

GOAL = 4.0
REPEATS = 3
TOLERANCE = 1e-10


def run() -> list[dict[str, Any]]:
    classes = list(mask_pairs())
    objects = [tuple(speckled_components(mask, index) for mask in pair) for index, pair in enumerate(classes)]
    return [row("class maps", classes), row("components", objects)]


def row(kind: str, pairs: list[Any]) -> dict[str, Any]:
    ours = peer = difference = 0.0
    for prediction, truth in pairs:
        times, values = in_turn(
            lambda pair=(prediction, truth): our_scores(*pair),
            lambda pair=(prediction, truth): peer_scores(*pair),
            REPEATS,
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
        "goal": GOAL,
        "holds": ratio >= GOAL and difference <= TOLERANCE,
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
