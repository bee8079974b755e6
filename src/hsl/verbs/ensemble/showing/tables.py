"""The tables of an ensemble's page."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hsl.reports.models import Model
from hsl.reports.statistics.comparisons import Comparison
from hsl.reports.statistics.ranking import short_verdict
from hsl.reports.tables.score_tables import NONE, Cell, Column, Table, interval_cell
from hsl.reports.tables.titles import difference_kind, kind_of, title_of
from hsl.run_folder.run import ScoredOn
from hsl.verbs.ensemble.stages.judging import BASELINES, Recommendation
from hsl.verbs.ensemble.stages.variants import BEST, INDIVIDUAL, Variant, shares

ON = ScoredOn("val")


def stage_table(
    models: Sequence[Model], variants: Mapping[str, Variant], judged: Recommendation, metric: str, head: str
) -> Table:
    """A row per variant: nested score, how it stands against the two baselines, and what it needs."""
    bases = [model.label for model in models if model.label in BASELINES]
    unit = " (points)" if kind_of(metric) == "share" else ""
    columns = [
        Column("stage", "stage"),
        Column(metric, f"{title_of(metric)}, pooled", kind_of(metric)),
        Column("interval", "95 % interval", "interval"),
        Column("folds", "mean over folds", kind_of(metric)),
        *(
            column
            for base in bases
            for column in (
                Column(f"difference_{base}", f"to {base}{unit}", difference_kind(metric)),
                Column(f"interval_{base}", "adjusted interval", "interval"),
                Column(f"verdict_{base}", f"against {base}"),
            )
        ),
        Column("gap", f"fitted less nested{unit}", "points"),
        Column("members", "members read", "count"),
        Column("seconds", "fitted in (s)", "value", more=True),
    ]
    rows = []
    for model in models:
        variant, estimate = variants[model.label], judged.estimates.get(model.label)
        row: list[Cell] = [model.label, estimate.mean if estimate else None]
        row += [interval_cell(estimate.interval if estimate else None, kind_of(metric)), model.summary(metric, ON)]
        for base in bases:
            row += _against(model.label, base, judged.comparisons, metric)
        rows.append([*row, variant.gap, len(variant.members), variant.seconds])
    caption = (
        f"Head {head}: {title_of(metric)} of nested predictions: each was made by what was fitted on the other groups. "
        "Differences and verdicts against the best single member, itself chosen nested, and the plain mean hold "
        "together, adjusted for all of them."
    )
    return Table(f"stages_{head}", caption, columns, rows)


def _against(label: str, base: str, comparisons: Sequence[Comparison], metric: str) -> list[Cell]:
    pair = next((one for one in comparisons if {one.first, one.second} == {label, base}), None)
    if pair is None:
        return [None, None, NONE]
    if pair.score is None:
        return [None, None, short_verdict(pair, label)]
    sign, adjusted = 1 if pair.first == label else -1, pair.score.adjusted
    shown = None
    if adjusted is not None:
        shown = type(adjusted)(sign * adjusted.mean, *sorted((sign * adjusted.low, sign * adjusted.high)))
    return [sign * pair.score.mean, interval_cell(shown, difference_kind(metric)), short_verdict(pair, label)]


def class_gains(models: Sequence[Model], chosen: Sequence[str], score: str, head: str) -> Table:
    """Per class the score of some variants, pooled, and what each gains over the first of them."""
    by_label = {model.label: model for model in models}
    pooled = {label: by_label[label].pooled(ON) for label in chosen}
    classes = by_label[chosen[0]].classes
    columns = [Column("class", "class"), *(Column(label, label, "share") for label in chosen)]
    columns += [Column(f"gain_{label}", f"{label} less {chosen[0]} (points)", "points") for label in chosen[1:]]
    rows: list[list[Cell]] = []
    for i, name in enumerate(classes):
        values = [float(found.per_class[score][i]) if found else None for found in pooled.values()]
        first = values[0]
        gains = [None if value is None or first is None else value - first for value in values[1:]]
        rows.append([name, *values, *gains])
    caption = f"Head {head}: {title_of(score)} of each class, nested, pooled over folds."
    return Table(f"classes_{head}", caption, columns, rows)


def chosen_table(variants: Mapping[str, Variant], members: Mapping[str, str], head: str) -> Table | None:
    """How often, and with which weight, each member was taken, by the variants that choose; none where none does."""
    taken = {name: found for name, variant in variants.items() if (found := _taken(variant)) is not None}
    if not taken:
        return None
    columns = [Column("member", "member")]
    for name in taken:
        columns += [Column(f"{name}_times", f"{name}: of {len(variants[name].choices)} parts", "count")]
        columns += [Column(f"{name}_weight", "final weight", "value")]
    rows: list[list[Cell]] = []
    for member, label in members.items():
        row: list[Cell] = [label]
        for name, (times, weights) in taken.items():
            del name
            row += [times.get(member, 0), weights.get(member, 0.0)]
        rows.append(row)
    caption = f"Head {head}: members that were chosen on the other groups of each part, and in the end."
    return Table(f"chosen_{head}", caption, columns, rows)


def asked_table(variants: Mapping[str, Variant], head: str) -> Table | None:
    """Of stages whose members do not all answer alike: who is asked about which share of pictures; none without one."""
    kinds = {"stage": "text", "member": "text", "asked_about": "share", "unsure_below": "value", "weight": "value"}
    records: list[dict[str, Cell]] = []
    for name, variant in variants.items():
        notes = variant.notes
        if "referee" in notes:
            records.append({"stage": name, "member": notes["referee"], "asked_about": notes["consulted"]})
        elif "thresholds" in notes:
            for member, share in notes["consulted"].items():
                below = notes["thresholds"].get(member)
                records.append({"stage": name, "member": member, "asked_about": share, "unsure_below": below})
        records += [{"stage": name, "member": one, "weight": value} for one, value in notes.get("alphas", {}).items()]
    caption = (
        f"Head {head}: share of the pictures that a member of a cascade is asked about, and the confidence below which "
        "the next one is; share that a referee decides; weights of boosting. As fitted on all rows."
    )
    return record_table(f"asked_{head}", caption, records, kinds) if records else None


def _taken(variant: Variant) -> tuple[Counter[str], dict[str, float]] | None:
    final = shares(variant.notes)
    if final is None or (variant.stage == INDIVIDUAL and variant.name != BEST):
        return None
    times = Counter(name for notes in variant.choices for name, weight in (shares(notes) or {}).items() if weight > 0)
    return times, final


def matrix_table(name: str, caption: str, labels: Sequence[str], values: Any) -> Table:
    """A symmetric matrix ``(M, M)`` of numbers between members."""
    columns = [Column("member", "member"), *(Column(f"to_{i}", label, "value") for i, label in enumerate(labels))]
    rows: list[list[Cell]] = [[label, *map(float, row)] for label, row in zip(labels, np.asarray(values), strict=True)]
    return Table(name, caption, columns, rows)


def record_table(name: str, caption: str, records: Sequence[Mapping[str, Cell]], kinds: Mapping[str, str]) -> Table:
    """A row per record; ``kinds`` gives the columns in their order: key -> kind, titles are the keys in words."""
    columns = [Column(key, key.replace("_", " "), kind) for key, kind in kinds.items()]
    return Table(name, caption, columns, [[record.get(key) for key in kinds] for record in records])
