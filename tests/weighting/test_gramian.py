"""Weights of each method from a Gramian: closed forms, conditions of optimality, torchjd."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torchjd.aggregation import AlignedMTLWeighting, IMTLGWeighting, MGDAWeighting, PCGradWeighting, UPGradWeighting

from hsl.weighting.gramian import PCGrad, SolverError, cagrad, imgrad, mgda, nash_mtl
from hsl.weighting.nonnegative import NonNegativeProjector

METHODS: dict[str, Callable[[Tensor], Tensor]] = {
    "pcgrad": PCGrad(seed=0), "nash_mtl": nash_mtl, "mgda": mgda, "imgrad": imgrad, "cagrad": partial(cagrad, c=0.5),
    "imtl_g": IMTLGWeighting(), "aligned_mtl": AlignedMTLWeighting(),
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
        weights = UPGradWeighting(projector=NonNegativeProjector(regularisation=1e-12))(products)
        assert (products @ weights > -1e-9 * products.trace()).all()


@pytest.mark.parametrize("name", METHODS)
def test_equal_gradients_give_weights_of_a_mean(name: str) -> None:
    weights = METHODS[name](gramian([[1.0, 2.0]] * 3))
    if name == "cagrad":  # by its definition 1 + c times as far
        weights = weights / 1.5
    tolerance = 1e-4 if name == "upgrad" else 1e-9  # regularised
    assert weights.sum().item() == pytest.approx(1, abs=tolerance)


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
    assert close(METHODS[method](gramian(rows)), reference, 1e-4)
