"""Stage 4, fusion: one linear head on the members' pooled features, concatenated, attended to or multiplied."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations, pairwise
from typing import TypeAlias

import numpy as np

from hsl.config.ranges import PositiveFloat, PositiveInt, Seed
from hsl.ensembles.learners import MakeClassifier, cross_entropy, learn, linear_head
from hsl.ensembles.nested import Combined, Fit
from hsl.ensembles.rows import Floats, Rows
from hsl.inference.combining import sigmoid, softmax

Project: TypeAlias = Callable[[Floats], Floats]


def fusion(
    inverse_penalty: PositiveFloat = 1.0,
    components: PositiveInt = 64,
    sketch: PositiveInt = 128,
    seed: Seed = 0,
) -> dict[str, Fit]:
    """The variants of the stage; members without kept features take no part.

    ``concatenation``: a linear head on all features. ``attention``: on the features of each member times its share of
    attention; see `attention_head`. ``bilinear``: on the products of the features of each pair of members; see
    `tensor_sketch`. Features are standardised over the fitted rows and divided by the root of their number.

    Args:
        inverse_penalty: C of the linear heads.
        components: principal components of each member's features that the attention reads.
        sketch: numbers that stand for the products of a pair.
        seed: of the sketches.
    """
    make = partial(linear_head, inverse_penalty)
    return {
        "fusion/concatenation": partial(concatenated, make),
        "fusion/attention": partial(attended, inverse_penalty, components),
        "fusion/bilinear": partial(multiplied, make, sketch, seed),
    }


def concatenated(make: MakeClassifier, rows: Rows) -> Combined:
    """A linear head on the features of all members."""
    rows, members = _with_features(rows)
    project = principal_components(np.concatenate(_features(rows, members), axis=1))
    predict = learn(make, project(np.concatenate(_features(rows, members), axis=1)), rows)
    return Combined(
        members, rows.classes, lambda new: predict(project(np.concatenate(_features(new, members), axis=1))), {}
    )


def multiplied(make: MakeClassifier, sketch: int, seed: int, rows: Rows) -> Combined:
    """A linear head on the sketched products of each pair of members; one member alone is multiplied by itself."""
    rows, members = _with_features(rows)
    scale = [standardised(values) for values in _features(rows, members)]
    pairs = list(combinations(range(len(members)), 2)) or [(0, 0)]

    def products(new: Rows) -> Floats:
        values = [each(one) for each, one in zip(scale, _features(new, members), strict=True)]
        return np.concatenate([tensor_sketch(values[i], values[j], sketch, seed) for i, j in pairs], axis=1)

    fitted = products(rows)
    project = principal_components(fitted)
    predict = learn(make, project(fitted), rows)
    return Combined(members, rows.classes, lambda new: predict(project(products(new))), {})


def attended(inverse_penalty: float, components: int, rows: Rows) -> Combined:
    """A linear head on the members' principal components, each member's times its share of attention."""
    rows, members = _with_features(rows)
    projects = [principal_components(values, components) for values in _features(rows, members)]

    def columns(new: Rows) -> list[Floats]:
        return [project(values) for project, values in zip(projects, _features(new, members), strict=True)]

    head, attention = attention_head(columns(rows), rows.truth, rows.several, inverse_penalty)
    mean = attention(columns(rows)).mean(axis=0)
    notes = {"attention": dict(zip(members, mean.tolist(), strict=True))}
    return Combined(members, rows.classes, lambda new: head(columns(new)), notes)


def attention_head(
    features: Sequence[Floats], truth: Floats, several: bool, inverse_penalty: float = 1.0
) -> tuple[Callable[[Sequence[Floats]], Floats], Callable[[Sequence[Floats]], Floats]]:
    """Fit shares of attention and a linear head together, from zero, by L-BFGS.

    ``a = softmax_m(v_m h_m + b_m)``; logits ``sum_m M a_m h_m W_m + c``; the sum of the cross-entropies of what is
    known (of each class, where several may be shown) and ``(|v|^2 + |W|^2) / (2 C)`` is least. With v = b = 0 it is the
    head on the concatenation.

    Args:
        features: of each of M members ``(N, D)``.
        truth: ``(N, K)`` of 0 and 1, NaN unknown.
        several: whether a row may show several classes.
        inverse_penalty: C.

    Returns:
        Functions of features: to probabilities ``(N, K)``, and to the shares of attention ``(N, M)``.
    """
    from scipy.optimize import minimize

    num, classes = len(features), truth.shape[1]
    bounds = np.cumsum([0] + [values.shape[1] for values in features])
    sizes = (bounds[-1], num, bounds[-1] * classes, classes)
    cuts = np.cumsum(sizes)[:-1]

    def forward(theta: Floats, values: Sequence[Floats]) -> tuple[Floats, Floats, Floats]:
        v, b, w, c = np.split(theta, cuts)
        w = w.reshape(-1, classes)
        slices = [slice(*pair) for pair in pairwise(bounds)]
        scores = np.column_stack([one @ v[each] for one, each in zip(values, slices, strict=True)]) + b
        shares = softmax(scores)
        heads = num * np.stack([one @ w[each] for one, each in zip(values, slices, strict=True)])
        return shares, heads, np.einsum("nm,mnk->nk", shares, heads) + c

    def loss(theta: Floats) -> tuple[float, Floats]:
        shares, heads, logits = forward(theta, features)
        value, residual = cross_entropy(logits, truth, several)
        of_shares = np.einsum("nk,mnk->nm", residual, heads)
        of_scores = shares * (of_shares - (shares * of_shares).sum(axis=1, keepdims=True))
        of_v = [one.T @ of_scores[:, i] for i, one in enumerate(features)]
        of_w = [num * (one * shares[:, [i]]).T @ residual for i, one in enumerate(features)]
        gradient = np.concatenate([*of_v, of_scores.sum(axis=0), np.concatenate(of_w).ravel(), residual.sum(axis=0)])
        penalised = np.concatenate([np.full(size, weight) for size, weight in zip(sizes, (1, 0, 1, 0), strict=True)])
        penalty = penalised / inverse_penalty * theta
        return value + float(penalty @ theta) / 2, gradient + penalty

    theta = minimize(loss, np.zeros(sum(sizes)), jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    to_probabilities = sigmoid if several else softmax
    return lambda new: to_probabilities(forward(theta, new)[2]), lambda new: forward(theta, new)[0]


def tensor_sketch(one: Floats, other: Floats, size: int, seed: int) -> Floats:
    """``(N, size)``: compact bilinear pooling, a random projection of all products of two members' features.

    Source: Gao et al. 2016, "Compact Bilinear Pooling" (Tensor Sketch): each side is count-sketched, the two are
    convolved, and the root of each number is taken with its sign; the row is then of length 1. A constant 1 joins both
    sides, so that the features themselves are among the products (Zadeh et al. 2017, "Tensor Fusion Network").
    """
    generator = np.random.default_rng(seed)
    spectrum = np.ones(size // 2 + 1, dtype=np.complex128)
    for values in (one, other):
        columns = np.column_stack([values, np.ones(len(values))])
        index, sign = generator.integers(0, size, columns.shape[1]), generator.choice([-1.0, 1.0], columns.shape[1])
        sketch = np.zeros((columns.shape[1], size))
        sketch[np.arange(columns.shape[1]), index] = sign
        spectrum = spectrum * np.fft.rfft(columns @ sketch, axis=1)
    products = np.fft.irfft(spectrum, size, axis=1)
    rooted = np.sign(products) * np.sqrt(np.abs(products))
    return np.asarray(rooted / np.maximum(np.linalg.norm(rooted, axis=1, keepdims=True), 1e-12))


def standardised(columns: Floats) -> Project:
    """Centre, divide by the deviation of the given rows and by the root of the number of columns: rows of length ~1."""
    centre, scale = columns.mean(axis=0), columns.std(axis=0)
    scale = np.where(scale > 1e-12, scale, 1) * np.sqrt(columns.shape[1])
    return lambda new: np.asarray((new - centre) / scale)


def principal_components(columns: Floats, most: int | None = None) -> Project:
    """The principal components of standardised columns, at most some of them; ``None``: all, a rotation.

    A linear head with a quadratic penalty learns the same from the rotated columns, which are fewer than the rows.
    """
    scale = standardised(columns)
    values = scale(columns)
    if len(values) < values.shape[1]:
        squares, vectors = np.linalg.eigh(values @ values.T)
    else:
        squares, vectors = np.linalg.eigh(values.T @ values)
    kept = np.flatnonzero(squares > 1e-10 * squares[-1])[::-1][:most]
    if squares[-1] < 1e-20:
        return lambda new: np.zeros((len(new), 1))  # nothing ever changes
    axes = vectors[:, kept]
    if len(values) < values.shape[1]:
        axes = values.T @ axes / np.sqrt(squares[kept])
    return lambda new: np.asarray(scale(new) @ axes)


def _with_features(rows: Rows) -> tuple[Rows, tuple[str, ...]]:
    rows = rows.labelled()
    members = tuple(name for name in rows.members if name in rows.features)
    if not members:
        raise ValueError(
            "Fusion should have members whose pooled features were kept. Found none. Keep them with `hsl ensemble`, or "
            "leave the stage out."
        )
    return rows.of_members(members), members


def _features(rows: Rows, members: Sequence[str]) -> list[Floats]:
    if missing := [name for name in members if name not in rows.features]:
        raise ValueError(
            f"Rows should have the pooled features of {', '.join(missing)}, which the fusion was fitted on. Found "
            "none. Keep the features of these images too."
        )
    return [rows.features[name].astype(np.float64) for name in members]
