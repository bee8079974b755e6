"""Thresholds from held-out pictures: which rows may set them, and whether they keep their promise."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.covariance import LedoitWolf

from hsl.exporting.gate_fit import (
    ALL,
    FeatureSettings,
    GateRows,
    class_thresholds,
    conformal_quantile,
    fit_features,
    judge_held_out,
    wilson_interval,
)
from hsl.exporting.gate_rules import SegmentationRule, neighbour_distances

RULE = SegmentationRule("segmentation", ("background", "leaf"), (), "classification", {}, 0.15, 0.01, (), 0.3)


def rows(num_groups: int = 30, per_group: int = 2, num_folds: int = 3, seed: int = 0) -> GateRows:
    rng = np.random.default_rng(seed)
    groups = [f"g{i:03d}" for i in range(num_groups) for _ in range(per_group)]
    ids = [f"{group}_{i}" for i, group in enumerate(groups)]
    folds = np.array([int(group[1:]) % num_folds for group in groups])
    labels = ["rust" if int(group[1:]) % 2 else "healthy" for group in groups]
    share = np.array([0.5 if label == "rust" else 0.2 for label in labels]) + rng.uniform(0, 0.1, len(ids))
    scores = {"foreground": share, "component": share, "signal": np.zeros(len(ids))}
    trained = {fold: [name for name, f in zip(ids, folds, strict=True) if f != fold] for fold in range(num_folds)}
    features = rng.normal(size=(len(ids), 6)).astype(np.float32) + 2
    shown = [[label] for label in labels]
    return GateRows(ids, groups, shown, shown, folds, scores, features, trained)


def test_a_row_that_its_model_was_trained_on_is_refused() -> None:
    good = rows()
    leaked = {**good.trained, 0: [*good.trained[0], good.ids[0]]}
    with pytest.raises(
        ValueError, match=r"Found `g000_0` \(group `g000`\): its model \(fold 0\) was trained on\. Split"
    ):
        replace(good, trained=leaked)
    sibling = {**good.trained, 0: [*good.trained[0], good.ids[1]]}
    with pytest.raises(
        ValueError, match=r"Found `g000_0` \(group `g000`\): its model \(fold 0\) was trained on its group"
    ):
        replace(good, ids=good.ids, trained=sibling)
    with pytest.raises(ValueError, match="Found none of fold 2"):
        replace(good, trained={0: [], 1: []})


def test_thresholds_are_percentiles_of_each_class() -> None:
    found = rows(num_groups=40)
    limits = class_thresholds(found, 5)
    for name in ("healthy", "rust"):
        shares = sorted(found.scores["foreground"][[names == [name] for names in found.labels]])
        assert limits[name] == shares[1], "5 % of 40: two lie no higher, one lies below"
    assert class_thresholds(found.take(np.arange(len(found.ids)) < 30), 5) == {}, "15 of a class are too few"


def test_without_labels_one_threshold_holds_for_all() -> None:
    found = replace(rows(), labels=[[ALL]] * 60, shown=[[]] * 60)
    limits = class_thresholds(found, 5)
    assert limits == {ALL: sorted(found.scores["foreground"])[2]}
    assert replace(RULE, thresholds=limits, image_head=None).threshold([]) == (ALL, limits[ALL])
    judged = judge_held_out(found, replace(RULE, image_head=None), 5, FeatureSettings(k=3, coverage=0.8))
    own = found.folds == 1
    assert set(judged.limits[own]) == set(class_thresholds(found.take(~own), 5).values())
    unknown = replace(found, labels=[[]] * 60)
    assert class_thresholds(unknown, 5) == {}
    assert RULE.threshold([]) == (ALL, 0.15), "nothing is known of any: the default"


def test_the_quantile_is_that_of_whole_groups() -> None:
    scores, groups = np.arange(20.0), [f"{i // 2}" for i in range(20)]
    assert conformal_quantile(scores, groups, 0.9) == 19, "the 10th of 10 groups, by its largest"
    assert conformal_quantile(scores, groups, 0.5) == 11
    with pytest.raises(ValueError, match=r"needs at least 99 groups that calibrate. Found 10. .* at most 0.909"):
        conformal_quantile(scores, groups, 0.99)
    assert conformal_quantile(scores, groups, 0.909) == 19, "the advice works"


def test_reference_and_calibration_share_no_group() -> None:
    found = rows(num_groups=41)
    fitted = fit_features(found.features, found.groups, FeatureSettings(k=3, coverage=0.9))
    groups = np.array(found.groups)
    assert not set(groups[fitted.reference]) & set(groups[~fitted.reference])
    assert len(set(groups[fitted.reference])) == 20
    np.testing.assert_array_equal(fitted.arrays["reference"], found.features[fitted.reference])
    distances = neighbour_distances(found.features[~fitted.reference], fitted.arrays["reference"], 3)
    assert fitted.rule.threshold == conformal_quantile(distances, groups[~fitted.reference].tolist(), 0.9)
    with pytest.raises(ValueError, match=r"`k` should be in \[1, 40\], .* Found 41"):
        fit_features(found.features, found.groups, FeatureSettings(k=41, coverage=0.9))
    shrunk = fit_features(found.features, found.groups, FeatureSettings("mahalanobis", coverage=0.9))
    wanted = LedoitWolf().fit(found.features[fitted.reference].astype(float))
    np.testing.assert_allclose(shrunk.arrays["precision"], wanted.precision_, rtol=1e-5)


def test_a_fold_is_judged_by_the_others_alone() -> None:
    found, settings = rows(num_groups=90), FeatureSettings(k=3, coverage=0.9)
    judged = judge_held_out(found, RULE, 5, settings)
    own = found.folds == 1
    others = found.take(~own)
    fitted = fit_features(others.features, others.groups, settings)
    np.testing.assert_allclose(judged.distances[own], fitted.rule.distances(found.features[own], fitted.arrays))
    assert set(judged.thresholds[own]) == {fitted.rule.threshold}
    assert set(judged.limits[own]) == set(class_thresholds(others, 5).values())
    strange = replace(found, features=np.where(own[:, None], -found.features, found.features))
    assert not judge_held_out(strange, RULE, 5, settings).feature[own].any(), "its own pictures set nothing"
    assert 0.85 < judged.accepted.mean() < 1
    with pytest.raises(ValueError, match="two folds or more"):
        judge_held_out(found.take(own), RULE, 5, settings)


def test_the_interval_of_a_share_is_wilsons() -> None:
    for hits, number in ((0, 10), (3, 10), (97, 100), (425, 425)):
        wanted = binomtest(hits, number).proportion_ci(method="wilson")
        np.testing.assert_allclose(wilson_interval(hits / number, number), wanted, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_new_groups_are_covered_as_promised(coverage: float) -> None:
    """Groups shift all of their pictures, and have 1 to 6 of them: what ignores groups promises too much."""
    rng, covered, naive = np.random.default_rng(5), [], []
    for _ in range(600):
        sizes = rng.integers(1, 7, 60)
        groups = np.repeat(np.arange(60), sizes)
        scores = rng.normal(size=60)[groups] + rng.normal(size=len(groups))
        threshold = conformal_quantile(scores, groups.astype(str).tolist(), coverage)
        new = [rng.normal() + rng.normal(size=rng.integers(1, 7)) for _ in range(20)]
        covered.append(np.mean([one.max() <= threshold for one in new]))
        naive.append(np.mean([one.max() <= np.quantile(scores, coverage) for one in new]))
    error = np.std(covered) / np.sqrt(len(covered))
    assert coverage - 3 * error <= np.mean(covered) <= coverage + 1 / 61 + 3 * error
    assert np.mean(naive) < coverage - 0.02


@pytest.mark.slow
def test_pictures_of_new_groups_are_accepted_through_both_halves() -> None:
    """The whole of `fit_features`: reference and calibration drawn from the same groups as the new ones."""
    rng, covered = np.random.default_rng(9), []

    def draw(number: int) -> tuple[Any, list[str]]:
        groups = np.repeat(np.arange(number), 3)
        return (rng.normal(size=(number, 8))[groups] + 0.3 * rng.normal(size=(3 * number, 8)) + 1).astype(
            np.float32
        ), groups.astype(str).tolist()

    for seed in range(300):
        fitted = fit_features(*draw(80), FeatureSettings(k=5, coverage=0.9, seed=seed))
        features, _groups = draw(50)
        inside = fitted.rule.distances(features, fitted.arrays) <= fitted.rule.threshold
        covered.append(inside.reshape(50, 3).all(axis=1).mean())
    error = np.std(covered) / np.sqrt(len(covered))
    assert 0.9 - 3 * error <= np.mean(covered) <= 0.9 + 1 / 41 + 3 * error
