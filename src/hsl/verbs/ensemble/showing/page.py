"""What `hsl ensemble` shows of its heads."""

import os
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np

from hsl.ensembles.calibration import calibration_of, conformal_sets, fit_temperature
from hsl.ensembles.diversity import disagreement, q_statistic, share_with_one_right, wrong_ids
from hsl.ensembles.isolation import Status
from hsl.ensembles.rows import Rows
from hsl.inference.combining import tempered
from hsl.reports.page.sections_page import PageSection, write_sections_page
from hsl.reports.page.thumbnails import Picture
from hsl.reports.plots.cost_plot import Costed, cost_plot
from hsl.reports.plots.plot_files import Plot
from hsl.reports.statistics.comparisons import pooled_estimates
from hsl.reports.tables.score_tables import Cell, Table, interval_cell
from hsl.reports.tables.titles import kind_of, title_of
from hsl.run_folder.ensemble import StoredEnsemble, StoredMember, read_isolation
from hsl.run_folder.run import ScoredOn
from hsl.verbs.ensemble.planning.planned import read_by
from hsl.verbs.ensemble.showing.error_pictures import error_sections
from hsl.verbs.ensemble.showing.tables import (
    asked_table,
    chosen_table,
    class_gains,
    matrix_table,
    record_table,
    stage_table,
)
from hsl.verbs.ensemble.stages.head_work import HeadSettings, HeadWork
from hsl.verbs.ensemble.stages.judging import BASELINES

LEVEL = 0.9
SHOWN_BY = (
    "These commands show the pictures that all members get wrong, or one alone, and where the members look; one for "
    "each fold, whose validation pictures no member of it was trained on."
)
NAMED = 20  # ids in a sentence


def write_page(
    output: Path,
    place: Path,
    page: StoredEnsemble,
    works: Sequence[HeadWork],
    picture_of: Callable[[str], Picture],
) -> None:
    """Write ``index.html`` of an ensemble.

    Args:
        output: where it is written.
        place: the folder of the ensemble, from which the folders of its members are told.
        page: its content.
        works: what came of its heads.
        picture_of: reads a picture by its id, see `hsl.verbs.ensemble.showing.error_pictures.error_sections`.
    """
    facts = [
        f"{len(page.members)} members, {len(next(iter(page.members.values())).runs)} folds each. Every score below is "
        "nested: what was fitted, fitted on other groups; made with hsl ensemble."
    ]
    if page.epochs_chosen_on_rows:
        facts.append(
            "Epochs were chosen on these rows: no part was set apart for early stopping (data.split.stop_fraction=0), "
            "so every score is a little too high, of single members and of combinations alike."
        )
    heads = {
        f"Head {work.head.name}": _sections(output / work.head.name, place, page, work, picture_of) for work in works
    }
    answers = {work.head.name: [work.judgement.sentence] for work in works}
    title = f"Ensemble on {page.data or 'unnamed data set'}"
    write_sections_page(output / "index.html", title, facts, answers, heads)


def _sections(
    folder: Path, place: Path, page: StoredEnsemble, work: HeadWork, picture_of: Callable[[str], Picture]
) -> list[PageSection]:
    settings = work.settings
    metric, head = settings.metric, work.head.name
    ranked = [stage_table(work.models, work.variants, work.judgement, metric, head)]
    shown = [name for name in dict.fromkeys((*BASELINES, work.judgement.recommended)) if name in work.variants]
    score = "f1" if work.head.kind == "image" else "iou"
    sections = [
        PageSection("Stages side by side", tables=ranked),
        PageSection("Score against cost", plots=_costs(page, work, metric)),
        PageSection("By class", tables=[class_gains(work.models, shown, score, head)]),
        PageSection("Members", tables=_members(page, work, metric)),
    ]
    if work.head.kind == "image":
        sections += [
            PageSection("How unlike the members are", _diversity(_base_rows(work)), tables=_unlike(work)),
            PageSection("Pictures that members get wrong", SHOWN_BY, commands=_analyses(place, page, work)),
            *error_sections(_base_rows(work), picture_of),
            PageSection("Calibration", tables=_calibration(work, settings)),
        ]
    else:
        sections.append(PageSection("How unlike the members are, on sampled pixels", tables=_unlike(work)))
    if work.tested:
        sections.append(PageSection("Test part, read once at the end", tables=[_tested(work, settings)]))
    checks = read_isolation(folder)
    kinds = dict.fromkeys(("stage", "check", "status", "found"), "text")
    counts = Counter(check["status"] for check in checks)
    text = ", ".join(f"{counts[status]} {status}" for status in get_args(Status) if counts[status])
    table = record_table(f"isolation_{head}", "What each stage could know of what it is scored on.", checks, kinds)
    return [*sections, PageSection("Isolation audit", f"{text}.", tables=[table])]


def _costs(page: StoredEnsemble, work: HeadWork, metric: str) -> list[Plot]:
    """By parameters and, where every member was timed, by time; all members of a combination predict every picture."""

    def plot(unit: str, name: str, cost: Callable[[StoredMember], float]) -> Plot:
        costs = []
        for model in work.models:
            if (estimate := work.judgement.estimates.get(model.label)) is None:
                continue
            members = [page.members[name] for name in work.variants[model.label].members]
            interval = (estimate.interval.low, estimate.interval.high) if estimate.interval else None
            total = sum(cost(one) * len(one.runs) for one in members)
            costs.append(Costed(model.label, estimate.mean, interval, total))
        return cost_plot(costs, metric, unit, f"{name}_{work.head.name}")

    kind, known = work.head.kind, [page.members[name].picture_seconds for name in work.rows.members]
    plots = [plot("million parameters that predict", "cost", lambda one: one.parameters / 1e6)]
    if all(kind in one for one in known):
        unit = "milliseconds per picture that all folds of the members take"
        plots.append(plot(unit, "time", lambda one: 1000 * one.picture_seconds[kind]))
    return plots


