"""The stages one after the other: fitted nested, kept, and taken up again where their inputs have not changed."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from numpy.typing import NDArray

from hsl.ensembles.nested import Combined, Fit, Trail, refit, run_nested, score_of
from hsl.ensembles.rows import Floats, Rows
from hsl.ensembles.votes import best_single
from hsl.errors import DataError
from hsl.run_folder.ensemble import read_stage, write_stage
from hsl.verbs.ensemble.planning.planned import read_by

INDIVIDUAL = "individual"
BEST = "individual/best"
MEAN = "votes/soft"
READ = "members_read"
"""A note: whose predictions a combination needs; without it the combination is asked."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """One way of combining, such as ``votes/soft``, ready for new rows.

    Attributes:
        name: of the variant.
        rows: what it is fitted on.
        fit: how.
        notes: of the final fit.
    """

    name: str
    rows: Rows
    fit: Fit
    notes: Mapping[str, Any]

    @property
    def stage(self) -> str:
        """The stage that it belongs to."""
        return self.name.partition("/")[0]

    @cached_property
    def combined(self) -> Combined:
        """Fitted on all rows; the same, bit for bit, whenever it is made again."""
        return refit(self.fit, self.rows)

    @property
    def members(self) -> list[str]:
        """Whose predictions a new image needs."""
        known = self.notes.get(READ)
        return list(self.combined.members if known is None else known)

    def __call__(self, rows: Rows) -> Floats:
        """``(N, K)`` probabilities of rows of the members."""
        return self.combined(rows)


@dataclass(frozen=True, eq=False)
class Variant(Chosen):
    """A way of combining with its nested results.

    Attributes:
        trails: what each fit read and was applied to; ids of images.
        choices: the notes of the fit of each part.
        gap: score on the rows that it was fitted on, less the nested one.
        seconds: that all fits took.
    """

    trails: Sequence[Trail]
    choices: Sequence[Mapping[str, Any]]
    gap: float
    seconds: float


@dataclass(frozen=True, eq=False)
class RowVariant(Variant):
    """Of an image head: ``nested (N, K)``, what it says of each part of the rows, fitted on the others; ``fitted
    (N, K)``, what it says of the rows that it was fitted on."""

    nested: Floats
    fitted: Floats


def shares(notes: Mapping[str, Any]) -> dict[str, float] | None:
    """Member -> weight, of a variant that is one member or a mean by weights; ``None`` of any other."""
    if "member" in notes:
        return {str(notes["member"]): 1.0}
    weights = notes.get("weights")
    if not isinstance(weights, Mapping) or not all(isinstance(weight, int | float) for weight in weights.values()):
        return None
    return {name: float(weight) for name, weight in weights.items()}


def run_stage(fits: Mapping[str, Fit], rows: Rows, parts: NDArray[np.int64]) -> list[RowVariant]:
    """Fit every variant of a stage, nested.

    Args:
        fits: by variant.
        rows: out-of-fold rows of the members.
        parts: ``(N,)`` number of the part of each row.
    """
    made = []
    for name, fit in fits.items():
        start = time.perf_counter()
        one = run_nested(name, fit, rows, parts)
        spent = time.perf_counter() - start
        notes = {**one.combined.notes, READ: list(one.combined.members)}
        made.append(_variant(name, rows, fit, notes, one.trails, one.choices, spent, one.nested, one.fitted))
    return made


@contextmanager
def cannot_be_fitted(stage: str) -> Iterator[None]:
    """What a stage has to say of the rows that it is given becomes the user's sentence.

    Raises:
        DataError: in place of the error of the stage.
    """
    try:
        yield
    except ValueError as error:
        raise DataError(f"The stage {stage} cannot be fitted. {error} Or leave it out with `stages=[...]`.") from error


def individual_fits(rows: Rows) -> dict[str, Fit]:
    """Stage 1: every member by itself, and the best of them, chosen on the rows of the fit."""

    def alone(name: str) -> Fit:
        def fit(own: Rows) -> Combined:
            return Combined((name,), own.classes, lambda new: new.probabilities[0].copy(), {"member": name})

        return fit

    best = _reading(read_by(INDIVIDUAL, rows.members), best_single)
    return {BEST: best} | {f"{INDIVIDUAL}/{name}": alone(name) for name in rows.members}


def stage_fits(settings: Mapping[str, Any], stage: str, rows: Rows) -> dict[str, Fit]:
    """The variants of a stage.

    Args:
        settings: the call of each stage, by its name, in their order. A partial one reads the stages before it.
        stage: which.
        rows: of the members; those that were trained for another stage are not read.
    """
    if stage == INDIVIDUAL:
        return individual_fits(rows)
    made = instantiate({stage: settings[stage]})[stage]
    if callable(made):
        before = list(settings)[: list(settings).index(stage)]
        made = made({name: fit for one in before for name, fit in stage_fits(settings, one, rows).items()})
    names = read_by(stage, rows.members)
    return {name: _reading(names, fit) for name, fit in made.items()}


def _reading(names: tuple[str, ...], fit: Fit) -> Fit:
    """A fit that reads these members alone."""
    return lambda rows: fit(rows if rows.members == names else rows.of_members(names))


def digest_of(rows: Rows, parts: NDArray[np.int64], settings: Mapping[str, Any], stage: str) -> str:
    """Equal digests, equal results: of rows, parts, the settings of a stage, and those of the stages that it reads."""
    before = list(settings)[: list(settings).index(stage)] if settings.get(stage, {}).get("_partial_") else []
    read = {name: settings.get(name) for name in (*before, stage)}
    own = rows if stage == INDIVIDUAL else rows.of_members(read_by(stage, rows.members))
    sha = hashlib.sha256(f"{own.digest} {json.dumps(read, sort_keys=True, default=str)}".encode())
    sha.update(parts.tobytes())
    return sha.hexdigest()


def keep_stage(
    folder: Path,
    stage: str,
    variants: Sequence[RowVariant],
    digest: str,
    trails: Sequence[Trail],
    withheld: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write what a stage gave, so that `kept_stage` can take it up; ``withheld``: why variants are not among it."""
    arrays = {f"nested_{i}": one.nested for i, one in enumerate(variants)}
    arrays |= {f"fitted_{i}": one.fitted for i, one in enumerate(variants)}
    page = {
        "digest": digest,
        "variants": [
            {"name": one.name, "choices": list(one.choices), "notes": dict(one.notes), "seconds": one.seconds}
            for one in variants
        ],
        "withheld": list(withheld),
        "trails": [[list(trail.fitted_ids), list(trail.applied_ids)] for trail in trails],
    }
    write_stage(folder, stage, page, arrays)


