"""Gradient aggregation as pure mathematics: from the Gramian of T gradients to T weights.

The Gramian is ``G[i, j] = g_i . g_j``, float64 ``(T, T)`` on the CPU, and holds no zero gradient. The weights are those
of a **mean**: T equal gradients give 1/T each (or any weights of sum 1), whatever the method, so that a caller who
multiplies by T stays on the scale of the plain sum.

No method depends on the scale of the gradients: each works on their cosines and the ratios of their norms, which may
reach 1e8, and what counts as zero is measured by what it is a sum of.
"""

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from hsl.config.ranges import NonNegativeFloat, PositiveInt, Seed
from hsl.weighting.nonnegative import Matrix, least_norm_weights, split_lengths, unit_vectors

VANISHES = 1e-4  # of the norms that are summed: the Gramian of features comes in float32


class SolverError(RuntimeError):
    """The equations of a method have no solution for this Gramian, or it was not found."""


class PCGrad(nn.Module):
    """Projects conflicts away (Yu 2020, "Gradient Surgery for Multi-Task Learning", algorithm 1); mean over the tasks.

    Each ``g_i`` meets the others in random order; where its inner product with the **original** ``g_j`` is below 0, its
    part along ``g_j`` is taken away. The order comes from a generator whose state rides in the checkpoint.

    Args:
        seed: of the random order. The same on all devices.

    Example:
        >>> PCGrad(seed=0)(torch.tensor([[1.0, -1.0], [-1.0, 2.0]], dtype=torch.float64))
        tensor([1.0000, 0.7500], dtype=torch.float64)
    """

    def __init__(self, seed: Seed) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, gramian: Tensor) -> Tensor:
        """Weights ``(T,)`` for a Gramian ``(T, T)``."""
        num = len(gramian)
        rows = torch.eye(num, dtype=gramian.dtype)
        for i, row in enumerate(rows):
            for j in torch.randperm(num, generator=self.generator).tolist():
                if j != i:
                    row[j] -= torch.clamp(gramian[j] @ row, max=0.0) / gramian[j, j]
        return rows.mean(0)

    def get_extra_state(self) -> Tensor:
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        self.generator.set_state(state.cpu())


def nash_mtl(gramian: Tensor, *, max_iterations: PositiveInt = 50) -> Tensor:
    """Nash bargaining solution (Navon 2022, "Multi-Task Learning as a Bargaining Game"): ``G a = 1 / a``, ``a > 0``.

    The root is the minimum of the convex ``a.G.a / 2 - sum_i log a_i``, found by damped Newton steps on the matrix of
    cosines, where norms that differ by orders of magnitude do no harm; the paper solves a sequence of approximations
    with an outside solver. Only the direction ``sum_i a_i g_i`` has a meaning, so the sum of the weights is made 1.

    Args:
        gramian: ``(T, T)``.
        max_iterations: Newton steps; about 10 are taken.

    Raises:
        SolverError: no root, as with opposed gradients: any weights that cancel them can grow for ever.

    Example:
        >>> nash_mtl(torch.diag(torch.tensor([1.0, 100.0], dtype=torch.float64)))
        tensor([0.9091, 0.0909], dtype=torch.float64)
    """
    norms, cosines = (torch.from_numpy(part) for part in split_lengths(gramian))
    a = torch.ones_like(norms)
    for _ in range(max_iterations):
        size = a @ cosines @ a
        if size <= 1e-12 * a.sum() ** 2:
            break
        a = a * (len(a) / size).sqrt()  # the best length of this direction, far off where gradients nearly cancel
        gradient = cosines @ a - 1 / a
        rounding = 1e-15 * a * (cosines.abs() @ a)
        if ((gradient * a).abs() < 1e-10 + rounding).all():
            a = a / norms
            return a / a.sum()
        step, singular = torch.linalg.solve_ex(cosines + torch.diag(a**-2), gradient)
        if singular:
            break
        decrement = (gradient @ step).clamp(min=0).sqrt()
        a = a - step / (1 + decrement)
    raise SolverError("Nash-MTL found no weights above 0 with G a = 1 / a: the gradients (nearly) cancel one another")


