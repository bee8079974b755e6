"""Stage 2, votes: the members' probabilities, averaged with fixed, fitted or selected weights."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.config.ranges import PositiveInt, Seed
from hsl.ensembles.nested import Combined, Fit, log_loss_of, score_of
from hsl.ensembles.rows import Floats, Rows
from hsl.inference.combining import FLOOR, Formula

KKT_TOLERANCE = 1e-6


def votes(rounds: PositiveInt = 20, bags: PositiveInt = 20, seed: Seed = 0) -> dict[str, Fit]:
    """The variants of the stage.

    ``hard``: share of the members that predict each class; the mean of the probabilities decides between equal shares.
    ``soft``: mean of the probabilities. ``logit``: mean of the log-probabilities (of the logits, where several classes
    may be shown), normalised. ``weighted``: mean with the weights of `simplex_weights`. ``greedy``: mean with those of
    `greedy_weights`.

    Args:
        rounds: members that each bag of the greedy selection picks.
        bags: of the greedy selection.
        seed: of the bags.
    """

    def greedy(rows: Rows) -> Combined:
        rows = rows.labelled()
        return _weighted_mean(rows, greedy_weights(_known(rows), rounds, bags, seed))

    def weighted(rows: Rows) -> Combined:
        rows = rows.labelled()
        return _weighted_mean(rows, simplex_weights(_known(rows)))

    fits = {f"votes/{kind}": _fixed({"kind": kind}) for kind in ("hard", "soft", "logit")}
    return fits | {"votes/weighted": weighted, "votes/greedy": greedy}


def best_single(rows: Rows) -> Combined:
    """The one member of the best score over the rows; of equals, of the least log loss, then the first by name."""
    rows = rows.labelled()
    scores = [score_of(values, rows) for values in rows.probabilities]
    losses = [log_loss_of(values, rows) for values in rows.probabilities]
    best = int(np.lexsort(np.array([losses, -np.nan_to_num(scores)]))[0])
    notes = {"member": rows.members[best], "scores": dict(zip(rows.members, scores, strict=True))}
    return Combined.by({"kind": "soft"}, (rows.members[best],), rows.classes, notes)


def simplex_weights(likelihoods: Floats) -> Floats:
    """Weights of least log loss on the simplex: ``w >= 0``, ``sum w = 1``, least ``-mean_j log sum_m w_m p_mj``.

    The problem is convex. At its solution the mean over j of ``p_mj / sum_i w_i p_ij`` is 1 for every member of
    weight > 0 and at most 1 for the others (Karush, Kuhn and Tucker); sequential quadratic programming finds it, and
    steps of expectation-maximisation for mixture weights follow until it holds within 1e-6. Equal members weigh alike.

    Args:
        likelihoods: ``(M, J)`` probability that each member gives to what is true.

    Returns:
        ``(M,)``.

    Example:
        >>> simplex_weights(np.array([[0.9, 0.2], [0.2, 0.9], [0.1, 0.1]])).round(3).tolist()
        [0.5, 0.5, 0.0]
    """
    from scipy.optimize import minimize  # votes with fixed weights do without

    values = np.maximum(likelihoods, FLOOR)
    num = len(values)

    def loss(weights: Floats) -> tuple[float, Floats]:
        mixed = np.maximum(weights @ values, FLOOR / num)
        return -float(np.log(mixed).mean()), -(values @ (1 / mixed)) / len(mixed)

    start = np.full(num, 1 / num)
    whole = {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like}
    options = {"ftol": 1e-12, "maxiter": 500}
    solution = minimize(
        loss, start, jac=True, method="SLSQP", bounds=[(0, 1)] * num, constraints=whole, options=options
    )
    weights = np.maximum(solution.x, 0) / np.maximum(solution.x, 0).sum()
    for _ in range(10_000):
        ratio = -loss(weights)[1]
        if ratio.max() <= 1 + KKT_TOLERANCE:
            break
        weights = (weights + KKT_TOLERANCE * start) * ratio
        weights = weights / weights.sum()
    return np.asarray(weights)


def greedy_weights(likelihoods: Floats, rounds: int = 20, bags: int = 20, seed: int = 0) -> Floats:
    """Ensemble selection with replacement, bagged.

    Source: Caruana et al. 2004, "Ensemble Selection from Libraries of Models", sections 2.1 to 2.3. Each bag holds half
    of the members (at least two). A bag begins empty and takes, round after round, the member with which the mean of
    those taken has the least log loss (of equals the first); of its rounds those up to the least loss count. The weight
    of a member is its share of the picks, averaged over the bags. The paper starts with the best N members, to the same
    end as the bags.

    Args:
        likelihoods: ``(M, J)`` probability that each member gives to what is true.
        rounds: picks of each bag, at least 1.
        bags: how many, at least 1; one bag holds all members.
        seed: of the bags.

    Returns:
        ``(M,)``, which add up to 1.

    Example:
        >>> greedy_weights(np.array([[0.9, 0.2], [0.2, 0.9], [0.1, 0.1]]), rounds=2, bags=1).tolist()
        [0.5, 0.5, 0.0]
    """
    if rounds < 1 or bags < 1:
        raise ValueError(f"`rounds` and `bags` should be at least 1. Found {rounds} and {bags}. Set them higher.")
    num, generator = len(likelihoods), np.random.default_rng(seed)
    size = num if bags == 1 else min(num, max(2, -(-num // 2)))
    weights = np.zeros(num)
    for _ in range(bags):
        bag = np.sort(generator.choice(num, size, replace=False))
        picks = bag[greedy_picks(likelihoods[bag], rounds)]
        weights += np.bincount(picks, minlength=num) / len(picks) / bags
    return weights


def greedy_picks(likelihoods: Floats, rounds: int) -> NDArray[np.int64]:
    """Members ``(R,)``, R <= rounds, in the order in which greedy selection takes them; see `greedy_weights`."""
    values = np.maximum(likelihoods, FLOOR)
    total = np.zeros(values.shape[1])
    picks, losses = [], []
    for number in range(1, rounds + 1):
        found = np.round(np.log(number) - np.log(values + total).mean(axis=1), 12)  # equals are equal
        picks.append(int(found.argmin()))
        losses.append(found[picks[-1]])
        total += values[picks[-1]]
    return np.array(picks[: int(np.argmin(losses)) + 1], dtype=np.int64)


def _weighted_mean(rows: Rows, weights: Floats) -> Combined:
    notes: dict[str, Any] = {"weights": dict(zip(rows.members, weights.tolist(), strict=True))}
    read = tuple(name for name, weight in zip(rows.members, weights, strict=True) if weight > 0)
    return Combined.by({"kind": "weighted", "weights": weights[weights > 0].tolist()}, read, rows.classes, notes)


def _fixed(formula: Formula) -> Fit:
    """A variant that needs no fit."""
    return lambda rows: Combined.by(formula, rows.members, rows.classes, {})


def _known(rows: Rows) -> Floats:
    """``(M, J)``: the likelihoods of what is known, in one row a member."""
    values = rows.likelihoods.reshape(rows.num_members, -1)
    return values[:, ~np.isnan(values[0])]
