"""The loss of the heads that are ours; the classifiers themselves are tested by the stages."""

import numpy as np
import pytest
from sklearn.metrics import log_loss

from hsl.ensembles.learners import cross_entropy, sigmoid, softmax


def test_cross_entropy_has_the_gradient_of_finite_differences() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(6, 3))
    for several in (False, True):
        truth = generator.integers(0, 2, (6, 3)).astype(float) if several else np.eye(3)[[0, 1, 2, 0, 1, 2]]
        truth[0] = np.nan
        value, gradient = cross_entropy(logits, truth, several)
        numeric = np.zeros_like(logits)
        for index in np.ndindex(*logits.shape):
            step = np.zeros_like(logits)
            step[index] = 1e-6
            ends = [cross_entropy(logits + sign * step, truth, several)[0] for sign in (1, -1)]
            numeric[index] = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(gradient, numeric, atol=1e-6)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    value, _ = cross_entropy(logits, np.eye(3)[[0, 1, 2, 0, 1, 2]], False)
    assert value == pytest.approx(6 * log_loss([0, 1, 2, 0, 1, 2], probabilities))


def test_great_logits_overflow_nowhere() -> None:
    np.testing.assert_array_equal(softmax(np.array([[1e5, 0.0]])), [[1, 0]])
    np.testing.assert_array_equal(sigmoid(np.array([-1e5, 0, 1e5])), [0, 0.5, 1])
    assert cross_entropy(np.array([[0.0, 900.0]]), np.array([[1.0, 0.0]]), False)[0] > 700
