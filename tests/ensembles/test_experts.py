"""The gate against simplex weights, and on members that know when they know."""

from dataclasses import replace

import numpy as np
import pytest
from tests.ensembles._inputs import relabelled, rows_of

from hsl.ensembles.experts import experts
from hsl.ensembles.nested import meta_folds, run_nested, score_of
from hsl.ensembles.rows import Rows
from hsl.ensembles.votes import best_single, simplex_weights


def gate(rows: Rows, **settings: float) -> np.ndarray:
    return experts(**settings)["experts/gate"](rows)(rows)


def test_a_gate_that_may_read_nothing_gives_the_weights_of_least_log_loss() -> None:
    rows = rows_of([1, 0.8, 0.5], num=120)
    weights = simplex_weights(rows.likelihoods[..., 0])
    expected = np.einsum("m,mnk->nk", weights, rows.probabilities)
    np.testing.assert_allclose(gate(rows, inverse_penalty=1e-9), expected, atol=0.02)


def where_each_knows(several: bool) -> Rows:
    """A feature of the image says which of two members is right; the third is noise."""
    rows = rows_of([1.5, 1.5, 0], num=240, several=several)
    wrong, first = rows_of([-1, -1, 0], num=240, several=several), np.arange(240) % 4 < 2
    probabilities = rows.probabilities.copy()
    probabilities[0, ~first], probabilities[1, first] = wrong.probabilities[0, ~first], wrong.probabilities[1, first]
    features = {"m02": first[:, None].astype(np.float32)}
    return replace(rows, probabilities=probabilities, features=features)


@pytest.mark.parametrize("several", [False, True])
def test_the_gate_reads_which_member_knows(several: bool) -> None:
    rows = where_each_knows(several)
    parts, fit = meta_folds(rows, 3), experts(inverse_penalty=100)["experts/gate"]
    gated = score_of(run_nested("gate", fit, rows, parts).nested, rows)
    assert gated > score_of(rows.probabilities.mean(axis=0), rows) + 0.1
    assert gated > score_of(run_nested("single", best_single, rows, parts).nested, rows) + 0.1
    with pytest.raises(ValueError, match="pooled features of m02, which the gate was fitted on"):
        fit(rows)(replace(rows, features={}))


def test_only_the_top_members_are_asked() -> None:
    rows = where_each_knows(False)
    top = gate(rows, top=1, inverse_penalty=100)
    assert (np.abs(top[None] - rows.probabilities).max(axis=2).min(axis=0) < 1e-12).all()
    np.testing.assert_array_equal(gate(rows, top=3), gate(rows, top=9))
    with pytest.raises(ValueError, match="`top` should be at least 1"):
        gate(rows, top=0)


def test_members_of_equal_weight_are_asked_together() -> None:
    rows = rows_of([1], num=40)
    four = rows_of([1] * 4, num=40, probabilities=np.repeat(rows.probabilities, 4, axis=0), features={})
    np.testing.assert_allclose(gate(four, top=1), rows.probabilities[0], atol=1e-6)
    np.testing.assert_allclose(gate(rows), rows.probabilities[0])


def test_unknown_labels_are_in_no_fit() -> None:
    rows = rows_of([1, 0.5], num=60)
    known = np.arange(60) % 3 > 0
    fit = experts()["experts/gate"]
    some = relabelled(rows, np.where(known, rows.labels, -1))
    np.testing.assert_array_equal(fit(some)(rows), fit(rows.take(known))(rows))