def _members(page: StoredEnsemble, work: HeadWork, metric: str) -> list[Table]:
    on = ScoredOn("val")
    kinds = {"member": "text", metric: kind_of(metric), "parameters_in_millions": "value", "training_time": "seconds"}
    kinds["milliseconds_per_picture"] = "value"
    records: list[dict[str, Cell]] = []
    for model in work.single:
        member = page.members[model.label.partition("/")[2]]
        spent = member.picture_seconds.get(work.head.kind)
        values = (member.label, model.summary(metric, on), member.parameters / 1e6, member.seconds,
                  None if spent is None else 1000 * spent)  # fmt: skip
        records.append(dict(zip(kinds, values, strict=True)))
    caption = (
        f"{title_of(metric)} over folds, by themselves. Parameters are of one fold, the training time is of all. The "
        "time of a picture is that of one fold, taken while rows were made: of an image head the way to the pooled "
        "features, of a dense head that to the maps."
    )
    tables = [record_table(f"members_{work.head.name}", caption, records, kinds)]
    labels = {name: page.members[name].label for name in _base_rows(work).members}
    taken = chosen_table({name: work.variants[name] for name in work.variants}, labels, work.head.name)
    asked = asked_table(work.variants, work.head.name)
    return [*tables, *(one for one in (taken, asked) if one is not None)]


def _base_rows(work: HeadWork) -> Rows:
    """Of the members that were trained for no stage."""
    return work.rows.of_members(read_by("", work.rows.members))


def _analyses(place: Path, page: StoredEnsemble, work: HeadWork) -> list[str]:
    """A command of each fold, since `hsl analyze` takes runs of one."""
    members = [page.members[name] for name in _base_rows(work).members]
    commands = []
    for fold in sorted(members[0].runs):
        runs = ",".join(os.path.normpath(place / one.runs[fold].folder) for one in members)
        commands.append(shlex.join(["hsl", "analyze", f"runs=[{runs}]", f"output=outputs/analysis/fold{fold}"]))
    return commands


def _diversity(rows: Rows) -> str:
    found = wrong_ids(rows)
    text = (
        f"At least one member is right on {100 * share_with_one_right(rows):.1f} % of the pictures: no choice among "
        f"them scores higher. All are wrong on {len(found['all'])} pictures"
    )
    return f"{text}{_named(found['all'])}; one alone is wrong on {len(found['one'])}{_named(found['one'])}."


def _named(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return f" ({', '.join(ids[:NAMED])}{more})" if ids else ""


def _unlike(work: HeadWork) -> list[Table]:
    head, rows = work.head.name, _base_rows(work)
    pairs = (
        ("disagreement", "Share of pictures on which two members give unlike answers.", disagreement(rows)),
        (
            "q",
            "Q statistic: 1, they err on the same pictures; 0, as if independent.",
            q_statistic(rows),
        ),
    )
    return [matrix_table(f"{name}_{head}", text, rows.members, values) for name, text, values in pairs]


def _calibration(work: HeadWork, settings: HeadSettings) -> list[Table]:
    """Before and after a temperature that was fitted on the other parts; conformal sets by the other parts."""
    rows, nested = work.rows, work.variants[work.judgement.recommended].nested
    records: list[dict[str, Cell]] = [{"probabilities": "as combined", **calibration_of(nested, rows)}]
    if settings.calibration != "none":
        scaled, temperatures = np.array(nested), []
        for number in np.unique(work.parts):
            others = work.parts != number
            temperatures.append(fit_temperature(nested[others], rows.take(others)))
            part = ~others
            scaled[part] = tempered(nested[part], temperatures[-1], rows.several)
        told = f"after temperature {min(temperatures):.2f} to {max(temperatures):.2f}"
        records.append({"probabilities": told, **calibration_of(scaled, rows)})
    kinds = {"probabilities": "text", "ece": "value", "nll": "value", "brier": "value"}
    caption = f"{work.judgement.recommended}: nested probabilities; a temperature is that of the other parts."
    sets = conformal_sets(nested, rows, work.parts, LEVEL)
    record = {
        "level": LEVEL,
        "coverage": sets.coverage,
        "set_size": sets.mean_size,
        "one_class": sets.certain,
    }
    columns = {"level": "share", "coverage": "share", "set_size": "value", "one_class": "share"}
    text = "Conformal sets, split by group: share of the groups' pictures whose class lies in the set."
    head = work.head.name
    return [
        record_table(f"calibration_{head}", caption, records, kinds),
        record_table(f"conformal_{head}", text, [record], columns),
    ]


def _tested(work: HeadWork, settings: HeadSettings) -> Table:
    metric = settings.metric
    once = [replace(model, finished=dict(list(model.finished.items())[:1])) for model in work.tested]
    found = pooled_estimates(once, ScoredOn("test"), settings.resamples, settings.seed, metric)
    records: list[dict[str, Cell]] = [
        {
            "stage": label,
            metric: estimate.mean,
            "interval": interval_cell(estimate.interval, kind_of(metric)),
            "groups": estimate.num_units,
        }
        for label, estimate in found.items()
    ]
    caption = f"{title_of(metric)} of what was fitted on all rows; a member's probabilities are the mean of its folds."
    kinds = {"stage": "text", metric: kind_of(metric), "interval": "interval", "groups": "count"}
    return record_table(f"test_{work.head.name}", caption, records, kinds)
