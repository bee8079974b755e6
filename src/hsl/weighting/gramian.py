"""Gradient aggregation as pure mathematics: from the Gramian of T gradients to T weights.

The Gramian is ``G[i, j] = g_i . g_j``, float64 ``(T, T)`` on the CPU, and holds no zero gradient. The weights are those
of a **mean**: T equal gradients give 1/T each (or any weights of sum 1), whatever the method, so that a caller who
multiplies by T stays on the scale of the plain sum.
"""

import numpy as np
import torch
from scipy.optimize import minimize, nnls
from torch import Tensor, nn


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

    def __init__(self, seed: int) -> None:
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


def nash_mtl(gramian: Tensor, *, max_iterations: int = 50) -> Tensor:
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
    norms = gramian.diagonal().sqrt()
    cosines = gramian / torch.outer(norms, norms)
    a = torch.ones_like(norms)
    for _ in range(max_iterations):
        gradient = cosines @ a - 1 / a
        if (gradient * a).abs().max() < 1e-10:
            a = a / norms
            return a / a.sum()
        step = torch.linalg.solve(cosines + torch.diag(a**-2), gradient)
        decrement = (gradient @ step).clamp(min=0).sqrt()
        a = a - step / (1 + decrement)
    raise SolverError("Nash-MTL found no weights above 0 with G a = 1 / a: the gradients (nearly) cancel one another")


def mgda(gramian: Tensor) -> Tensor:
    """Point of least norm in the convex hull of the gradients (Desideri 2012; Sener 2018).

    ``min_w w.G.w`` over ``w >= 0``, ``sum w = 1``, solved exactly as the non-negative least squares problem
    ``|A u|^2 + (1 - sum u)^2``, ``A^T A = G``, of which ``u / sum u`` is the minimum.

    Example:
        >>> mgda(torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64)))
        tensor([0.8000, 0.2000], dtype=torch.float64)
    """
    # Scaled to a smallest norm of 1, u has a sum between 1/2 and 1: nothing cancels.
    factor = _factor(gramian / gramian.diagonal().min())
    system = np.vstack([factor, np.ones(len(gramian))])
    u, _ = nnls(system, np.eye(len(system))[-1])
    return torch.from_numpy(u / u.sum())


def imgrad(gramian: Tensor) -> Tensor:
    """Blend of the mean and MGDA by their angle (Zhou 2025, "IMGrad").

    ``(1 - a) g_mean + a g_mgda``, ``a = (1 - cos(g_mean, g_mgda)) / 2``. The cosine counts as 0 where one of the two
    vanishes.

    Example:
        >>> imgrad(torch.ones(2, 2, dtype=torch.float64)).sum().item()
        1.0
    """
    mean, least = torch.full_like(gramian[0], 1 / len(gramian)), mgda(gramian)
    product = (mean @ gramian @ mean).clamp(min=0) * (least @ gramian @ least).clamp(min=0)
    tiny = (1e-12 * gramian.diagonal().max()) ** 2
    cosine = (mean @ gramian @ least) / product.sqrt() if product > tiny else torch.zeros_like(product)
    blend = (1 - cosine.clamp(-1, 1)) / 2
    return (1 - blend) * mean + blend * least


def cagrad(gramian: Tensor, *, c: float) -> Tensor:
    """Conflict-averse gradient (Liu 2021, "Conflict-Averse Gradient Descent for Multi-task Learning", algorithm 1).

    ``g_0 + c |g_0| g_w / |g_w|`` with ``g_0`` the mean and ``w`` the minimum of ``g_w.g_0 + c |g_0| |g_w|`` over
    ``w >= 0``, ``sum w = 1``; found by SLSQP of SciPy, as published.

    Args:
        gramian: ``(T, T)``.
        c: radius of the search around the mean, in norms of the mean; in [0, 1).

    Raises:
        SolverError: the solver gave up, or ``g_w`` vanishes: no direction improves every objective.
    """
    g = (gramian / gramian.trace()).numpy()
    num = len(g)
    mean = np.full(num, 1 / num)
    radius = c * np.sqrt(max(mean @ g @ mean, 0.0))

    def value_and_gradient(w: np.ndarray) -> tuple[float, np.ndarray]:
        norm = np.sqrt(max(w @ g @ w, 1e-16))
        return float(w @ g @ mean + radius * norm), g @ mean + radius * (g @ w) / norm

    found = minimize(
        value_and_gradient, mean, jac=True, bounds=[(0, 1)] * num, method="SLSQP",
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    norm = np.sqrt(max(found.x @ g @ found.x, 0.0))
    if not found.success or norm < 1e-4:
        raise SolverError(f"CAGrad found no direction that improves every objective ({found.message})")
    return torch.from_numpy(mean + radius / norm * found.x)


def _factor(gramian: Tensor) -> np.ndarray:
    """``A`` with ``A^T A = G``, by the cosines, so that small gradients keep their digits."""
    norms = gramian.diagonal().sqrt()
    values, vectors = torch.linalg.eigh(gramian / torch.outer(norms, norms))
    factor: np.ndarray = ((values.clamp(min=0).sqrt() * vectors).T * norms).numpy()
    return factor
