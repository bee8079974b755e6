"""Tables with a row per run, per phase, per image, and per family of encoders."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hsl.metrics.pixels.pixel_counts import METRICS
from hsl.models.families import family_of
from hsl.reports.models import Model
from hsl.reports.scores import INFERENCES, SHOWN, Scores, counted
from hsl.reports.statistics.paired_tests import mean_std
from hsl.reports.tables.score_tables import Cell, Column, Field, Table
from hsl.reports.tables.titles import kind_of, part_title, title_of, tta_title
from hsl.run_folder.run import Run, ScoredOn


def folds_table(models: Sequence[Model], part: str) -> Table:
    """One row per model, fold and seed; of a fold that is missing the reason stands in place of its status."""
    of_images = any(model.of_images for model in models)
    plain = ScoredOn(part)
    fields: list[Field] = [
        (Column("seed", "seed", "count"), lambda run: run.seed),
        (Column("status", "status"), lambda run: run.state),
        (Column("images", "pictures", "count"), lambda run: _num_images(run, plain)),
        *(_scores_of_images(plain) if of_images else _scores_of_pixels(part)),
        (Column("best_epoch", "best epoch", "count"), lambda run: run.metrics and run.metrics.monitor.epoch + 1),
        (Column("wall_time_s", "time (h:m:s)", "seconds"), lambda run: run.provenance.get("wall_time_s")),
        (Column("folder", "run folder"), lambda run: str(run.folder)),
    ]
    rows: list[Sequence[Cell]] = []
    for model in models:
        done = {fold: model.seeds(fold) for fold in model.folds}
        for fold in sorted({*done, *model.missing}):
            head: list[Cell] = [model.label, fold_name(model, fold)]
            rows += [[*head, *(read(run) for _, read in fields)] for run in done.get(fold, [])]
            if fold in model.missing:
                rows.append([*head, None, model.missing[fold], *[None] * (len(fields) - 2)])
    columns = [Column("model", "model"), Column("fold", "fold"), *(column for column, _ in fields)]
    name, of = ("image_folds", " of the image heads") if of_images else ("folds", "")
    caption = f"Every fold{of} on its own, {part_title(part)}."
    runs = [run for model in models for fold in model.folds for run in model.seeds(fold)]
    return Table(name, caption + cost_of(runs), columns, rows)


def cost_of(runs: Sequence[Run]) -> str:
    """Energy of the runs that know theirs, and device time; nothing for runs older than these records.

    What was not counted is said, and how many runs overlapped: where two shared a machine, its energy is in both.
    """
    pages = [run.provenance for run in runs if "energy_j" in run.provenance]
    if not pages:
        return ""
    joules = [sum(page["energy_j"].values()) for page in pages if page["energy_j"]]
    kinds = ", ".join(sorted({name.split()[0] for page in pages for name in page["energy_j"] or ()}))
    energy = (
        f"{sum(joules) / 3.6e6:.4g} kWh ({kinds}) in {len(joules)} of {len(runs)} runs" if joules else "not measured"
    )
    times = [page.get("device_time_s") or {} for page in pages]
    parts = {"processor": "processor time", "devices": "device time"}
    hours = [f"{title} {sum(time.get(key, 0) for time in times) / 3600:.2f} h" for key, title in parts.items()
             if any(key in time for time in times)]  # fmt: skip
    told = [f" Energy of the machine while they ran: {energy}; {', '.join(hours)} ({len(pages)} of {len(runs)} runs)."]
    beside = _side_by_side([page for page in pages if page["energy_j"]])
    if beside:
        told.append(
            f"{beside} of them ran beside another: where that was on one machine, each counted all of its energy."
        )
    notes = sorted({page["energy_note"] for page in pages if page["energy_j"] and page.get("energy_note")})
    if notes:
        told.append(f"Not in it: {'; '.join(notes)}.")
    return " ".join(told)


def _side_by_side(pages: Sequence[Mapping[str, Any]]) -> int:
    """How many of the runs were under way while another was; of those that say when."""
    spans = [(page["started"], page["finished"]) for page in pages if page.get("started") and page.get("finished")]
    return sum(any(one is not other and one[0] < other[1] and other[0] < one[1] for other in spans) for one in spans)


def _scores_of_pixels(part: str) -> list[Field]:
    ways = {f"miou{'_tta' * (way == 'tta')}": ScoredOn(part, way) for way in INFERENCES}
    titles = {"miou": title_of("miou"), "miou_tta": tta_title("miou")}
    fields = [_score("miou", on, Column(key, titles[key], "share")) for key, on in ways.items()]
    rest = [name for name in METRICS if name != "miou"]
    return fields + [_score(name, ScoredOn(part), Column(name, title_of(name), kind_of(name))) for name in rest]


def _scores_of_images(on: ScoredOn) -> list[Field]:
    return [
        *(_score(name, on, Column(name, title_of(name), kind_of(name))) for name in SHOWN),
        (Column("monitor", "monitored"), lambda run: run.metrics and run.metrics.monitor.name),
        (Column("monitored", "best monitored", "value"), lambda run: run.metrics and run.metrics.monitor.value),
    ]


def _score(name: str, on: ScoredOn, column: Column) -> Field:
    def read(run: Run) -> float | None:
        scores = Scores.of_run(run, on)
        return None if scores is None else scores.overall[name]

    return column, read


def _num_images(run: Run, on: ScoredOn) -> int | None:
    stored, pictures = run.stored(on), counted(run, on) if run.of_images else None
    return len(pictures.ids) if stored and pictures else stored.num_images if stored else None


def fold_name(model: Model, fold: int) -> str:
    """Its number, and the group that was left out if there is one."""
    names = [each.name for each in model.split.folds] if model.split else []
    return f"{fold}: {names[fold]}" if fold < len(names) and names[fold] != str(fold) else str(fold)


def phases_table(models: Sequence[Model]) -> Table | None:
    """One row per run and phase, also of unfinished runs; none where no run has phases."""
    rows: list[Sequence[Cell]] = []
    for model in models:
        used = {run.folder for run in model.finished.values()}
        for run in sorted(model.runs, key=lambda run: (run.fold, run.seed, str(run.folder))):
            if run.status == "finished" and run.folder not in used:
                continue  # a newer one took its place
            for name, phase in run.events.phases.items():
                row: list[Cell] = [model.label, str(run.fold), run.seed, name, str(phase.get("status", "unknown"))]
                row += [phase.get(key) for key in ("epochs", "monitor", "value")]
                row.append(phase["epoch"] + 1 if "epoch" in phase else None)
                row.append((phase.get("refinement") or {}).get("drift"))
                rows.append([*row, phase.get("wall_time_s"), phase.get("note")])
    columns = [Column("model", "model"), Column("fold", "fold"), Column("seed", "seed", "count")]
    columns += [Column("phase", "phase"), Column("status", "status"), Column("epochs", "epochs", "count")]
    columns += [Column("monitor", "monitored"), Column("value", "best value", "value")]
    columns += [Column("epoch", "best epoch", "count"), Column("drift", "pixels of the labels changed (%)", "share")]
    columns += [Column("wall_time_s", "time (h:m:s)", "seconds"), Column("note", "note")]
    caption = (
        "Phases of the training, each from the best checkpoint of the one before; a phase counts its own epochs, "
        "from 1; 0 is what it began with. "
        "The run's scores are those after the last phase that was trained."
    )
    return Table("phases", caption, columns, rows) if rows else None


def picture_table(models: Sequence[Model], on: ScoredOn) -> Table:
    """Per-image mIoU of every model, the worst mean first; several runs that saw a picture are averaged."""
    ready = [model for model in models if model.finished]
    scores = {model.label: _scores(model, on) for model in ready}
    groups = {
        name: row.group
        for model in ready
        for run in model.finished.values()
        for name, row in run.images.get(on, {}).items()
    }
    columns = [Column("picture", "picture"), Column("group", "group")]
    columns += [Column(f"miou_{i + 1}", f"{model.label} (%)", "share") for i, model in enumerate(ready)]
    columns += [Column("mean", "mean (%)", "share"), Column("gap", "gap (points)", "share")]
    rows: list[list[Cell]] = []
    for name, group in groups.items():
        values = [each.get(name) for each in scores.values()]
        known = [value for value in values if value is not None and not math.isnan(value)]
        gap = max(known) - min(known) if known else None
        rows.append([name, group, *values, sum(known) / len(known) if known else None, gap])
    rows.sort(key=lambda row: (row[-2] is None, row[-2] or 0.0, row[0]))
    caption = (
        f"Per-image mIoU, {on.part} part, {on.inference} inference: over the classes of the picture, so not the mean "
        "of the pooled scores. Gap: the best model less the worst."
    )
    return Table("pictures", caption, columns, rows)


def _scores(model: Model, on: ScoredOn) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    runs: list[Run] = list(model.finished.values())
    for run in runs:
        for name, row in run.images.get(on, {}).items():
            found.setdefault(name, []).append(row.miou)
    return {name: mean_std(values).mean for name, values in found.items()}


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
