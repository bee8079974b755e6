"""Nested fits: what is fitted on some parts of the rows is scored on the others, groups whole."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # comes with scikit-learn

from hsl.ensembles.rows import Floats, Rows
from hsl.inference.combining import FLOOR, Formula, combined
from hsl.metrics.images.image_counts import ImageCounts
from hsl.metrics.images.image_scores import predicted_labels


@dataclass(frozen=True, eq=False)
class Combined:
    """What a fit gives: a function of rows that reads their probabilities and features, never their labels.

    Attributes:
        members: whose outputs it reads, sorted.
        classes: of the rows that it was fitted on.
        combine: rows of exactly these members -> ``(N, K)`` probabilities.
        notes: what was chosen, as JSON can hold it: weights, members, thresholds.
        formula: the function as numbers, see `hsl.inference.combining`; ``None``: it is more than those can say.
    """

    members: tuple[str, ...]
    classes: tuple[str, ...]
    combine: Callable[[Rows], Floats]
    notes: Mapping[str, Any]
    formula: Formula | None = None

    @classmethod
    def by(
        cls, formula: Formula, members: tuple[str, ...], classes: tuple[str, ...], notes: Mapping[str, Any]
    ) -> "Combined":
        """The function that a formula says."""
        return cls(members, classes, lambda new: combined(formula, new.probabilities, new.several), notes, formula)

    def __call__(self, rows: Rows) -> Floats:
        """``float64 (N, K)``: the combined probabilities of rows, which may have further members; in one thread.

        Raises:
            ValueError: a member is missing, or the classes are others.
        """
        with one_thread():
            return self.apply(rows)

    def apply(self, rows: Rows) -> Floats:
        """The same in as many threads as there are: for many calls inside of `one_thread`."""
        if rows.classes != self.classes:
            raise ValueError(
                f"Rows should have the classes {', '.join(self.classes)}. Found {', '.join(rows.classes)}. Combine "
                "members of one data set and head."
            )
        return self.combine(rows if rows.members == self.members else rows.of_members(self.members))


def one_thread() -> threadpool_limits:
    """Let BLAS and OpenMP use one thread: rows are small, and sums in one order give the same bits on any machine."""
    import sklearn.ensemble  # noqa: F401  loads SciPy's and OpenMP's libraries: a limit is for those that are there

    return threadpool_limits(1)


Fit: TypeAlias = Callable[[Rows], Combined]
"""A variant of a stage with its settings bound; called through `refit` the same rows give the same result bitwise."""


def refit(fit: Fit, rows: Rows) -> Combined:
    """Fit on all of the rows, in one thread, as a nested run ends: what an artefact is loaded by."""
    with one_thread():
        return fit(rows)


@dataclass(frozen=True)
class Trail:
    """The ids that one fit read, and those that it was applied to for a score."""

    fitted_ids: tuple[str, ...]
    applied_ids: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A variant of a stage over all rows.

    Attributes:
        name: of the variant, ``"votes/soft"``.
        nested: ``(N, K)``: each part as combined by what was fitted on the other parts; the score is that of these.
        combined: fitted again on all rows, for the test part and for new images.
        fitted: ``(N, K)``: ``combined`` of the very rows that it was fitted on, which only the gap is made of.
        trails: a part each.
        choices: the notes of the fit of each part.
    """

    name: str
    nested: Floats
    combined: Combined
    fitted: Floats
    trails: tuple[Trail, ...]
    choices: tuple[Mapping[str, Any], ...]


def run_nested(name: str, fit: Fit, rows: Rows, parts: NDArray[np.int64]) -> Fitted:
    """Fit on all parts but one and combine that one, for each part; then fit on all rows.

    Args:
        name: of the variant.
        fit: the variant.
        rows: out-of-fold rows.
        parts: ``(N,)`` number of the part of each row, at least two of them; see `meta_folds`.
    """
    numbers = np.unique(parts)
    if parts.shape != (len(rows.ids),) or len(numbers) < 2:
        raise ValueError(
            f"`parts` should number two or more parts of {len(rows.ids)} rows. Found {len(numbers)} of {parts.shape}."
        )
    nested = np.full((len(rows.ids), len(rows.classes)), np.nan)
    trails, choices = [], []
    with one_thread():
        for number in numbers:
            others, part = rows.take(parts != number), rows.take(parts == number)
            combined = fit(others)
            nested[parts == number] = combined.apply(part)
            trails.append(Trail(others.ids, part.ids))
            choices.append(combined.notes)
        final = fit(rows)
        return Fitted(name, nested, final, final.apply(rows), tuple(trails), tuple(choices))


