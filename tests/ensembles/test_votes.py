"""Votes against closed forms, the optimality conditions and brute force; diversity by hand."""

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import log_loss
from tests.ensembles._inputs import relabelled, rows_of

from hsl.ensembles.diversity import disagreement, q_statistic, right_answers, share_with_one_right, wrong_ids
from hsl.ensembles.nested import Fit, log_loss_of, meta_folds, run_nested, score_of
from hsl.ensembles.rows import Rows
from hsl.ensembles.segmentation_vote import segmentation_vote
from hsl.ensembles.votes import best_single, greedy_picks, greedy_weights, simplex_weights, votes


def combine(name: str, rows: Rows) -> np.ndarray:
    return votes()[f"votes/{name}"](rows)(rows)


def of(probabilities: list, several: bool = False) -> Rows:
    probabilities = np.array(probabilities, dtype=float)
    num, classes = probabilities.shape[1:]
    labels = np.zeros((num, classes)) if several else np.zeros(num, dtype=int)
    return rows_of(
        [1] * len(probabilities), num=num, classes=classes, several=several, labels=labels, probabilities=probabilities
    )


def test_fixed_votes_have_closed_forms() -> None:
    rows = of([[[0.6, 0.4, 0.0]], [[0.1, 0.5, 0.4]], [[0.2, 0.45, 0.35]]])
    np.testing.assert_allclose(combine("soft", rows), [[0.3, 0.45, 0.25]])
    np.testing.assert_allclose(combine("hard", rows), [[1.3 / 4, 2.45 / 4, 0.25 / 4]])
    powers = np.array([0.6 * 0.1 * 0.2, 0.4 * 0.5 * 0.45, 1e-7 * 0.4 * 0.35]) ** (1 / 3)
    np.testing.assert_allclose(combine("logit", rows), [powers / powers.sum()])
    several = of([[[0.9, 0.2]], [[0.5, 0.4]]], several=True)
    odds = np.sqrt([9 * 1, (0.2 / 0.8) * (0.4 / 0.6)])
    np.testing.assert_allclose(combine("logit", several), [odds / (1 + odds)])


def test_the_soft_vote_of_members_that_say_the_same_is_what_they_say() -> None:
    rows = rows_of([0.5], num=20)
    three = rows_of({"a": 1, "b": 1, "c": 1}, num=20, probabilities=np.repeat(rows.probabilities, 3, axis=0))
    for name in ("soft", "logit", "weighted", "greedy"):
        np.testing.assert_allclose(combine(name, three), rows.probabilities[0], atol=1e-6)


@pytest.mark.parametrize("num_members", [2, 3, 4, 5])
def test_a_hard_vote_counts_votes_and_the_mean_decides_between_equals(num_members: int) -> None:
    generator = np.random.default_rng(num_members)
    rows = of(generator.dirichlet(np.ones(3), (num_members, 200)))
    cast = np.eye(3)[rows.probabilities.argmax(axis=2)].sum(axis=0)
    mean = rows.probabilities.mean(axis=0)
    expected = [max(range(3), key=lambda k: (cast[i, k], mean[i, k])) for i in range(200)]
    assert combine("hard", rows).argmax(axis=1).tolist() == expected
    several = of(generator.uniform(size=(num_members, 200, 3)), several=True)
    cast, mean = (several.probabilities >= 0.5).sum(axis=0), several.probabilities.mean(axis=0)
    expected = (2 * cast > num_members) | ((2 * cast == num_members) & (mean >= 0.5))
    np.testing.assert_array_equal(combine("hard", several) >= 0.5, expected)


@pytest.mark.parametrize("seed", range(5))
def test_simplex_weights_meet_the_conditions_of_the_least_log_loss(seed: int) -> None:
    rows = rows_of([1, 0.9, 0.7, 0.2, 0, -1], num=150, seed=seed)
    values = rows.likelihoods[..., 0]
    weights = simplex_weights(values)
    ratio = (values / (weights @ values)).mean(axis=1)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    assert ratio.max() <= 1 + 2e-6
    np.testing.assert_allclose(ratio[weights > 1e-3], 1, atol=1e-4)
    assert weights[-1] < 1e-6  # always wrong
    grid = [np.array(w) / 4 for w in itertools.product(range(5), repeat=6) if sum(w) == 4]
    assert -np.log(weights @ values).mean() <= min(-np.log(w @ values).mean() for w in grid) + 1e-9


def test_equal_members_weigh_alike_and_degenerate_likelihoods_have_weights() -> None:
    values = rows_of([1, 0.6], num=80).likelihoods[..., 0]
    weights = simplex_weights(values[[0, 1, 1, 0]])
    assert weights[0] == pytest.approx(weights[3], abs=1e-6)
    assert weights[1] == pytest.approx(weights[2], abs=1e-6)
    np.testing.assert_allclose(simplex_weights(values[:1]), [1])
    np.testing.assert_allclose(simplex_weights(np.zeros((2, 5))), [0.5, 0.5])
    np.testing.assert_allclose(simplex_weights(np.array([[1.0] * 5, [0.0] * 5])), [1, 0], atol=1e-6)


