"""All fitted stages of an ensemble over 500 pictures x 5 members; greedy selection beside a loop over scikit-learn."""

import resource
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import log_loss

from hsl.ensembles.experts import experts
from hsl.ensembles.fusion import fusion
from hsl.ensembles.meta import meta
from hsl.ensembles.nested import Fit, meta_folds, one_thread, run_nested
from hsl.ensembles.rows import Rows
from hsl.ensembles.stacking import stacking
from hsl.ensembles.votes import best_single, greedy_picks, votes

PICTURES, CLASSES, FEATURES = 500, 5, (512, 768, 512, 1280, 320)
LIBRARY, ROUNDS = 20, 20


def rows_of(num_members: int) -> Rows:
    """Members that see the truth through noise, and features of the sizes of usual encoders."""
    generator = np.random.default_rng(0)
    labels = np.repeat(generator.integers(0, CLASSES, PICTURES // 2), 2)
    truth = np.eye(CLASSES)[labels]
    logits = 2 * truth + generator.normal(size=(num_members, PICTURES, CLASSES)) * 1.5
    names = [f"m{i:02d}" for i in range(num_members)]
    features = {
        name: truth @ generator.normal(size=(CLASSES, size)) / 4 + generator.normal(size=(PICTURES, size))
        for name, size in zip(names, FEATURES, strict=False)
    }
    ids = [f"i{i:03d}" for i in range(PICTURES)]
    groups = [f"g{i // 2:03d}" for i in range(PICTURES)]
    return Rows.sorted(
        ids=ids,
        groups=groups,
        contents=ids,
        labels=labels,
        classes=tuple("abcde"),
        several=False,
        members=names,
        probabilities=np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True),
        folds=np.arange(PICTURES) // 2 % 3,
        features=features,
    )


def every_stage() -> None:
    rows = rows_of(5)
    stages: dict[str, Fit] = {**votes(), **stacking(), **fusion(), **experts()}
    parts = meta_folds(rows)
    for name, fit in {"single": best_single, **stages, **meta(stages)}.items():
        run_nested(name, fit, rows, parts)


def greedy(select: Callable[[Rows], NDArray[np.int64]]) -> list[list[int]]:
    """Picks of a nested run: over all parts but one each, and over all rows."""
    rows = rows_of(LIBRARY)
    parts = meta_folds(rows)
    return [select(rows.take(parts != part)).tolist() for part in (*np.unique(parts), -1)]


def by_loop(rows: Rows) -> NDArray[np.int64]:
    taken, losses, picks = np.zeros(rows.probabilities.shape[1:]), [], []
    for number in range(1, ROUNDS + 1):
        scores = [
            log_loss(rows.labels, (taken + candidate) / number, labels=range(CLASSES))
            for candidate in rows.probabilities
        ]
        picks.append(int(np.argmin(scores)))
        losses.append(round(min(scores), 12))
        taken += rows.probabilities[picks[-1]]
    return np.array(picks[: int(np.argmin(losses)) + 1])


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of this process in one thread: what others take does not count."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def run() -> list[dict[str, Any]]:
    versions = {name: version(name) for name in ("numpy", "scipy", "scikit-learn")}
    with one_thread():
        stages, _ = timed(every_stage)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        ours, picks = timed(lambda: greedy(lambda rows: greedy_picks(rows.likelihoods[..., 0], ROUNDS)))
        peer, expected = timed(lambda: greedy(by_loop))
    if picks != expected:
        raise RuntimeError("Both selections should pick the same members. Found others.")
    sizes = {"pictures": PICTURES, "members": 5, "classes": CLASSES, "parts": 5, "threads": 1}
    compared = [
        ("stages 1 to 6 nested: 60 s by ours", sizes | {"unit": "seconds"}, stages, 60.0, 1.0),
        ("stages 1 to 6 nested: 2 GiB by the peak of ours", sizes | {"unit": "GiB"}, memory, 2.0, 1.0),
        ("greedy selection: time of the loop over scikit-learn by ours",
         sizes | {"members": LIBRARY, "rounds": ROUNDS, "unit": "seconds"}, ours, peer, 5.0),
    ]  # fmt: skip
    return [
        {
            "name": f"ensembles, {name}",
            "sizes": about,
            "versions": versions,
            "ours": round(own, 4),
            "peer": round(other, 4),
            "ratio": round(other / own, 4),
            "goal": goal,
            "holds": other / own >= goal,
        }
        for name, about, own, other, goal in compared
    ]