def kept_stage(
    folder: Path, stage: str, fits: Mapping[str, Fit], rows: Rows, digest: str | None
) -> tuple[list[RowVariant], list[dict[str, Any]]] | None:
    """What a stage gave before, and why variants were withheld; ``None``: it has not run, or its inputs were others.

    Args:
        folder: of the head.
        stage: its name.
        fits: by variant.
        rows: out-of-fold rows of the members.
        digest: of its inputs now; ``None``: whatever they were.
    """
    if (found := read_stage(folder, stage, digest)) is None:
        return None
    page, arrays = found
    trails = tuple(Trail(tuple(fitted), tuple(applied)) for fitted, applied in page["trails"])
    variants = [
        _variant(
            one["name"], rows, fits[one["name"]], one["notes"], trails, one["choices"], one["seconds"],
            arrays[f"nested_{i}"], arrays[f"fitted_{i}"],
        )
        for i, one in enumerate(page["variants"])
    ]  # fmt: skip
    return variants, list(page["withheld"])


def _variant(
    name: str,
    rows: Rows,
    fit: Fit,
    notes: Mapping[str, Any],
    trails: Sequence[Trail],
    choices: Sequence[Mapping[str, Any]],
    seconds: float,
    nested: Floats,
    fitted: Floats,
) -> RowVariant:
    gap = score_of(fitted, rows) - score_of(nested, rows)
    return RowVariant(name, rows, fit, notes, trails, choices, gap, seconds, nested, fitted)