def mgda(gramian: Tensor) -> Tensor:
    """Point of least norm in the convex hull of the gradients (Desideri 2012; Sener 2018).

    ``min_w w.G.w`` over ``w >= 0``, ``sum w = 1``, solved exactly; see `hsl.weighting.nonnegative.least_norm_weights`.

    Example:
        >>> mgda(torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64)))
        tensor([0.8000, 0.2000], dtype=torch.float64)
    """
    return torch.from_numpy(least_norm_weights(_columns(gramian)))


def imgrad(gramian: Tensor) -> Tensor:
    """Blend of the mean and MGDA by their angle, after an idea of Zhou 2025; `imgrad_published` is what they publish.

    ``(1 - a) g_mean + a g_mgda``, ``a = (1 - cos(g_mean, g_mgda)) / 2``. The cosine counts as 0 where one of the two
    vanishes.

    Example:
        >>> imgrad(torch.ones(2, 2, dtype=torch.float64)).sum().item()
        1.0
    """
    columns = _columns(gramian)
    mean, least = _mean(columns), least_norm_weights(columns)
    blend = (1 - _cosine(columns, mean, least)) / 2
    return torch.from_numpy((1 - blend) * mean + blend * least)


def cagrad(gramian: Tensor, *, c: NonNegativeFloat) -> Tensor:
    """Conflict-averse gradient (Liu 2021, "Conflict-Averse Gradient Descent for Multi-task Learning", algorithm 1).

    ``g_0 + c |g_0| g_w / |g_w|`` with ``g_0`` the mean and ``w`` the minimum of ``g_w.g_0 + c |g_0| |g_w|`` over
    ``w >= 0``, ``sum w = 1``.

    Args:
        gramian: ``(T, T)``.
        c: radius of the search around the mean, in norms of the mean; in [0, 1).

    Raises:
        SolverError: ``g_w`` vanishes: no direction improves every objective.
    """
    columns = _columns(gramian)
    return torch.from_numpy(_averse(columns, c, 1 / c) if c else _mean(columns))


def imgrad_published(gramian: Tensor, *, c: NonNegativeFloat) -> Tensor:
    """Imbalance-sensitive gradient (Zhou 2025, "Injecting Imbalance Sensitivity for Multi-Task Learning").

    CAGrad whose ``w`` looks at the balance of the tasks: ``(g_0 + c |g_0| g_w / |g_w|) / (1 + c^2)`` with ``w`` the
    minimum of ``(1.5 - s) g_w.g_0 + s c |g_0| |g_w|`` over ``w >= 0``, ``sum w = 1``, where ``s = cos(g_0, g_mgda)``.
    The formula is that of the authors' code for any number of tasks (their repository IMGrad, ``nyuv2``).

    Args:
        gramian: ``(T, T)``.
        c: radius of the search around the mean, in norms of the mean; in (0, 1). The authors take 0.8.

    Raises:
        SolverError: ``g_w`` or ``g_mgda`` vanishes: no direction improves every objective.
    """
    columns = _columns(gramian)
    cosine = _cosine(columns, _mean(columns), least_norm_weights(columns))
    if cosine <= 0:
        raise SolverError("CAGrad and IMGrad find no direction that improves every objective")
    return torch.from_numpy(_averse(columns, c, (1.5 - cosine) / (cosine * c)) / (1 + c**2))


