"""The thresholds of the gate: a percentile of held-out predictions, and a split-conformal quantile over groups."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf

from hsl.exporting.gate_rules import Distance, FeatureRule, Floats, SegmentationRule

ALL = "all"


@dataclass(frozen=True, eq=False)
class GateRows:
    """Pictures, each as the model of the fold saw it that was not trained on it.

    Attributes:
        ids: of the pictures.
        groups: of each.
        labels: the image classes that each is known to show; ``all`` throughout where the data have no labels.
        shown: the classes that the image head finds in each; none without one.
        folds: ``int64 (N,)``, whose model predicted it.
        scores: ``foreground``, ``component`` and ``signal``, ``(N,)`` each, see `SegmentationRule.scores`.
        features: ``float32 (N, D)`` of the generic encoder.
        trained: by fold, the ids of what its model was trained with or stopped by.
    """

    ids: Sequence[str]
    groups: Sequence[str]
    labels: Sequence[Sequence[str]]
    shown: Sequence[Sequence[str]]
    folds: NDArray[np.int64]
    scores: Mapping[str, NDArray[np.float64]]
    features: NDArray[np.float32]
    trained: Mapping[int, Collection[str]]

    def __post_init__(self) -> None:
        """Refuse a row that its model was trained on, or whose group it was trained on.

        Raises:
            ValueError: there is one, or it cannot be told.
        """
        group_of = dict(zip(self.ids, self.groups, strict=True))
        if unknown := sorted(set(self.folds.tolist()) - set(self.trained)):
            raise ValueError(f"The training pictures of every fold should be known. Found none of fold {unknown[0]}.")
        known = {fold: {group_of[name] for name in names if name in group_of} for fold, names in self.trained.items()}
        for name, group, fold in zip(self.ids, self.groups, self.folds.tolist(), strict=True):
            if name in self.trained[fold] or group in known[fold]:
                what = f"its model (fold {fold}) was trained on" + ("" if name in self.trained[fold] else " its group")
                raise ValueError(
                    f"A threshold should be set on pictures that were held out with their groups. Found `{name}` "
                    f"(group `{group}`): {what}. Split with `data.split.groups=COLUMN`, and train every fold again."
                )

    def take(self, rows: NDArray[Any]) -> "GateRows":
        """Some of the rows, chosen by a mask or by places."""
        places = np.arange(len(self.ids))[rows]
        cut: dict[str, Any] = {
            f.name: [getattr(self, f.name)[i] for i in places] for f in fields(self)[:4]
        }  # the four lists
        scores = {name: values[places] for name, values in self.scores.items()}
        return replace(self, **cut, folds=self.folds[places], scores=scores, features=self.features[places])


@dataclass(frozen=True)
class FeatureSettings:
    """Of the feature rule; the reference and the calibration are two halves of the groups, drawn by ``seed``."""

    distance: Distance = "neighbours"
    k: int = 10
    coverage: float = 0.99
    seed: int = 0


@dataclass(frozen=True, eq=False)
class FittedFeatures:
    """The feature rule, its arrays, and which rows were the reference; the others calibrated it."""

    rule: FeatureRule
    arrays: Mapping[str, NDArray[np.float32]]
    reference: NDArray[np.bool_]


def conformal_quantile(scores: Floats, groups: Sequence[str], coverage: float) -> float:
    """The threshold that all pictures of a new group stay below with probability ``coverage``.

    The score of a group is the largest of its pictures. Of the n groups, sorted, it is the score at place
    ``ceil((n + 1) coverage)``: a new group, exchangeable with them, is at most as high with at least that probability
    (Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005).

    Args:
        scores: ``(N,)``, the higher the stranger, of groups that made no part of what measures them.
        groups: of each.
        coverage: in (0, 1).

    Raises:
        ValueError: there are fewer than ``coverage / (1 - coverage)`` groups: no threshold could promise it.

    Example:
        >>> conformal_quantile(np.array([0.1, 0.5, 0.2, 0.3]), ["a", "a", "b", "c"], 0.75)
        0.5
    """
    largest: dict[str, float] = {}
    for score, group in zip(scores.tolist(), groups, strict=True):
        largest[group] = max(score, largest.get(group, -math.inf))
    number, place = len(largest), math.ceil((len(largest) + 1) * coverage - 1e-9)
    if place > number:
        least = math.ceil(coverage / (1 - coverage) - 1e-9)
        raise ValueError(
            f"A coverage of {coverage:g} needs at least {least} groups that calibrate. Found {number}. With these a "
            f"coverage of at most {math.floor(1000 * number / (number + 1)) / 1000:g} can be kept."
        )
    return sorted(largest.values())[place - 1]


def class_thresholds(rows: GateRows, percentile: float) -> dict[str, float]:
    """Least share of foreground by class: the ``percentile``-th of its pictures, which at most so many lie below.

    A class with fewer than ``100 / percentile`` pictures has none: its smallest would be the threshold.
    """
    found = {}
    for name in sorted({name for names in rows.labels for name in names}):
        shares = rows.scores["foreground"][[name in names for names in rows.labels]]
        if len(shares) >= 100 / percentile:
            found[name] = float(np.percentile(shares, percentile, method="lower"))
    return found


def fit_features(features: NDArray[np.float32], groups: Sequence[str], settings: FeatureSettings) -> FittedFeatures:
    """The feature rule from one half of the groups, its threshold from the other.

    Raises:
        ValueError: there are too few groups for the coverage, or pictures for ``k``.
    """
    names = sorted(set(groups))
    order = np.random.default_rng(settings.seed).permutation(len(names))
    chosen = {names[i] for i in order[: len(names) // 2]}
    reference = np.array([group in chosen for group in groups])
    arrays = {"reference": features[reference]}
    if settings.distance == "mahalanobis":
        fitted = LedoitWolf().fit(features[reference].astype(np.float64))
        arrays = {"mean": fitted.location_.astype(np.float32), "precision": fitted.precision_.astype(np.float32)}
    elif not 1 <= settings.k <= reference.sum():
        raise ValueError(f"`k` should be in [1, {reference.sum()}], the pictures of the reference. Found {settings.k}.")
    rule = FeatureRule(settings.distance, settings.k, math.inf, settings.coverage)
    held = [group for group, inside in zip(groups, reference, strict=True) if not inside]
    threshold = conformal_quantile(rule.distances(features[~reference], arrays), held, settings.coverage)
    return FittedFeatures(replace(rule, threshold=threshold), arrays, reference)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """How rules that other folds made judge every row: whether each accepts it, its threshold and its distance.

    ``limits`` are the least shares of foreground, ``thresholds`` the largest distances, of the folds' own rules.
    """

    segmentation: NDArray[np.bool_]
    feature: NDArray[np.bool_]
    limits: NDArray[np.float64]
    distances: NDArray[np.float64]
    thresholds: NDArray[np.float64]

    @property
    def accepted(self) -> NDArray[np.bool_]:
        """Where both do."""
        return self.segmentation & self.feature


def judge_held_out(rows: GateRows, rule: SegmentationRule, percentile: float, settings: FeatureSettings) -> HeldOut:
    """Judge the rows of every fold by thresholds and a reference from the other folds alone.

    Args:
        rows: of at least two folds.
        rule: whose thresholds are replaced.
        percentile: see `class_thresholds`.
        settings: of the feature rule.

    Raises:
        ValueError: there is one fold, or see `fit_features`.
    """
    if len(set(rows.folds.tolist())) < 2:
        raise ValueError("There should be two folds or more: one is judged by what the others set. Found one.")
    number = len(rows.ids)
    judged = HeldOut(*(np.zeros(number, bool) for _ in range(2)), *(np.zeros(number) for _ in range(3)))
    for fold in sorted(set(rows.folds.tolist())):
        inside = rows.folds == fold
        others, own = rows.take(~inside), np.flatnonzero(inside).tolist()
        of_fold = replace(rule, thresholds=class_thresholds(others, percentile))
        fitted = fit_features(others.features, others.groups, settings)
        judged.distances[own] = fitted.rule.distances(rows.features[own], fitted.arrays)
        judged.thresholds[own] = fitted.rule.threshold
        judged.feature[own] = judged.distances[own] <= fitted.rule.threshold
        for i in own:
            scores = {name: float(values[i]) for name, values in rows.scores.items()}
            judged.segmentation[i] = not of_fold.broken(scores, rows.shown[i])
            judged.limits[i] = of_fold.threshold(rows.shown[i])[1]
    return judged


def wilson_interval(share: float, number: float, z: float = 1.959964) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927), 95 % by default.

    Args:
        share: in [0, 1].
        number: of independent observations; of pictures in groups that of the groups, as if those of a group agreed.
        z: quantile of the normal distribution.

    Example:
        >>> low, high = wilson_interval(1.0, 50)
        >>> round(low, 3), round(high, 3)
        (0.929, 1.0)
    """
    centre, spread = share + z**2 / (2 * number), z * math.sqrt(share * (1 - share) / number + (z / number) ** 2 / 4)
    return max(0.0, (centre - spread) / (1 + z**2 / number)), min(1.0, (centre + spread) / (1 + z**2 / number))
