"""The page of a gate: what it accepts and refuses, by class and kind, where its scores lie, and the closest calls."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hsl.exporting.gate import Gate
from hsl.exporting.gate_fit import GateRows, HeldOut, wilson_interval
from hsl.reports.page.galleries import View
from hsl.reports.page.sections_page import PageSection, write_sections_page
from hsl.reports.page.thumbnails import class_map, photo
from hsl.reports.plots.palette import SERIES
from hsl.reports.plots.plot_files import INK, REPORT_STYLE, Plot
from hsl.reports.plots.score_plots import WIDTH, settled
from hsl.reports.statistics.paired_tests import Interval
from hsl.reports.tables.score_tables import Column, Table, interval_cell
from hsl.verbs.gate.foreign import Foreign
from hsl.verbs.gate.out_of_fold import Voters, mask_of

GOAL = 0.98
HELD, FOREIGN = "held-out pictures", "foreign pictures"
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Shown:
    """What the page is made of: the rows, how other folds judged them, the models, foreign pictures, tiles a side."""

    rows: GateRows
    judged: HeldOut
    voters: Voters
    foreign: Sequence[Foreign]
    nearest: int


def write_gate_page(folder: Path, gate: Gate, shown: Shown) -> None:
    """Write ``index.html``."""
    facts = [
        gate.chosen,
        f"{len(shown.rows.ids)} pictures in {len(set(shown.rows.groups))} groups, each predicted by the fold that was "
        "not trained on it and judged by thresholds and a reference that other folds set; the test part was not "
        "touched. Made with hsl gate.",
        f"Features: {gate.encoder.name}, frozen, {gate.encoder.source}, SHA-256 {gate.encoder.sha256[:12]}. "
        f"Reference {gate.calibration.reference_pictures} pictures, calibrated on "
        f"{gate.calibration.calibration_groups} other groups.",
    ]
    tables = [acceptance_table(shown.rows, shown.judged)]
    tables += [rejection_table(shown.foreign)] if shown.foreign else []
    parts = {
        "Accepted and rejected": [PageSection("Held-out pictures by class", tables=tables[:1])],
        "Scores": [PageSection("Both scores, and their thresholds", plots=[*_plots(gate, shown)])],
        "Nearest the threshold": _sheets(gate, shown),
        "Thresholds": [PageSection("As gate.json holds them", tables=[_thresholds(gate)])],
    }
    if shown.foreign:
        parts["Accepted and rejected"].append(PageSection("Foreign pictures by kind", tables=tables[1:]))
    title = f"Gate of {gate.calibration.data}"
    write_sections_page(folder / "index.html", title, facts, {"gate": _answer(shown)}, parts)


def _answer(shown: Shown) -> list[str]:
    accepted = shown.judged.accepted
    share, (low, high) = _share(accepted, shown.rows.groups)
    met = "meets" if share >= GOAL else "misses"
    sentences = [
        f"The gate accepts {accepted.sum()} of {len(accepted)} held-out pictures, {share:.1%} [{low:.1%}, {high:.1%}]: "
        f"it {met} the goal of {GOAL:.0%}."
    ]
    if shown.foreign:
        refused = [not one.verdict.accepted for one in shown.foreign]
        ends = wilson_interval(float(np.mean(refused)), len(refused))
        sentences.append(
            f"It refuses {sum(refused)} of {len(refused)} foreign ones, {np.mean(refused):.1%} [{ends[0]:.1%}, "
            f"{ends[1]:.1%}]; the goal is all."
        )
    else:
        sentences.append("No foreign pictures were given: what it refuses is not known. Name some with `foreign=`.")
    return sentences


def _share(hits: Flags, groups: Sequence[str]) -> tuple[float, tuple[float, float]]:
    share = float(hits.mean())
    return share, wilson_interval(share, len(set(groups)))


def acceptance_table(rows: GateRows, judged: HeldOut) -> Table:
    """Accepted and rejected held-out pictures, by image class and in all."""
    columns = [
        Column("class", "class"), Column("pictures", "pictures", "count"), Column("groups", "groups", "count"),
        Column("accepted", "accepted", "count"), Column("rejected", "rejected", "count"),
        Column("share", "accepted (%)", "share"), Column("interval", "95 % interval", "interval"),
        Column("segmentation", "rejected by the segmentation", "count"),
        Column("features", "rejected by the features", "count"),
    ]  # fmt: skip
    names = sorted({name for labels in rows.labels for name in labels})
    masks = {name: np.array([name in labels for labels in rows.labels]) for name in names if len(names) > 1}
    cells: list[list[Any]] = []
    for name, mask in {**masks, "all": np.ones(len(rows.ids), bool)}.items():
        groups = [group for group, inside in zip(rows.groups, mask, strict=True) if inside]
        accepted = judged.accepted[mask]
        share, ends = _share(accepted, groups)
        cells.append(
            [
                name, int(mask.sum()), len(set(groups)), int(accepted.sum()), int((~accepted).sum()), share,
                interval_cell(Interval(share, *ends), "share"), int((~judged.segmentation[mask]).sum()),
                int((~judged.feature[mask]).sum()),
            ]
        )  # fmt: skip
    caption = (
        "Intervals of 95 % by Wilson's score, with the number of groups, as if the pictures of a group agreed. A "
        "picture may be rejected by both rules."
    )
    return Table("accepted", caption, columns, cells)


def rejection_table(foreign: Sequence[Foreign]) -> Table:
    """Rejected and accepted foreign pictures, by kind and in all."""
    columns = [
        Column("kind", "kind"), Column("pictures", "pictures", "count"), Column("rejected", "rejected", "count"),
        Column("accepted", "accepted", "count"), Column("share", "rejected (%)", "share"),
        Column("interval", "95 % interval", "interval"), Column("segmentation", "by the segmentation", "count"),
        Column("features", "by the features", "count"),
    ]  # fmt: skip
    cells: list[list[Any]] = []
    kinds = dict.fromkeys(one.kind for one in foreign)
    for kind in [*kinds, "all"]:
        own = [one.verdict for one in foreign if kind in (one.kind, "all")]
        rejected = sum(not one.accepted for one in own)
        far = sum(any(reason.startswith("The distance") for reason in one.reasons) for one in own)
        dense = sum(any(not reason.startswith("The distance") for reason in one.reasons) for one in own)
        share = rejected / len(own)
        interval = interval_cell(Interval(share, *wilson_interval(share, len(own))), "share")
        cells.append([kind, len(own), rejected, len(own) - rejected, share, interval, dense, far])
    caption = "Judged by the model of the first fold. Intervals of 95 % by Wilson's score, of pictures."
    return Table("rejected", caption, columns, cells)


def _thresholds(gate: Gate) -> Table:
    rule = gate.segmentation
    columns = [Column("rule", "rule"), Column("threshold", "threshold", "value"), Column("from", "set from")]
    percentile = f"percentile {gate.calibration.percentile:g} of {{}} pictures, out of fold"
    cells: list[list[Any]] = [
        [f"least share of foreground, {name}", rule.thresholds.get(name, rule.default),
         percentile.format(number) if name in rule.thresholds else f"default: {number} pictures are too few"]
        for name, number in ((name, int(number)) for name, number in gate.calibration.pictures.items())
    ]  # fmt: skip
    cells.append(["least share of the largest region", rule.min_component, "setting"])
    for name in rule.signals:
        cells.append([f"or a region as large of {name}, probability", rule.min_signal_confidence, "setting"])
    set_from = f"{gate.feature.coverage:g} of new groups, over {gate.calibration.calibration_groups} groups"
    cells.append([f"largest distance, {gate.feature.distance}", gate.feature.threshold, set_from])
    return Table("thresholds", "Set on all pictures outside the test part.", columns, cells)


def _plots(gate: Gate, shown: Shown) -> list[Plot]:
    foreign = [one.verdict.scores for one in shown.foreign]
    limits = list(gate.segmentation.thresholds.values()) or [gate.segmentation.default]
    by_class = f" (by class, {min(limits):.3f} to {max(limits):.3f})" if len(limits) > 1 else ""
    held = "Held-out pictures are judged out of fold, where thresholds differ a little."
    shares = f"Share of foreground; a line is a threshold of gate.json{by_class}. {held}"
    far = f"Distance of the generic features to the reference; the line is the threshold of gate.json. {held}"
    return [
        _histogram("foreground", "share of foreground", shown.rows.scores["foreground"], foreign, limits, shares),
        _histogram("distance", "distance", shown.judged.distances, foreign, [gate.feature.threshold], far),
    ]


def _histogram(
    key: str, title: str, held: NDArray[np.float64], foreign: Sequence[Mapping[str, float]], limits: Sequence[float],
    caption: str,
) -> Plot:  # fmt: skip
    series = {HELD: held, **({FOREIGN: np.array([one[key] for one in foreign])} if foreign else {})}
    every = np.concatenate([*series.values(), limits])
    edges = np.linspace(every.min(), every.max() + 1e-9, 41)
    counts = {name: np.histogram(values, edges)[0] for name, values in series.items()}
    with matplotlib.rc_context(REPORT_STYLE):
        figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
        axes = figure.add_subplot()
        for (name, number), colour in zip(counts.items(), SERIES, strict=False):
            axes.stairs(100 * number / number.sum(), edges, fill=True, color=colour, alpha=0.55, label=name)
        for limit in limits:
            axes.axvline(limit, color=INK, linewidth=1, linestyle=(0, (4, 2)))
        axes.set(xlabel=title, ylabel="pictures (%)")
        axes.legend(frameon=False)
        settled(figure)
    rows = [(name, float(a), float(b), int(n)) for name, number in counts.items()
            for a, b, n in zip(edges[:-1], edges[1:], number, strict=True)]  # fmt: skip
    return Plot(key, caption, figure, ("pictures", "from", "to", "count"), rows)


def _sheets(gate: Gate, shown: Shown) -> list[PageSection]:
    """For each rule and side, the pictures nearest to its threshold, of all held-out and foreign ones."""
    judged, found = shown.judged, []
    for title, key, margins, foreign_margin in (
        ("segmentation", "foreground", shown.rows.scores["foreground"] - judged.limits, _foreground_margin),
        ("features", "distance", judged.thresholds - judged.distances, _distance_margin(gate)),
    ):
        inside = judged.segmentation if key == "foreground" else judged.feature
        for side, flags in (("accepted", inside), ("rejected", ~inside)):
            places = sorted(np.flatnonzero(flags).tolist(), key=lambda i: abs(margins[i]))[: shown.nearest]
            views = [view for i in places for view in _views(shown, i, key)]
            of_foreign = sorted(
                (one for one in shown.foreign if (foreign_margin(one) >= 0) == (side == "accepted")),
                key=lambda one: abs(foreign_margin(one)),
            )[: shown.nearest]
            views += [_foreign_view(one, key) for one in of_foreign]
            text = "" if views else "There is none."
            found.append(PageSection(f"{side.capitalize()} by the {title} rule", text, views=views))
    return found


def _foreground_margin(one: Foreign) -> float:
    return one.verdict.scores["foreground"] - one.verdict.scores["threshold"]


def _distance_margin(gate: Gate) -> Callable[[Foreign], float]:
    return lambda one: gate.feature.threshold - one.verdict.scores["distance"]


def _views(shown: Shown, place: int, key: str) -> list[View]:
    """The picture and, for the rule that looks at it, its mask."""
    name = shown.rows.ids[place]
    value = shown.judged.distances[place] if key == "distance" else shown.rows.scores["foreground"][place]
    limit = shown.judged.thresholds[place] if key == "distance" else shown.judged.limits[place]
    of = ", ".join(shown.rows.labels[place])
    title = f"{name}, {of}: {value:.3f} (threshold {limit:.3f})"
    image = next(shown.voters.images([name]))
    views = [View(title, f"picture {name}", photo(image))]
    if key == "foreground":
        views.append(View("its mask", f"mask of {name}", class_map(mask_of(shown.voters, name))))
    return views


def _foreign_view(one: Foreign, key: str) -> View:
    return View(f"foreign, {one.kind}: {one.verdict.scores[key]:.3f}", f"{one.kind} {one.name}", photo(one.image))
