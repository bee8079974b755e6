"""Weights of each method from a Gramian: closed forms, conditions of optimality, torchjd."""

from collections.abc import Callable
from functools import partial

import mpmath
import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor
from torchjd.aggregation import AlignedMTLWeighting, IMTLGWeighting, MGDAWeighting, PCGradWeighting, UPGradWeighting

from hsl.weighting.gramian import (
    PCGrad,
    SolverError,
    aligned_mtl,
    cagrad,
    imgrad,
    imgrad_published,
    imtl_g,
    mgda,
    nash_mtl,
)
from hsl.weighting.nonnegative import NonNegativeProjector

METHODS: dict[str, Callable[[Tensor], Tensor]] = {
    "pcgrad": PCGrad(seed=0), "nash_mtl": nash_mtl, "mgda": mgda, "imgrad": imgrad, "cagrad": partial(cagrad, c=0.5),
    "imgrad_published": partial(imgrad_published, c=0.8), "imtl_g": imtl_g, "aligned_mtl": aligned_mtl,
    "upgrad": UPGradWeighting(projector=NonNegativeProjector()),
}  # fmt: skip
THREE = [[1.0, 2.0, 0.0, -1.0], [-1.0, 1.0, 3.0, 0.5], [0.5, -2.0, 1.0, 0.25]]
FOUR = [[2.0, 0.0, 1.0, -1.0], [0.0, -1.0, 3.0, 1.0], [1.0, 1.0, 1.0, 1.0], [-3.0, 0.5, 0.0, 2.0]]


