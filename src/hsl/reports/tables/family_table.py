"""The models by the family of their encoder: CNN, transformer, hybrid."""

from collections.abc import Mapping, Sequence

from hsl.models.families import family_of
from hsl.reports.models import Model
from hsl.reports.tables.score_tables import Cell, Column, Table
from hsl.reports.tables.titles import kind_of, title_of
from hsl.run_folder.run import ScoredOn


def family(model: Model) -> str:
    """Of the encoder, by its name in the config; ``unknown`` where the run does not say."""
    config = next((run.config for run in model.runs), {})
    encoder = config.get("encoder")
    return family_of(str(encoder.get("name", ""))) if isinstance(encoder, Mapping) else "unknown"


def family_table(models: Sequence[Model], on: ScoredOn, metric: str) -> Table | None:
    """A row per family, in the order of their best models; ``None`` where the models are all of one.

    Args:
        models: best first.
        on: part and inference.
        metric: the score that ranks.
    """
    groups: dict[str, list[Model]] = {}
    for model in models:
        if model.summary(metric, on).num:
            groups.setdefault(family(model), []).append(model)
    if len(groups) < 2:
        return None
    columns = [Column("family", "family"), Column("models", "models", "count"), Column("best_model", "best model")]
    columns += [Column(name, f"{title} {title_of(metric)}", kind_of(metric)) for name, title in
                (("best", "best"), ("mean", "mean over models:"))]  # fmt: skip
    rows: list[list[Cell]] = []
    for name, members in groups.items():
        means = [model.summary(metric, on).mean for model in members]
        best = members[0].summary(metric, on)
        rows.append([name, len(members), members[0].label, best, sum(means) / len(means)])
    caption = (
        f"Models by the family of their encoder, {on} inference; mean ± sample standard deviation over "
        "folds. Families differ in size, pretraining and number of models as well: a difference between their means is "
        "no verdict on an architecture."
    )
    return Table("families", caption, columns, rows)
