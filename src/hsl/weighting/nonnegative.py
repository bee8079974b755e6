"""What torchjd leaves to quadprog, whose licence is the GPL: the projection onto the dual cone, by SciPy."""

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor
from torchjd.linalg import DualConeProjector


class NonNegativeProjector(DualConeProjector):
    """Projector for ``torchjd.aggregation.UPGradWeighting``: ``min v.G.v`` over ``v >= u``.

    With ``v = u + z`` and ``G = L L^T`` it is the non-negative least squares problem ``|L^T z + L^T u|``. The Gramian
    is divided by its trace and gets `regularisation` on the diagonal, as torchjd does it.

    Args:
        regularisation: above 0; makes the Gramian positive definite. torchjd takes 1e-4.
    """

    def __init__(self, regularisation: float = 1e-4) -> None:
        super().__init__()
        self.regularisation = regularisation

    def __call__(self, u: Tensor, gramian: Tensor) -> Tensor:
        """Weights ``(T, T)`` for every row of `u` ``(T, T)``."""
        eye = torch.eye(len(gramian), dtype=gramian.dtype)
        factor = torch.linalg.cholesky(gramian / gramian.trace() + self.regularisation * eye).T.numpy()
        rows = [row + nnls(factor, -factor @ row)[0] for row in u.numpy()]
        return torch.from_numpy(np.stack(rows))