def matrix(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def gramian(rows: list[list[float]]) -> Tensor:
    return matrix(rows) @ matrix(rows).T


def random_gramian(num: int, seed: int, spread: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(num, num + seed % 3, generator=generator, dtype=torch.float64)
    rows *= 10 ** torch.linspace(-spread, spread, num, dtype=torch.float64)[:, None]
    return rows @ rows.T


def close(found: Tensor, expected: list[float], tolerance: float = 1e-9) -> bool:
    return torch.allclose(found, matrix([expected])[0], rtol=0, atol=tolerance)


def test_nash_on_a_diagonal() -> None:
    found = nash_mtl(torch.diag(matrix([[1.0, 100.0]])[0]))
    assert (found[1] / found[0]).item() == pytest.approx(0.1, abs=1e-12)


@pytest.mark.parametrize(("num", "seed", "spread"), [(2, 0, 0), (3, 1, 3), (7, 2, 1), (7, 3, 4), (20, 4, 2)])
def test_nash_solves_its_equation(num: int, seed: int, spread: float) -> None:
    products = random_gramian(num, seed, spread)
    a = nash_mtl(products)
    assert (a > 0).all()
    assert a.sum().item() == pytest.approx(1)
    balance = a * (products @ a)
    assert balance.min().item() == pytest.approx(balance.max().item(), rel=1e-6)


@pytest.mark.parametrize("distance", [1e-4, 1e-6, 1e-8, 1e-10])
@pytest.mark.parametrize("ratio", [1.0, 1e8])
def test_nash_of_gradients_that_nearly_cancel(distance: float, ratio: float) -> None:
    assert close(nash_mtl(pair(ratio, distance - 1, 1.0)), [1 / (1 + ratio), ratio / (1 + ratio)])


def test_nash_with_fewer_dimensions_than_tasks() -> None:
    assert close(nash_mtl(gramian([[1.0], [2.0], [4.0]])), [4 / 7, 2 / 7, 1 / 7])


@pytest.mark.parametrize("rows", [[[1.0, 0.0], [-1.0, 0.0]], [[1.0, 1.0], [-3.0, -3.0]], [[1, 0], [-1, 1], [0, -1.0]]])
def test_nash_has_no_answer_where_gradients_cancel(rows: list[list[float]]) -> None:
    with pytest.raises(SolverError, match="cancel"):
        nash_mtl(gramian(rows))


def test_pcgrad_on_opposed_vectors_leaves_their_orthogonal_parts() -> None:
    rows = [[3.0, 1.0], [-1.0, 0.0]]
    weights = PCGrad(seed=0)(gramian(rows))
    # g1 off g2: (0, 1); g2 off g1: (-1, 0) + 3/10 (3, 1) = (-0.1, 0.3)
    assert close(weights @ matrix(rows), [-0.05, 0.65])


def test_pcgrad_leaves_what_agrees() -> None:
    assert close(PCGrad(seed=0)(gramian([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])), [1 / 3] * 3)


def test_pcgrad_goes_on_from_its_state() -> None:
    products = random_gramian(6, 0)
    first = PCGrad(seed=3)
    first(products)
    second = PCGrad(seed=99)
    second.load_state_dict(first.state_dict())
    expected = [first(products) for _ in range(3)]
    assert all(torch.equal(second(products), one) for one in expected)
    assert not torch.equal(expected[0], expected[1])  # the order is drawn anew


def test_mgda_on_orthogonal_vectors() -> None:
    assert close(mgda(torch.diag(matrix([[9.0, 1.0]])[0])), [0.1, 0.9])


def test_mgda_of_opposed_vectors_is_zero() -> None:
    rows = [[1.0, 2.0], [-2.0, -4.0]]
    assert close(mgda(gramian(rows)) @ matrix(rows), [0.0, 0.0], 1e-7)


@pytest.mark.parametrize(("num", "seed", "spread"), [(2, 5, 3), (3, 6, 0), (7, 7, 1), (7, 8, 3), (20, 9, 0)])
def test_mgda_meets_the_conditions_of_the_least_norm(num: int, seed: int, spread: float) -> None:
    products = random_gramian(num, seed, spread)
    weights = mgda(products)
    assert (weights >= 0).all()
    assert weights.sum().item() == pytest.approx(1)
    slopes = products @ weights  # no gradient reaches less far along the point than the point itself
    assert (slopes >= weights @ slopes - 1e-9 * products.diagonal().min()).all()


def test_imgrad_by_hand() -> None:
    # g_mean (1, 0.5), g_mgda (0.4, 0.8): cos 0.8
    assert close(imgrad(torch.diag(matrix([[4.0, 1.0]])[0])), [0.9 * 0.5 + 0.1 * 0.2, 0.9 * 0.5 + 0.1 * 0.8])


def test_imgrad_of_equal_gradients_is_their_mean() -> None:
    rows = [[1.0, 2.0]] * 3
    assert close(imgrad(gramian(rows)) @ matrix(rows), [1.0, 2.0])


def test_imgrad_is_finite_where_the_mean_vanishes() -> None:
    assert imgrad(gramian([[1.0, 0.0], [-1.0, 0.0]])).isfinite().all()


def test_cagrad_without_a_radius_is_the_mean() -> None:
    assert close(cagrad(gramian(THREE), c=0.0), [1 / 3] * 3)


def test_cagrad_refuses_gradients_that_cancel() -> None:
    with pytest.raises(SolverError, match="CAGrad"):
        cagrad(gramian([[1.0, 0.0], [-1.0, 0.0]]), c=0.5)


def test_upgrad_conflicts_with_none() -> None:
    for seed in range(5):
        products = random_gramian(4, seed, 0.3)
        weights = METHODS["upgrad"](products)
        assert (products @ weights > -1e-12 * products.trace()).all()


@pytest.mark.parametrize("name", METHODS)
def test_equal_gradients_give_weights_of_a_mean(name: str) -> None:
    weights = METHODS[name](gramian([[1.0, 2.0]] * 3))
    further = {"cagrad": 1 + 0.5, "imgrad_published": (1 + 0.8) / (1 + 0.8**2)}  # by their definitions
    assert weights.sum().item() == pytest.approx(further.get(name, 1), abs=1e-9)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("scale", [1e-16, 1.0, 1e16])
def test_one_task_keeps_its_gradient(name: str, scale: float) -> None:
    further = {"cagrad": 1 + 0.5, "imgrad_published": (1 + 0.8) / (1 + 0.8**2)}
    assert close(METHODS[name](matrix([[scale]])), [further.get(name, 1)])


@pytest.mark.parametrize("seed", range(6))
def test_against_torchjd(seed: int) -> None:
    products = random_gramian(2 + seed, seed, 0.5)
    torch.manual_seed(5)
    reference = PCGradWeighting()(products) / len(products)
    torch.testing.assert_close(PCGrad(seed=5)(products), reference)
    reference = MGDAWeighting(epsilon=1e-8, max_iters=1000)(products)
    weights, least = mgda(products), reference @ products @ reference
    assert weights @ products @ weights <= least + 1e-15  # Frank and Wolfe only come near
    if len(products) == 2:
        torch.testing.assert_close(weights, reference)
    assert torch.linalg.vector_norm(weights - reference) < 0.05
    torch.testing.assert_close(aligned_mtl(products), AlignedMTLWeighting()(products))
    torch.testing.assert_close(imtl_g(products), IMTLGWeighting()(products))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_gradients_that_depend_on_each_other_against_torchjd(rank: int) -> None:
    generator = torch.Generator().manual_seed(rank)
    rows = torch.randn(5, rank, generator=generator, dtype=torch.float64)
    products = rows @ rows.T
    torch.testing.assert_close(aligned_mtl(products), AlignedMTLWeighting()(products))
    norms = products.diagonal().sqrt()
    closest = torch.linalg.lstsq(
        products / torch.outer(norms, norms), torch.ones(5, 1).double(), driver="gelsd"
    ).solution
    expected = closest[:, 0] / norms
    torch.testing.assert_close(imtl_g(products), expected / expected.sum())


@pytest.mark.parametrize(
    ("method", "rows", "reference"),
    [  # torchjd 0.18 with cvxpy 1.9.3 and CLARABEL, ECOS, quadprog, which it asks for and we do not
        ("cagrad", THREE, [0.66601341, 0.33333333, 0.71193906]),
        ("cagrad", FOUR, [0.92498586, 0.25, 0.25, 0.6447021]),
        ("nash_mtl", THREE, [0.40747566, 0.16179286, 0.43073147]),
        ("nash_mtl", FOUR, [0.4381649, 0.08853001, 0.15444642, 0.31885867]),
        ("upgrad", THREE, [0.54158835, 0.33333333, 0.56852756]),
        ("upgrad", FOUR, [0.58314316, 0.25, 0.25, 0.41033591]),
    ],
)
def test_against_solvers_that_torchjd_needs(method: str, rows: list[list[float]], reference: list[float]) -> None:
    assert close(METHODS[method](gramian(rows)), reference, 5e-4 if method == "upgrad" else 1e-4)  # torchjd adds 1e-4


RATIOS = [1e-8, 1e-4, 1 / 30, 1.0, 30.0, 1e4, 1e8]
COSINES = [-0.9, -0.5, 0.0, 0.3]


def pair(ratio: float, cosine: float, scale: float) -> Tensor:
    return scale**2 * matrix([[ratio**2, cosine * ratio], [cosine * ratio, 1.0]])


def written_out(ratio: float, cosine: float) -> dict[str, list[float]]:
    """The weights of two gradients, the first ``ratio`` times as long as the second."""
    towards = min(cosine, 0.0)
    projected = [(1 - towards / ratio) / 2, (1 - towards * ratio) / 2]
    equal = [1 / (1 + ratio), ratio / (1 + ratio)]
    between = 1 - 2 * cosine * ratio + ratio**2
    first = min(1.0, max(0.0, (1 - cosine * ratio) / between))
    last = min(1.0, max(0.0, (ratio**2 - cosine * ratio) / between))
    return {
        "pcgrad": projected, "upgrad": projected, "nash_mtl": equal, "imtl_g": equal,
        "mgda": [first, last],
    }  # fmt: skip


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("cosine", COSINES)
@pytest.mark.parametrize("ratio", RATIOS)
def test_two_gradients_of_any_norm_in_closed_form(ratio: float, cosine: float, scale: float) -> None:
    for name, expected in written_out(ratio, cosine).items():
        found = METHODS[name](pair(ratio, cosine, scale))
        assert found.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-12 * min(1, 1 / ratio)), name


@pytest.mark.parametrize("cosine", COSINES)
@pytest.mark.parametrize("ratio", RATIOS)
def test_aligned_mtl_against_a_matrix_root_of_fifty_digits(ratio: float, cosine: float) -> None:
    """``s_min G^-1/2 1 / T``, the root of a matrix of two by two by its trace and determinant."""
    with mpmath.workdps(50):
        a, b, d = mpmath.mpf(ratio) ** 2, mpmath.mpf(cosine) * ratio, mpmath.mpf(1)
        root = mpmath.sqrt(a * d - b * b)
        total = mpmath.sqrt(a + d + 2 * root)
        least = mpmath.sqrt((a + d - mpmath.sqrt((a - d) ** 2 + 4 * b * b)) / 2)
        inverse = [
            [(d + root) / (root * total), -b / (root * total)],
            [-b / (root * total), (a + root) / (root * total)],
        ]
        expected = [float(least * sum(row) / 2) for row in inverse]
    assert aligned_mtl(pair(ratio, cosine, 1.0)).tolist() == pytest.approx(expected, rel=1e-5)


def spread_gramian(seed: int, spread: float) -> Tensor:
    """Gradients in general position whose norms go from 10^-spread to 10^spread, in any order."""
    generator = torch.Generator().manual_seed(seed)
    num = 2 + seed % 5
    rows = torch.nn.functional.normalize(torch.randn(num, num + 1, generator=generator, dtype=torch.float64))
    norms = 10 ** torch.linspace(-spread, spread, num, dtype=torch.float64)[torch.randperm(num, generator=generator)]
    return rows @ rows.T * torch.outer(norms, norms)


SPREADS = [(seed, spread) for seed in range(5) for spread in (0.5, 2.0, 4.0)]


@pytest.mark.parametrize(("seed", "spread"), SPREADS)
@pytest.mark.parametrize("name", METHODS)
def test_only_ratios_count(name: str, seed: int, spread: float) -> None:
    products = spread_gramian(seed, spread)
    reference, norms = fresh(name)(products), products.diagonal().sqrt()
    for scale in (1e-16, 1e16):
        found = fresh(name)(scale * products)
        assert ((found - reference) * norms).abs().max() <= 1e-7 * (reference * norms).abs().max()


def fresh(name: str) -> Callable[[Tensor], Tensor]:
    return PCGrad(seed=0) if name == "pcgrad" else METHODS[name]


@pytest.mark.parametrize(("seed", "spread"), SPREADS)
def test_what_each_method_promises_holds_for_any_norms(seed: int, spread: float) -> None:
    """The promises are inner products with each gradient, over the norms of the gradient and of what is formed."""
    products = spread_gramian(seed, spread)
    norms = products.diagonal().sqrt()

    def along(weights: Tensor) -> Tensor:
        return products @ weights / norms / (weights @ products @ weights).sqrt()

    assert (along(METHODS["upgrad"](products)) > -1e-7).all()
    nash = nash_mtl(products)
    balance = nash * (products @ nash)
    assert balance.min().item() == pytest.approx(balance.max().item(), rel=1e-6)
    equal = products @ imtl_g(products) / norms
    assert equal.tolist() == pytest.approx([equal[0].item()] * len(norms), rel=1e-4)
    least = mgda(products)
    reached = products @ least - least @ products @ least  # none reaches less far along the point of least norm
    assert (reached / norms > -1e-7 * norms.min()).all()


def objective(products: Tensor, w: Tensor, of_mean: float, of_norm: float) -> Tensor:
    mean = torch.full_like(w, 1 / len(w))
    size = (mean @ products @ mean).sqrt()
    return of_mean * (w @ products @ mean) / size + of_norm * (w @ products @ w).clamp(min=0).sqrt()


def check_optimal(products: Tensor, weights: Tensor, of_mean: float, of_norm: float, c: float) -> None:
    """Weak duality: no direction within the ball does better than the value that the weights reach."""
    mean = torch.full_like(weights, 1 / len(weights))
    w = weights - mean
    assert (w >= -1e-9 * w.abs().max()).all()
    w = w / w.sum()
    size = (mean @ products @ mean).sqrt()
    value = objective(products, w, of_mean, of_norm)
    direction = of_mean * mean / size + of_norm * w / (w @ products @ w).sqrt()
    reached = (products @ direction).min()
    assert (value - reached).abs() <= 1e-6 * products.diagonal().sqrt().min()
    assert (weights - mean) @ products @ (weights - mean) == pytest.approx(float((c * size) ** 2), rel=1e-6)


@pytest.mark.parametrize(("seed", "spread"), SPREADS)
def test_cagrad_and_imgrad_are_optimal_for_any_norms(seed: int, spread: float) -> None:
    products = spread_gramian(seed, spread)
    check_optimal(products, cagrad(products, c=0.5), 1.0, 0.5, 0.5)
    mean, least = torch.full_like(products[0], 1 / len(products)), mgda(products)
    cosine = (mean @ products @ least) / ((mean @ products @ mean) * (least @ products @ least)).sqrt()
    published = imgrad_published(products, c=0.8) * (1 + 0.8**2)
    check_optimal(products, published, 1.5 - float(cosine), float(cosine) * 0.8, 0.8)


@pytest.mark.parametrize("rows", [THREE, FOUR])
def test_imgrad_as_its_authors_minimise_it(rows: list[list[float]]) -> None:
    """Their objective under their solver, SLSQP, with the step they take from it."""
    products, num = gramian(rows), len(rows)
    g, mean = products.numpy(), np.full(num, 1 / num)
    size, least = np.sqrt(mean @ g @ mean), mgda(products).numpy()
    cosine = mean @ g @ least / (size * np.sqrt(least @ g @ least))
    found = minimize(
        lambda w: (1.5 - cosine) * (w @ g @ mean) + cosine * 0.8 * size * np.sqrt(w @ g @ w),
        mean, bounds=[(0, 1)] * num, method="SLSQP", constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-15},
    ).x  # fmt: skip
    expected = (mean + 0.8 * size / np.sqrt(found @ g @ found) * found) / (1 + 0.8**2)
    assert close(imgrad_published(products, c=0.8), expected.tolist(), 1e-5)


@pytest.mark.parametrize("scale", [1e-16, 1.0, 1e16])
@pytest.mark.parametrize("ratio", [1e-8, 1 / 3, 1.0, 1e8])
@pytest.mark.parametrize("name", ["nash_mtl", "cagrad", "imgrad_published"])
def test_opposed_gradients_of_any_norm_fail_openly(name: str, ratio: float, scale: float) -> None:
    with pytest.raises(SolverError):
        METHODS[name](pair(ratio, -1.0, scale))


@pytest.mark.parametrize("name", METHODS)
def test_nearly_equal_gradients_of_unlike_norms(name: str) -> None:
    found = METHODS[name](pair(1e8, 1 - 1e-9, 1.0))
    assert found.isfinite().all()
    assert found.any()
