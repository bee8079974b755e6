"""Least squares under signs: what the methods solve, in units in which gradients of any length are alike."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor
from torchjd.linalg import DualConeProjector

Matrix = NDArray[np.float64]


def split_lengths(gramian: Tensor) -> tuple[Matrix, Matrix]:
    """Norms ``(T,)`` of the gradients and their cosines ``(T, T)``: the Gramian without its scales.

    Norms that differ by a factor of 1e8 differ by 1e16 in the Gramian, all that float64 can hold beside each other;
    the cosines keep their digits.
    """
    norms = gramian.diagonal().sqrt()
    cosines = (gramian / norms / norms[:, None]).clamp(-1, 1).fill_diagonal_(1)
    return norms.numpy(), cosines.numpy()


def unit_vectors(cosines: Matrix) -> Matrix:
    """``(R, T)``: columns of length 1 with these cosines; R is their rank."""
    values, vectors = np.linalg.eigh(cosines)
    kept = values > len(values) * np.finfo(np.float64).eps * values.max()
    columns: Matrix = np.sqrt(values[kept])[:, None] * vectors[:, kept].T
    return columns


def least_norm_weights(columns: Matrix) -> Matrix:
    """Weights ``(T,)`` of the point of least norm in the convex hull of the columns ``(R, T)``.

    ``min_w |A w|`` over ``w >= 0``, ``sum w = 1``, is the non-negative least squares problem
    ``|A u|^2 + (1 - sum u)^2``, of which ``u / sum u`` is the minimum. It is solved for ``u`` times the lengths of the
    columns, the shortest of which is 1: all columns of the system then have a length between 1 and 1.5.

    Example:
        >>> least_norm_weights(np.diag([1.0, 2.0])).round(6).tolist()
        [0.8, 0.2]
    """
    lengths = np.linalg.norm(columns, axis=0)
    if not lengths.min():
        return np.asarray(np.eye(len(lengths))[lengths.argmin()])
    reach = lengths.min() / lengths
    system = np.vstack([columns / lengths, reach])
    weights = nnls(system, np.eye(len(system))[-1])[0] * reach
    return np.asarray(weights / weights.sum())


class NonNegativeProjector(DualConeProjector):
    """Projector for ``torchjd.aggregation.UPGradWeighting``: ``min v.G.v`` over ``v >= u``.

    With ``v = u + z`` and ``G = A^T A`` it is the non-negative least squares problem ``|A z + A u|``, solved for the
    gradients at length 1. (torchjd leaves it to quadprog, whose licence is the GPL, and adds 1e-4 to the diagonal of
    the Gramian over its trace, in which a gradient shorter than 1 % of the longest is lost.)
    """

    def __call__(self, u: Tensor, gramian: Tensor) -> Tensor:
        """Weights ``(T, T)`` for every row of `u` ``(T, T)``."""
        norms, cosines = split_lengths(gramian)
        columns = unit_vectors(cosines)
        return torch.from_numpy(np.stack([self._project(row * norms, columns) for row in u.numpy()]) / norms)

    def _project(self, row: Matrix, columns: Matrix) -> Matrix:
        size = np.abs(row).max()
        if not size:
            return row
        return np.asarray(row + size * nnls(columns, -columns @ (row / size))[0])