def brute_force(rows: Rows, rounds: int) -> list[int]:
    """The same selection over scikit-learn's log loss, one candidate after the other."""
    values = np.maximum(rows.probabilities, 1e-7)
    taken, losses, picks = np.zeros(values.shape[1:]), [], []
    for number in range(1, rounds + 1):
        means = [(taken + candidate) / number for candidate in values]
        scores = [round(log_loss(rows.labels, mean, labels=range(len(rows.classes))), 12) for mean in means]
        picks.append(int(np.argmin(scores)))
        losses.append(round(min(scores), 12))
        taken += values[picks[-1]]
    return picks[: int(np.argmin(losses)) + 1]


def test_greedy_selection_is_that_of_a_brute_force() -> None:
    for seed in range(4):
        rows = rows_of([1, 0.9, 0.8, 0.5], num=60, seed=seed)
        assert greedy_picks(rows.likelihoods[..., 0], 8).tolist() == brute_force(rows, 8)
    loss = {
        taken: log_loss(rows.labels, rows.probabilities[list(taken)].mean(axis=0))
        for size in (1, 2)
        for taken in itertools.combinations_with_replacement(range(4), size)
    }
    first, second = greedy_picks(rows.likelihoods[..., 0], 2)
    assert loss[first,] == min(value for taken, value in loss.items() if len(taken) == 1)
    assert loss[tuple(sorted((first, second)))] == min(value for taken, value in loss.items() if first in taken)


def test_nested_greedy_selection_is_five_times_faster_than_the_loop() -> None:
    rows = rows_of([1 - i / 30 for i in range(20)], num=300)
    parts = meta_folds(rows, 3)
    start = time.perf_counter()
    run_nested("greedy", votes(bags=1)["votes/greedy"], rows, parts)
    own = time.perf_counter() - start
    start = time.perf_counter()
    brute_force(rows.take(parts != 0), 5)  # a quarter of the rounds of one of four fits
    assert own * 5 < 16 * (time.perf_counter() - start)


def test_bags_hold_half_of_the_members_and_the_weights_add_up() -> None:
    rows = rows_of([1, 0.9, 0.8, 0.7, 0, 0], num=100)
    weights = greedy_weights(rows.likelihoods[..., 0])
    assert weights.sum() == pytest.approx(1)
    assert (weights[:4] > 0.05).all()  # every good member is the best of some bag
    np.testing.assert_array_equal(weights, greedy_weights(rows.likelihoods[..., 0]))
    np.testing.assert_allclose(greedy_weights(rows.likelihoods[:1, :, 0]), [1])
    with pytest.raises(ValueError, match=r"at least 1. Found 0 and 20"):
        greedy_weights(weights[None], rounds=0)


def test_the_best_single_member_is_that_of_the_best_score_then_of_the_least_loss() -> None:
    rows = rows_of([0.3, 1, 0.5], num=90)
    assert best_single(rows).notes["member"] == "m01"
    np.testing.assert_array_equal(best_single(rows)(rows), rows.probabilities[1])
    surer = of([[[0.6, 0.4]] * 2, [[0.7, 0.3]] * 2, [[0.7, 0.3]] * 2])
    assert best_single(surer).notes["member"] == "m01"


@pytest.mark.parametrize("several", [False, True])
def test_fitted_votes_beat_the_mean_where_members_are_noise(several: bool) -> None:
    rows = rows_of([1, 1, 0, 0, 0, 0], num=200, several=several)
    parts = meta_folds(rows)
    nested = {name: run_nested(name, fit, rows, parts) for name, fit in all_fits().items()}
    losses = {name: log_loss_of(result.nested, rows) for name, result in nested.items()}
    assert max(losses["votes/weighted"], losses["votes/greedy"]) < losses["votes/soft"]
    assert score_of(nested["votes/weighted"].nested, rows) > score_of(nested["single"].nested, rows) - 0.02
    assert sum(nested["votes/weighted"].combined.notes["weights"].values()) == pytest.approx(1)


def test_unknown_labels_are_in_no_fit() -> None:
    rows = rows_of([1, 0.5, 0], num=60)
    known = np.arange(60) % 3 > 0
    some = relabelled(rows, np.where(known, rows.labels, -1))
    for name, fit in all_fits().items():
        np.testing.assert_array_equal(fit(some)(rows), fit(rows.take(known))(rows), err_msg=name)


def all_fits() -> dict[str, Fit]:
    return {"single": best_single, **votes()}


# Votes that weigh the foreground IoU.


VOTES = segmentation_vote()


def rows_with(foreground: list, **others: object) -> Rows:
    return rows_of([1] * len(foreground), num=len(foreground[0]), foreground=foreground, **others)


