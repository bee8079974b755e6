"""Fused features against logistic regression, torch and the products that a sketch stands for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tests.ensembles._inputs import relabelled, rows_of

from hsl.ensembles.fusion import attention_head, fusion, principal_components, tensor_sketch
from hsl.ensembles.nested import meta_folds, run_nested, score_of
from hsl.ensembles.rows import Rows

FUSION = fusion()


@pytest.mark.parametrize("num", [30, 60])  # fewer and more rows than columns
def test_concatenation_is_logistic_regression_on_all_standardised_columns(num: int) -> None:
    rows = rows_of([1, 0.5, 0], num=num)
    columns = np.concatenate([rows.features[name] for name in rows.members], axis=1).astype(float)
    columns = StandardScaler().fit_transform(columns) / np.sqrt(columns.shape[1])
    expected = LogisticRegression(C=5.0, max_iter=1000, tol=1e-8).fit(columns, rows.labels).predict_proba(columns)
    np.testing.assert_allclose(fusion(5.0)["fusion/concatenation"](rows)(rows), expected, atol=4e-3)


@pytest.mark.parametrize("several", [False, True])
def test_attention_of_one_member_is_logistic_regression(several: bool) -> None:
    rows = rows_of([0.4], num=80, several=several)
    columns = principal_components(rows.features["m00"].astype(float))(rows.features["m00"].astype(float))
    head, attention = attention_head([columns], rows.truth, several, 3.0)
    if several:
        fitted = [LogisticRegression(C=3.0, tol=1e-8).fit(columns, labels) for labels in rows.truth.T]
        expected = np.column_stack([each.predict_proba(columns)[:, 1] for each in fitted])
    else:
        expected = LogisticRegression(C=3.0, tol=1e-8).fit(columns, rows.labels).predict_proba(columns)
    np.testing.assert_allclose(head([columns]), expected, atol=4e-3)
    np.testing.assert_array_equal(attention([columns]), np.ones((80, 1)))


def test_attention_is_that_of_automatic_differentiation() -> None:
    rows = rows_of([1, 0.3], num=60)
    columns = [values.astype(float) / 3 for values in rows.features.values()]
    tensors, labels = [torch.tensor(values) for values in columns], torch.tensor(rows.labels)

    def parts(theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        v, b, w, c = theta.split([24, 2, 72, 3])
        v, w = v.view(2, 12), w.view(2, 12, 3)
        shares = torch.stack([x @ v[i] for i, x in enumerate(tensors)], 1).add(b).softmax(1)
        return shares, c + sum(2 * shares[:, [i]] * (x @ w[i]) for i, x in enumerate(tensors))

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        theta = torch.tensor(values, requires_grad=True)
        penalty = (theta[:24].square().sum() + theta[26:98].square().sum()) / 2
        total = torch.nn.functional.cross_entropy(parts(theta)[1], labels, reduction="sum") + penalty
        (gradient,) = torch.autograd.grad(total, theta)
        return total.item(), gradient.numpy()

    theta = torch.tensor(minimize(loss, np.zeros(101), jac=True, method="L-BFGS-B").x)
    head, attention = attention_head(columns, rows.truth, False)
    np.testing.assert_allclose(head(columns), parts(theta)[1].softmax(1), atol=5e-3)
    np.testing.assert_allclose(attention(columns), parts(theta)[0], atol=1e-2)
    assert attention(columns)[:, 0].mean() > 0.55  # the better member


def test_a_sketch_stands_for_the_products_of_all_pairs_of_features() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.normal(size=(8, 5)), generator.normal(size=(8, 7))
    sketch = tensor_sketch(one, other, 4096, seed=0)
    np.testing.assert_allclose(np.linalg.norm(sketch, axis=1), 1)
    products = np.sign(sketch) * sketch**2
    expected = (one @ one.T + 1) * (other @ other.T + 1)
    found = products @ products.T
    np.testing.assert_allclose(cosines(found), cosines(expected), atol=0.1)


def cosines(inner: np.ndarray) -> np.ndarray:
    length = np.sqrt(np.diag(inner))
    return inner / length / length[:, None]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("name", FUSION)
def test_fused_features_say_more_than_each(name: str, several: bool) -> None:
    skill = 1.5 if several else 0.5
    rows = rows_of([skill, skill, 0], num=240, several=several, seed=2)
    parts = meta_folds(rows, 3)
    both = score_of(run_nested(name, FUSION[name], rows, parts).nested, rows)
    alone = score_of(run_nested(name, FUSION[name], rows.of_members(["m00"]), parts).nested, rows)
    noise = score_of(run_nested(name, FUSION[name], rows.of_members(["m02"]), parts).nested, rows)
    assert both > alone > noise + 0.05


def test_members_without_features_take_no_part_and_none_is_refused() -> None:
    rows = rows_of([1, 0.5], num=60)
    some = replace(rows, features={"m01": rows.features["m01"]})
    for name, fit in FUSION.items():
        combined = fit(some)
        assert combined.members == ("m01",)
        np.testing.assert_array_equal(combined(some), fit(rows.of_members(["m01"]))(rows), err_msg=name)
        with pytest.raises(ValueError, match="members whose pooled features were kept"):
            fit(replace(rows, features={}))
        with pytest.raises(ValueError, match="pooled features of m01, which the fusion was fitted on"):
            combined(replace(rows, features={}))


def test_unknown_labels_are_in_no_fit() -> None:
    rows = rows_of([1, 0.5], num=60)
    known = np.arange(60) % 3 > 0
    for name, fit in FUSION.items():
        some = relabelled(rows, np.where(known, rows.labels, -1))
        np.testing.assert_array_equal(fit(some)(rows), fit(rows.take(known))(rows), err_msg=name)


def test_a_feature_that_never_changes_is_no_division_by_zero() -> None:
    rows = rows_of([1, 0.5], num=30)
    constant = {**rows.features, "m00": np.ones((30, 4), np.float32)}
    alone = Rows(**{**vars_of(rows), "features": constant})
    for name, fit in FUSION.items():
        assert np.isfinite(fit(alone)(alone)).all(), name
        assert np.isfinite(fit(alone.of_members(["m00"]))(alone)).all(), name


def vars_of(rows: Rows) -> dict:
    return {name: getattr(rows, name) for name in Rows.__dataclass_fields__}