def meta_folds(rows: Rows, num_folds: int = 5, seed: int = 0) -> NDArray[np.int64]:
    """Deal the rows into parts for nested fits: groups whole, and images of one content together.

    Groups that share a content are one unit. The largest unit goes first, of equals in random order, to the part that
    lacks its classes most: it makes the sum over parts and classes of squared shares of the class as small as can be
    (of equals: the part with the fewest rows). A part is never empty.

    Args:
        rows: of any members.
        num_folds: how many parts.
        seed: of the order.

    Returns:
        ``int64 (N,)``: number of the part of each row.

    Raises:
        ValueError: there are fewer units than parts.
    """
    unit = _units(rows)
    num_units = int(unit.max()) + 1
    if num_folds < 2:
        raise ValueError(f"`num_folds` should be at least 2. Found `num_folds = {num_folds}`. Set it to 5.")
    if num_folds > num_units:
        raise ValueError(
            f"`num_folds` should be at most the number of groups that share no image, {num_units}. Found `num_folds = "
            f"{num_folds}`. " + ("Set it lower." if num_units > 1 else "Predict images of more groups.")
        )
    truth = rows.truth
    unknown = np.isnan(truth).any(axis=1)
    strata = np.column_stack([np.nan_to_num(truth), unknown, ~unknown & (np.nan_to_num(truth).sum(axis=1) == 0)])
    counts = np.zeros((num_units, strata.shape[1]))
    np.add.at(counts, unit, strata)
    sizes = np.bincount(unit, minlength=num_units)
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    order = np.random.default_rng(seed).permutation(num_units)
    order = order[np.argsort(-sizes[order], kind="stable")]
    held, num_rows = np.zeros((num_folds, strata.shape[1])), np.zeros(num_folds)
    part_of = np.zeros(num_units, dtype=np.int64)
    for one in order:
        growth = np.round(2 * (held * shares[one]).sum(axis=1), 12)
        part_of[one] = np.lexsort((num_rows, growth))[0]
        held[part_of[one]] += shares[one]
        num_rows[part_of[one]] += sizes[one]
    return part_of[unit]


def score_of(probabilities: Floats, rows: Rows) -> float:
    """Accuracy with one class per image, else macro F1 at 0.5, over rows whose labels are known; NaN of none."""
    counts = ImageCounts.of(rows.truth, predicted_labels(probabilities, rows.several), rows.several)
    return float(counts.total.score("macro_f1" if rows.several else "accuracy"))


def log_loss_of(probabilities: Floats, rows: Rows) -> float:
    """Mean of ``-log p`` of what is true (of each class, where several may be shown), over what is known.

    Probabilities below 1e-7 count as 1e-7.
    """
    truth = rows.truth
    likely = np.where(truth == 1, probabilities, 1 - probabilities)
    counted = ~np.isnan(truth) if rows.several else truth == 1
    return float(-np.log(np.maximum(likely[counted], FLOOR)).mean()) if counted.any() else float("nan")


def _units(rows: Rows) -> NDArray[np.int64]:
    """``(N,)``: groups are joined where they share a content; numbered by their first name."""
    leader = {name: name for name in rows.groups}

    def root(name: str) -> str:
        while leader[name] != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    first: dict[str, str] = {}
    for group, content in zip(rows.groups, rows.contents, strict=True):
        one, other = root(group), root(first.setdefault(content, group))
        leader[max(one, other)] = min(one, other)
    roots = {name: root(name) for name in leader}
    number = {name: i for i, name in enumerate(sorted(set(roots.values())))}
    return np.array([number[roots[group]] for group in rows.groups], dtype=np.int64)