def test_a_member_weighs_its_mean_foreground_iou() -> None:
    rows = rows_with([[0.9, 0.6, 0.3], [0.2, np.nan, 0.2]], labels=[0, 0, 1])
    expected = 0.75 * rows.probabilities[0] + 0.25 * rows.probabilities[1]
    np.testing.assert_allclose(VOTES["segmentation_vote/overall"](rows)(rows), expected)
    combined = VOTES["segmentation_vote/per_class"](rows)
    weights = np.array([combined.notes["weights"]["m00"], combined.notes["weights"]["m01"]])
    np.testing.assert_allclose(weights[0], [0.75 / 0.95, 0.6, 0.75])  # class c is in no row: as overall
    summed = (weights[:, None] * rows.probabilities).sum(axis=0)
    np.testing.assert_allclose(combined(rows), summed / summed.sum(axis=1, keepdims=True))


def test_of_several_classes_each_is_weighted_by_itself() -> None:
    rows = rows_with([[0.9, 0.1], [0.1, 0.1]], several=True, classes=2, labels=[[1, 0], [0, 1]])
    found = VOTES["segmentation_vote/per_class"](rows)(rows)
    np.testing.assert_allclose(found[:, 0], 0.9 * rows.probabilities[0, :, 0] + 0.1 * rows.probabilities[1, :, 0])
    np.testing.assert_allclose(found[:, 1], rows.probabilities[:, :, 1].mean(axis=0))


def test_a_member_without_masks_has_no_vote_and_masks_that_find_nothing_weigh_alike() -> None:
    rows = rows_with([[0.5, 0.5], [np.nan, np.nan]])
    nothing = rows_with([[0, 0], [np.nan, 0]])
    for name, fit in VOTES.items():
        np.testing.assert_allclose(fit(rows)(rows), rows.probabilities[0], err_msg=name)
        np.testing.assert_allclose(fit(nothing)(nothing), nothing.probabilities.mean(axis=0))
        for unknown in (None, np.full((2, 2), np.nan)):
            with pytest.raises(ValueError, match="members whose foreground IoU is known"):
                fit(replace(rows, foreground=unknown))


def test_the_iou_of_what_is_combined_is_not_read() -> None:
    rows = rows_of([1.5, 1, 0], num=90)
    for name, fit in VOTES.items():
        np.testing.assert_array_equal(fit(rows)(replace(rows, foreground=None)), fit(rows)(rows))
        nested = run_nested(name, fit, rows, meta_folds(rows)).nested
        assert score_of(nested, rows) >= score_of(rows.probabilities.mean(axis=0), rows)


# Diversity by hand.


def test_pairs_of_members_by_hand() -> None:
    answers = [[0, 0, 1, 1, 2], [0, 1, 1, 2, 2], [1, 1, 2, 2, 0]]
    rows = rows_of([1, 1, 1], num=5, labels=[0, 0, 1, 0, 1], probabilities=np.eye(3)[answers])
    assert right_answers(rows).astype(int).tolist() == [[1, 1, 1, 0, 0], [1, 0, 1, 0, 0], [0] * 5]
    np.testing.assert_allclose(disagreement(rows), [[0, 0.4, 1], [0.4, 0, 0.6], [1, 0.6, 0]])
    q = q_statistic(rows)
    assert (q[0, 1], q[0, 0]) == (1, 1)  # 2 both right, 2 both wrong, 1 and 0
    assert np.isnan(q[0, 2])
    assert share_with_one_right(rows) == pytest.approx(0.6)
    expected = {"all": ("i0003", "i0004"), "one": ("i0000", "i0002"), "one_right": ("i0001",)}
    assert wrong_ids(rows) == expected
    some = relabelled(rows, [0, 0, 1, -1, -1])
    assert share_with_one_right(some) == 1
    assert wrong_ids(some)["all"] == ()


def test_independent_members_have_a_q_statistic_near_zero() -> None:
    rows = rows_of([0.5, 0.5], num=4000, group_size=1)
    assert abs(q_statistic(rows)[0, 1]) < 0.1


def test_of_several_classes_all_known_ones_must_be_right() -> None:
    rows = rows_of(
        [1, 1], num=2, several=True, classes=2, labels=[[1, 0], [1, np.nan]],
        probabilities=[[[0.9, 0.1], [0.9, 0.9]], [[0.9, 0.9], [0.4, 0.1]]],
    )  # fmt: skip
    assert right_answers(rows).tolist() == [[True, True], [False, False]]
    assert disagreement(rows)[0, 1] == 1


def test_a_combination_needs_no_member_without_weight() -> None:
    rows = rows_of({"good": 3.0, "fair": 2.0, "noise": 0.0})
    for fit in (best_single, votes()["votes/weighted"], votes()["votes/greedy"]):
        combined = fit(rows)
        assert set(combined.members) < set(rows.members)
        np.testing.assert_array_equal(combined(rows.of_members(combined.members)), combined(rows))
