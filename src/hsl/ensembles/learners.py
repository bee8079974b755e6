"""Classifiers on columns of numbers, for the stages that learn: one class per image or several, gaps in the labels."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from hsl.ensembles.rows import Floats, Rows
from hsl.inference.combining import Formula, sigmoid, softmax


@dataclass(frozen=True, eq=False)
class Learned:
    """What was learnt: ``(N, D)`` columns -> ``(N, K)`` probabilities.

    Attributes:
        predict: the function.
        formula: the same as numbers, of a linear classifier, see `hsl.inference.combining.linear`; else ``None``.
    """

    predict: Callable[[Floats], Floats]
    formula: Formula | None = None

    def __call__(self, columns: Floats) -> Floats:
        return self.predict(columns)


MakeClassifier: TypeAlias = Callable[[], Any]
"""Makes an unfitted classifier of scikit-learn's kind, seeded."""


def logistic_regression(inverse_penalty: float) -> Any:
    """Multinomial, on columns standardised over the fitted rows; ``inverse_penalty`` is C of scikit-learn."""
    from sklearn.linear_model import LogisticRegression  # takes two seconds to import: only where it is fitted
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=1000))


def linear_head(inverse_penalty: float) -> Any:
    """Multinomial logistic regression on columns as they are."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=inverse_penalty, max_iter=1000)


def multilayer_perceptron(hidden: int, penalty: float, seed: int) -> Any:
    """One hidden layer, weight decay, L-BFGS of at most 200 steps, on columns standardised over the fitted rows."""
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    network = MLPClassifier((hidden,), solver="lbfgs", alpha=penalty, max_iter=200, random_state=seed)
    return make_pipeline(StandardScaler(), network)


def gradient_boosting(trees: int, leaves: int, seed: int) -> Any:
    """Histogram gradient boosting of small trees, without early stopping."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=trees, max_leaf_nodes=leaves, l2_regularization=1.0, early_stopping=False, random_state=seed
    )


def learn(make: MakeClassifier, columns: Floats, rows: Rows) -> Learned:
    """Fit a classifier to what is known of the rows' labels; one against the rest where several may be shown.

    Where nothing can be learnt: a class that no fitted row has gets probability 0, and the one class of all fitted rows
    1; of several, one that all or none of the rows show gets (rows with it + 1) / (rows + 2).

    Args:
        make: gives the classifier.
        columns: ``(N, D)``.
        rows: N labelled ones; see `Rows.labelled`.
    """
    num_classes = len(rows.classes)
    if not rows.several:
        known = rows.labels >= 0
        return _one_class(make, columns[known], rows.labels[known], num_classes)
    shown = []
    for truth in rows.truth.T:
        known = ~np.isnan(truth)
        shown.append(_shown(make, columns[known], truth[known].astype(np.int64)))
    linear = [each.formula for each in shown if each.formula is not None]
    formula = None
    if len(linear) == num_classes:
        columnwise = {name: np.hstack([each[name] for each in linear]).tolist() for name in ("weights", "bias")}
        formula = _formula(columnwise["weights"], columnwise["bias"], range(num_classes), num_classes)
    return Learned(lambda new: np.column_stack([predict(new) for predict in shown]), formula)


def cross_entropy(logits: Floats, truth: Floats, several: bool) -> tuple[float, Floats]:
    """Sum of the cross-entropies of what is known, and its gradient ``(N, K)`` with respect to the logits."""
    known = ~np.isnan(truth)
    target = np.where(known, truth, 0)
    if several:
        losses = np.logaddexp(0, logits) - target * logits
        return float(losses[known].sum()), np.where(known, sigmoid(logits) - target, 0)
    probabilities = softmax(logits)
    likely = (probabilities * target).sum(axis=1)[known[:, 0]]
    return -float(np.log(np.maximum(likely, np.finfo(float).tiny)).sum()), np.where(known, probabilities - target, 0)


def _one_class(make: MakeClassifier, columns: Floats, labels: Any, num_classes: int) -> Learned:
    present = np.unique(labels)
    if len(present) == 1:
        formula = _formula(np.zeros((columns.shape[1], 1)), [0.0], present, num_classes)
        return Learned(lambda new: np.tile(np.eye(num_classes)[present[0]], (len(new), 1)), formula)
    classifier = _fitted(make(), columns, labels)

    def predict(new: Floats) -> Floats:
        probabilities = np.zeros((len(new), num_classes))
        probabilities[:, present] = classifier.predict_proba(new)
        return probabilities

    found = _linear(classifier)
    return Learned(predict, None if found is None else _formula(*found, present, num_classes))


def _shown(make: MakeClassifier, columns: Floats, truth: Any) -> Learned:
    """Of one class of several; its formula has one column."""
    if len(np.unique(truth)) < 2:
        share = (truth.sum() + 1) / (len(truth) + 2)
        formula = _formula(np.zeros((columns.shape[1], 1)), [float(np.log(share / (1 - share)))], [0], 1)
        return Learned(lambda new: np.full(len(new), share), formula)
    classifier = _fitted(make(), columns, truth)
    found = _linear(classifier)
    linear = None if found is None else _formula(found[0][:, 1:], found[1][1:], [0], 1)
    return Learned(lambda new: np.asarray(classifier.predict_proba(new)[:, 1]), linear)


def _linear(classifier: Any) -> tuple[Floats, Floats] | None:
    """Weights ``(D, J)`` and bias ``(J,)`` of a logistic regression on columns as they are; ``None`` of any other."""
    from sklearn.linear_model import LogisticRegression

    *before, last = [step for _, step in classifier.steps] if hasattr(classifier, "steps") else [classifier]
    if not isinstance(last, LogisticRegression):
        return None
    weights, bias = last.coef_.T, last.intercept_
    if len(bias) == 1:  # of two classes it states the odds of the second
        weights, bias = np.column_stack([np.zeros(len(weights)), weights]), np.array([0.0, bias[0]])
    for scaler in before:
        weights = weights / scaler.scale_[:, None]
        bias = bias - scaler.mean_ @ weights
    return weights, bias


def _formula(weights: Any, bias: Any, present: Any, num_classes: int) -> Formula:
    numbers = {"weights": np.asarray(weights).tolist(), "bias": np.asarray(bias).tolist()}
    return {"kind": "linear", **numbers, "present": [int(each) for each in present], "classes": num_classes}


def _fitted(classifier: Any, columns: Floats, labels: Any) -> Any:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a bounded number of steps is part of the regularisation
        return classifier.fit(columns, labels)
