"""Votes against closed forms, the optimality conditions and brute force."""

import itertools
import time

import numpy as np
import pytest
from sklearn.metrics import log_loss
from tests.ensembles._inputs import relabelled, rows_of

from hsl.ensembles.nested import Fit, log_loss_of, meta_folds, run_nested, score_of
from hsl.ensembles.rows import Rows
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
