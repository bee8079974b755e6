"""The ablation table: what each change of a base model does to its score."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hsl.errors import ConfigError
from hsl.reports.models import Model
from hsl.reports.naming import ABSENT
from hsl.reports.statistics.comparisons import Comparison
from hsl.reports.statistics.paired_tests import Summary
from hsl.reports.statistics.ranking import standing_cells, standing_columns
from hsl.reports.statistics.resampling import Estimate
from hsl.reports.tables.score_tables import Cell, Column, Table
from hsl.reports.tables.titles import kind_of, title_of

LISTED = 6  # changed keys that a row lists
TARGET = "._target_"
ORDER = (
    "difference",
    "interval_adjusted",
    "verdict",
    "adjusted_p",
    "trainings_p",
    "smallest",
    "groups",
    "interval",
)  # of the columns on the standing: the difference is what is asked


def find_base(models: Sequence[Model], base: str) -> Model | None:
    """The model that is called so, by its label in the report or by the ``name`` of all its runs; none: no model is.

    Raises:
        ConfigError: several are.
    """
    ready = [model for model in models if model.finished]
    labelled = [model for model in ready if model.label == base]
    named = [model for model in ready if {str(run.config.get("name")) for run in model.finished.values()} == {base}]
    found = labelled or named
    if len(found) > 1:
        raise ConfigError(
            f"`base` should name one model. Found {len(found)} whose runs have `name = {base}`: {_listed(found)}. Give "
            f"one of these labels instead: {_words(found[0])}."
        )
    return found[0] if found else None


def check_base(reports: Sequence[Sequence[Model]], base: str | None) -> None:
    """See that some report has the base.

    Args:
        reports: the models of each data set.
        base: as it was given; none: no table is asked for.

    Raises:
        ConfigError: no finished model is called so, or several are.
    """
    found = [] if base is None else [find_base(models, base) for models in reports]  # all: each may have several
    if base is None or any(found):
        return
    ready = [model for models in reports for model in models if model.finished]
    way_out = f" Give one of these labels: {_words(ready[0])}." if ready else ""
    raise ConfigError(
        f"`base` should be the label, or the `name` of the runs, of a model with finished runs: {_listed(ready)}. "
        f"Found `base = {base}`.{way_out}"
    )


def ablation_table(
    models: Sequence[Model],
    base: Model,
    metric: str,
    means: Mapping[str, Summary],
    estimates: Mapping[str, Estimate],
    comparisons: Sequence[Comparison],
    name: str = "ablation",
) -> Table:
    """The base, then a row for each other model: what was changed, its score, and its difference to the base.

    Args:
        models: best first; those without finished runs are left out.
        base: one of them.
        metric: the score that decides.
        means: label to the metric over folds.
        estimates: label to the pooled score with its interval.
        comparisons: of every two models.
        name: of the table.
    """
    standing = standing_columns(metric)
    order = sorted(range(len(standing)), key=lambda i: ORDER.index(standing[i].key))
    columns = [Column("model", "model"), Column("changed", "changed")]
    columns.append(Column(metric, title_of(metric), kind_of(metric)))
    columns += [replace(standing[i], title=standing[i].title.replace("the first", "the base")) for i in order]
    rows: list[Sequence[Cell]] = []
    for model in [base, *(one for one in models if one.finished and one.label != base.label)]:
        cells = standing_cells(model.label, base.label, estimates.get(model.label), comparisons, metric)
        told = "the base" if model is base else changed(model, base)
        rows.append([model.label, told, means[model.label], *(cells[i] for i in order)])
    caption = (
        f"Each model against the base, {base.label}: its score minus that of the base on the same pictures. Mean ± "
        "sample standard deviation over folds; 95 % interval of the pooled score over groups. The adjusted interval "
        "and p hold for all pairs of the report together, not only for these rows, so that no pair has two verdicts; "
        "that is stricter than a test of many against one (Dunnett 1955). Where several keys changed, the difference "
        "is that of all of them."
    )
    return Table(name, caption, columns, rows)


def changed(model: Model, base: Model) -> str:
    """The keys whose values are not those of the base, as ``key=value``; what follows from the encoder is left out.

    Of a part that was put in the place of another only its name is said: the keys below it are its own.
    """
    keys = [key for key in {**base.differences, **model.differences} if _value(model, key) != _value(base, key)]
    parts = {key.removesuffix(TARGET) for key in keys if key.endswith(TARGET)}
    kept = [key for key in keys if not any(key.startswith(f"{part}.") and key != part + TARGET for part in parts)]
    told = [f"{key.removesuffix(TARGET)}={_value(model, key)}" for key in kept[:LISTED]]
    return ", ".join([*told, *([f"and {len(kept) - LISTED} more"] if len(kept) > LISTED else [])]) or "the encoder"


def _value(model: Model, key: str) -> str:
    return model.differences.get(key, ABSENT)


def _words(model: Model) -> str:
    """What is typed; without the inner quotes Hydra stumbles over the signs of a label."""
    label = model.label.replace("'", "\\'")
    return f"`\"base='{label}'\"`"


def _listed(models: Sequence[Model]) -> str:
    return ", ".join(f"`{model.label}`" for model in models) or "there is none"
