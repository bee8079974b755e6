"""Stage 5, experts: a gate weighs the members image by image."""

from functools import partial

import numpy as np

from hsl.config.ranges import PositiveFloat, PositiveInt
from hsl.ensembles.fusion import principal_components, standardised
from hsl.ensembles.nested import Combined, Fit
from hsl.ensembles.rows import Floats, Rows
from hsl.inference.combining import FLOOR, side_by_side, softmax


def experts(top: PositiveInt = 3, inverse_penalty: PositiveFloat = 1.0, components: PositiveInt = 16) -> dict[str, Fit]:
    """The one variant of the stage: a mixture of experts (Jacobs et al. 1991) whose experts are the members.

    Args:
        top: members that an image is told by.
        inverse_penalty: C of the gate.
        components: principal components of each member's kept features that the gate reads.
    """
    return {"experts/gate": partial(gated, top, inverse_penalty, components)}


def gated(top: int, inverse_penalty: float, components: int, rows: Rows) -> Combined:
    """Fit the gate; each row is then the mean of its ``top`` members of the greatest weights, by these weights.

    ``w = softmax_m(x V_m + b_m)`` of the columns x: the members' probabilities and, where kept, principal components of
    their features, standardised over the fitted rows. Least is the sum of ``-log sum_m w_m p_m`` of what is true and
    ``|V|^2 / (2 C)``. Members whose weights equal the last one taken are taken too.

    Raises:
        ValueError: ``top`` is below 1.
    """
    if top < 1:
        raise ValueError(f"`top` should be at least 1. Found `top = {top}`. Set it to 3.")
    rows = rows.labelled()
    names = tuple(name for name in rows.members if name in rows.features)
    projects = {name: principal_components(rows.features[name].astype(np.float64), components) for name in names}

    def read(new: Rows) -> Floats:
        if missing := [name for name in names if name not in new.features]:
            raise ValueError(
                f"Rows should have the pooled features of {', '.join(missing)}, which the gate was fitted on. Found "
                "none. Keep the features of these images too."
            )
        kept = [projects[name](new.features[name].astype(np.float64)) for name in names]
        return np.concatenate([side_by_side(new.probabilities), *kept], axis=1)

    scale = standardised(read(rows))
    gate = _fit_gate(scale(read(rows)), rows.likelihoods, inverse_penalty)

    def weights(new: Rows) -> Floats:
        shares = _shares(gate, scale(read(new)))
        least = np.sort(shares, axis=1)[:, -min(top, shares.shape[1])]
        chosen = np.where(shares >= least[:, None], shares, 0)
        return np.asarray(chosen / chosen.sum(axis=1, keepdims=True))

    notes = {"weights": dict(zip(rows.members, weights(rows).mean(axis=0).tolist(), strict=True))}
    return Combined(
        rows.members, rows.classes, lambda new: np.einsum("nm,mnk->nk", weights(new), new.probabilities), notes
    )


def _fit_gate(columns: Floats, likelihoods: Floats, inverse_penalty: float) -> Floats:
    """``(D + 1, M)``: V and, in the last row, b, from zero by L-BFGS; ``likelihoods (M, N, J)``, NaN unknown."""
    from scipy.optimize import minimize

    num, known = len(likelihoods), ~np.isnan(likelihoods[0])
    values = np.maximum(np.where(known, likelihoods, 1), FLOOR)
    shape = (columns.shape[1] + 1, num)

    def loss(theta: Floats) -> tuple[float, Floats]:
        gate = theta.reshape(shape)
        shares = _shares(gate, columns)
        joint = shares.T[..., None] * values
        mixed = joint.sum(axis=0)
        residual = known.sum(axis=1)[:, None] * shares - (joint / mixed * known).sum(axis=2).T
        penalty = np.vstack([gate[:-1], np.zeros(num)]) / inverse_penalty
        gradient = np.vstack([columns.T @ residual, residual.sum(axis=0)]) + penalty
        return -float(np.log(mixed[known]).sum()) + float((penalty * gate).sum()) / 2, gradient.ravel()

    theta = minimize(loss, np.zeros(shape[0] * num), jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    return np.asarray(theta.reshape(shape))


def _shares(gate: Floats, columns: Floats) -> Floats:
    return softmax(columns @ gate[:-1] + gate[-1])
