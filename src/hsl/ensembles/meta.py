"""Stage 6, meta: the learners of stacking on the nested outputs of the stages before."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hsl.config.ranges import PositiveInt, Seed
from hsl.ensembles.nested import Combined, Fit, meta_folds, run_nested
from hsl.ensembles.rows import Floats, Rows
from hsl.ensembles.stacking import stacking


def meta(stages: Mapping[str, Fit], num_folds: PositiveInt = 4, seed: Seed = 0, **settings: float) -> dict[str, Fit]:
    """The variants of the stage, which fit the stages before anew inside of themselves.

    Given rows, a variant runs every stage nested over them with folds of its own, and fits its learner on these outputs
    and the members' probabilities. To combine new rows it applies the stages as fitted on all of the given rows. So a
    nested run of the variant is honest without exception: nothing that it applies to a part has read a label of it.
    (Outputs of one nested run, shared by all parts, would not do: those of the other parts were fitted on this one.)

    The variants share the outputs; each set of rows is combined once.

    Args:
        stages: the variants of stages 2 to 5 by name.
        num_folds: of the nested runs inside.
        seed: of their folds and of the learners.
        settings: of the learners; see `hsl.ensembles.stacking.stacking`.
    """
    known: dict[str, tuple[Rows, dict[str, Combined]]] = {}

    def outputs(rows: Rows) -> tuple[Rows, dict[str, Combined]]:
        if rows.digest not in known:
            parts = meta_folds(rows, num_folds, seed)
            results = {name: run_nested(name, fit, rows, parts) for name, fit in stages.items()}
            nested = {name: result.nested for name, result in results.items()}
            finals = {name: result.combined for name, result in results.items()}
            known[rows.digest] = stage_rows(rows, nested), finals
        return known[rows.digest]

    def variant(learner: Fit) -> Fit:
        def fit(rows: Rows) -> Combined:
            rows = rows.labelled()
            nested, finals = outputs(rows)
            final = learner(nested)

            def combine(new: Rows) -> Floats:
                return final.apply(stage_rows(new, {name: combined.apply(new) for name, combined in finals.items()}))

            return Combined(rows.members, rows.classes, combine, {"inputs": list(nested.members), **final.notes})

        return fit

    learners = stacking(seed=seed, **settings)  # type: ignore[arg-type]  # each setting is checked by its own call
    return {f"meta/{name.partition('/')[2]}": variant(learner) for name, learner in learners.items()}


def stage_rows(rows: Rows, outputs: Mapping[str, Floats]) -> Rows:
    """The same rows with outputs of stages, and the members themselves as ``individual/<member>``, as their members."""
    single = {f"individual/{name}": values for name, values in zip(rows.members, rows.probabilities, strict=True)}
    columns = single | dict(outputs)
    names = tuple(sorted(columns))
    probabilities = np.stack([np.clip(columns[name], 0, 1) for name in names])
    return replace(rows, members=names, probabilities=probabilities, features={}, foreground=None)