def imtl_g(gramian: Tensor) -> Tensor:
    """Equal projections on every gradient (Liu 2021, "Towards Impartial Multi-task Learning", IMTL-G).

    ``sum_i a_i g_i`` has the same inner product with each ``g_i / |g_i|``, and ``sum a = 1``: ``a`` is proportional to
    ``C^+ 1 / |g_i|`` with the cosines ``C`` and their pseudo-inverse. Where gradients depend on one another and equal
    projections do not exist, those with the least squares of deviations are taken, whatever the norms are (torchjd
    inverts the Gramian, where the longest gradients decide).

    Raises:
        SolverError: the weights sum to 0, so that they cannot be made to sum to 1.

    Example:
        >>> imtl_g(torch.diag(torch.tensor([1.0, 9.0], dtype=torch.float64)))
        tensor([0.7500, 0.2500], dtype=torch.float64)
    """
    norms, cosines = split_lengths(gramian)
    weights = np.linalg.pinv(cosines, hermitian=True).sum(axis=1) * (norms.min() / norms)
    if abs(weights.sum()) < 1e-12 * np.abs(weights).sum():
        raise SolverError("IMTL-G found no weights of sum 1 whose direction has equal projections on all gradients")
    return torch.from_numpy(weights / weights.sum())


def aligned_mtl(gramian: Tensor) -> Tensor:
    """Gradients made orthogonal and of one length (Senushkin 2023, "Independent Component Alignment for Multi-Task
    Learning", algorithm 1).

    ``a = s_R V S^-1 V^T 1 / T`` with ``S`` the R singular values above 0 of the gradients, ``s_R`` the least, and ``V``
    their task vectors.

    Example:
        >>> aligned_mtl(torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64)))
        tensor([0.5000, 0.2500], dtype=torch.float64)
    """
    columns = _columns(gramian)
    _, values, tasks = np.linalg.svd(columns, full_matrices=False)
    return torch.from_numpy((values[-1] / values * tasks.T) @ (tasks @ _mean(columns)))


def _columns(gramian: Tensor) -> Matrix:
    """``A`` ``(R, T)`` with ``A^T A`` proportional to the Gramian; the shortest column has length 1."""
    norms, cosines = split_lengths(gramian)
    return np.asarray(unit_vectors(cosines) * (norms / norms.min()))


def _mean(columns: Matrix) -> Matrix:
    return np.full(columns.shape[1], 1 / columns.shape[1])


def _vanishes(columns: Matrix, weights: Matrix, share: float) -> bool:
    """Whether the weighted sum of the columns is 0, measured by the lengths that cancel in it."""
    reach = np.linalg.norm(columns, axis=0) @ np.abs(weights)
    return bool(np.linalg.norm(columns @ weights) <= share * reach)


def _cosine(columns: Matrix, first: Matrix, second: Matrix) -> float:
    """Between two weighted sums of the columns; 0 where one of them vanishes."""
    if _vanishes(columns, first, 1e-7) or _vanishes(columns, second, 1e-7):
        return 0.0
    a, b = columns @ first, columns @ second
    return float(np.clip((a / np.linalg.norm(a)) @ (b / np.linalg.norm(b)), -1, 1))


def _averse(columns: Matrix, c: float, slope: float) -> Matrix:
    """Weights of ``g_0 + c |g_0| g_w / |g_w|``, where ``w`` makes ``slope g_w.g_0 / |g_0| + |g_w|`` least.

    By the conditions of optimality ``w`` is also the point of least norm in the hull of the gradients moved by
    ``k g_0 / |g_0|``, with ``k = slope |g_w|``: a root in one variable, between the least and the largest norm.
    """
    mean = _mean(columns)
    if _vanishes(columns, mean, VANISHES) or _vanishes(columns, least_norm_weights(columns), VANISHES):
        raise SolverError("CAGrad and IMGrad find no direction that improves every objective")
    ahead = columns @ mean
    size = np.linalg.norm(ahead)
    moved = (ahead / size)[:, None]

    def excess(k: float) -> float:
        return float(slope * np.linalg.norm(columns @ least_norm_weights(columns + k * moved)) - k)

    low = slope * float(np.linalg.norm(columns @ least_norm_weights(columns)))
    high = slope * float(np.linalg.norm(columns, axis=0).max())
    root = low if excess(low) <= 0 else brentq(excess, low, high, xtol=1e-15 * low, rtol=1e-14)
    w = least_norm_weights(columns + root * moved)
    return np.asarray(mean + c * size / np.linalg.norm(columns @ w) * w)
