"""Tables of a report: how they are written, and what stands in each."""

import csv
import io
import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hsl.reports.models import models_of
from hsl.reports.page.notes import notes_on
from hsl.reports.statistics.comparisons import compare
from hsl.reports.statistics.paired_tests import Summary
from hsl.reports.statistics.part_tests import PartCounts, compare_parts
from hsl.reports.statistics.ranking import ranked, ranking_table
from hsl.reports.tables.class_tables import per_class_table
from hsl.reports.tables.comparison_tables import pairwise_classes_table, pairwise_table, parts_of, parts_table
from hsl.reports.tables.run_tables import cost_of, family, family_table, folds_table, phases_table
from hsl.reports.tables.score_tables import (
    Column,
    Table,
    latex_text,
    markdown_row,
    markdown_text,
    markdown_texts,
    text_of,
    write_table,
)
from hsl.run_folder.provenance import PartTests, write_parts
from hsl.run_folder.run import ScoredOn, gather

TABLE = Table(
    "ranking",
    "Scores of 50 % & more.",
    [Column("model", "model"), Column("miou", "mIoU (%)", "share"), Column("images", "pictures", "count")],
    [
        ["mit_b0 | x", Summary(0.5, 0.125, 3), 12],
        ["a", Summary(0.25, math.nan, 1), None],
        ["b", Summary(math.nan, math.nan, 0), 3],
    ],
)
HOSTILE = "<img src=x onerror=alert(1)> [a](javascript:b) [c]: d &lt; \x1b[2J\u202e"
SHOWN = "&lt;img src=x onerror=alert(1)> [a]\\(javascript:b) [c]\\: d &amp;lt; \\x1b[2J\\u202e"
THREE = [[50, 0, 0], [0, 50, 0], [0, 0, 50]]
PHASES = {
    "A": {"status": "finished", "epochs": 30, "monitor": "val/miou", "value": 0.71, "epoch": 21, "wall_time_s": 61.0},
    "B": {"status": "reverted", "epochs": 12, "monitor": "val/accuracy", "value": 0.9, "epoch": -1},
    "C": {"status": "skipped", "note": "phase B was reverted"},
}
RIGHT = {"a": [[50, 0, 0], [0, 50, 0], [0, 0, 0]], "b": [[40, 10, 0], [0, 50, 0], [0, 0, 0]]}
RIGHT["c"] = [[30, 20, 0], [0, 50, 0], [0, 0, 0]]
NAMES = {"a": "tu-convnext_tiny.fb_in1k", "b": "mit_b2", "c": "resnet50"}


def test_csv_holds_full_precision_and_no_text_for_missing_values():
    rows = list(csv.reader(io.StringIO(TABLE.to_csv())))
    assert rows == [
        ["model", "miou_mean", "miou_std", "miou_num", "images"],
        ["mit_b0 | x", "0.5", "0.125", "3", "12"],
        ["a", "0.25", "", "1", ""],
        ["b", "", "", "0", "3"],
    ]


def test_markdown():
    assert TABLE.to_markdown().splitlines() == [
        "Scores of 50 % & more.",
        "",
        "| model | mIoU (%) | pictures |",
        "| :--- | ---: | ---: |",
        "| mit_b0 \\| x | 50.00 ± 12.50 | 12 |",
        "| a | 25.00 (1 fold) | – |",
        "| b | – | 3 |",
    ]


def test_latex():
    assert TABLE.to_latex() == "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            r"\caption{Scores of 50 \% \& more.}",
            r"\label{tab:ranking}",
            r"\begin{tabular}{lrr}",
            r"\toprule",
            r"model & mIoU (\%) & pictures \\",
            r"\midrule",
            r"mit\_b0 | x & 50.00 $\pm$ 12.50 & 12 \\",
            r"a & 25.00 (1 fold) & -- \\",
            r"b & -- & 3 \\",
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


@pytest.mark.parametrize(
    ("cell", "kind", "text"),
    [
        (0.61234, "share", "61.23"),
        (-0.0123, "points", "-1.23"),
        (0.0123, "points", "+1.23"),
        (0.0, "p", "<0.0001"),
        (0.04567, "p", "0.0457"),
        (3725.4, "seconds", "1:02:05"),
        (59.6, "seconds", "0:01:00"),
        (None, "count", "–"),
        (math.nan, "p", "–"),
        ("[+1, +2]", "interval", "[+1, +2]"),
        (7, "count", "7"),
        (0.12345, "value", "0.1235"),
        (0.5, "signed", "+0.5000"),
        (-0.456, "effect", "-0.46"),
        (12.345, "pixels", "12.35"),
        (Summary(0.5, 0.25, 3), "value", "0.5000 ± 0.2500"),
        (Summary(0.5, math.nan, 1), "pictures", "0.5000 (1 picture)"),
    ],
)
def test_text_of(cell, kind, text):
    assert text_of(cell, kind) == text


def test_every_special_letter_is_escaped():
    assert latex_text(r"a_b\c{d}#$%&~^") == (r"a\_b\textbackslash{}c\{d\}\#\$\%\&\textasciitilde{}\textasciicircum{}")


def test_write_table(tmp_path):
    write_table(TABLE, tmp_path / "tables")
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == [
        "ranking.csv",
        "ranking.md",
        "ranking.tex",
    ]


def test_a_row_of_another_length_is_an_error():
    table = Table("x", "", [Column("a", "a")], [["1", "2"]])
    with pytest.raises(ValueError, match="zip"):
        table.to_markdown()


def test_names_stay_text() -> None:
    assert markdown_text(HOSTILE) == SHOWN
    assert markdown_text("mit_b3 ± 5 % & [1, 2] of `data.split`") == "mit_b3 ± 5 % & [1, 2] of `data.split`"
    assert markdown_texts({HOSTILE: [HOSTILE, 1, None]}) == {SHOWN: [SHOWN, 1, None]}
    assert markdown_row(["a|b\nc", 2]) == "| a\\|b c | 2 |"


def test_tables_hold_no_tags_and_no_control_characters() -> None:
    table = Table("names", HOSTILE, (Column("class", HOSTILE, "text"),), ((HOSTILE,),))
    assert table.to_markdown().count(SHOWN) == 3
    assert not {"\x1b", "\u202e", "<"} & {*table.to_markdown()}
    assert not {"\x1b", "\u202e"} & {*table.to_latex()}


@pytest.fixture
def models(tmp_path):
    return lambda: models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")


def cells(table, key):
    return [row[[column.key for column in table.columns].index(key)] for row in table.rows]


def test_per_class(make_run, models):
    make_run(fold=0, confusion=[[80, 20, 0], [0, 100, 0], [0, 0, 0]])
    make_run(fold=1, confusion=THREE)
    table = per_class_table(models(), ScoredOn("val"))
    assert cells(table, "class") == ["background", "crack", "stain"]
    assert cells(table, "pixels") == [150, 150, 50]
    assert cells(table, "folds_scored") == [2, 2, 1]
    recall = cells(table, "recall")[0]
    assert (recall.mean, recall.std) == (pytest.approx(0.9), pytest.approx(0.1 * math.sqrt(2)))
    assert cells(table, "iou_pooled") == pytest.approx([130 / 150, 150 / 170, 1.0])
    assert cells(table, "f1") == cells(table, "dice")
    assert table.texts[2][4] == "100.00 (1 fold)"


def test_pairwise(make_run, models, split_of):
    make_run("a", "a")
    make_run("b", "b")
    make_run("c", "c", split=split_of(prefix="q"))
    table = pairwise_table(compare(models(), ScoredOn("val"), 100, 0))
    assert cells(table, "verdict")[0] == "too few independent groups to say (2; at least 6)"
    assert (cells(table, "groups")[0], cells(table, "interval")[0]) == (2, None)
    assert cells(table, "verdict")[1].startswith("not paired: they saw unlike data")
    assert [text for text in table.texts[1][3:] if text != "–"] == []


def test_what_decides_stands_first_and_the_rest_is_shown_on_request(make_run, models, split_of):
    split = split_of(per_fold=12)
    for fold in range(3):
        right = 90 + fold
        make_run("a", "a", fold, [[right, 9, 0], [10, 90, 0], [0, 0, 0]], split=split)
        make_run("b", "b", fold, [[60, 40, 0], [41, 60 + fold, 0], [0, 0, 0]], split=split)
    table = pairwise_table(compare(models(), ScoredOn("val"), 1000, 0))
    assert cells(table, "verdict") == ["a is better on these pictures"]
    assert cells(table, "training")[0].startswith("a new training would likely show it too (p")
    assert cells(table, "groups") == [18]
    (low, high) = (float(end) for end in cells(table, "interval_adjusted")[0].strip("[]").split(","))
    assert 0 < low < 100 * cells(table, "difference")[0] < high
    assert cells(table, "adjusted_p")[0] < 0.05
    assert cells(table, "trainings_p")[0] < 0.05
    assert 0 < cells(table, "smallest")[0] < cells(table, "difference")[0]
    assert cells(table, "needed") == [6]
    assert cells(table, "trainings_needed") == [3]
    shown = [column.key for column in table.columns if not column.more]
    assert {"verdict", "training", "groups", "interval", "adjusted_p", "trainings_p", "smallest"} <= set(shown)
    asked = {"wilcoxon_holm_p", "rank_biserial", "cohens_dz", "wins", "ties", "losses", "mean_over_pictures"}
    assert asked <= {column.key for column in table.columns if column.more}


def test_a_score_where_lower_is_better_says_so_and_has_no_points(make_run, models, split_of):
    split = split_of(per_fold=12)
    make_run("a", "a", confusion=[[101, 0, 0], [0, 100, 0], [0, 0, 0]], split=split)
    make_run("b", "b", confusion=[[60, 40, 0], [41, 60, 0], [0, 0, 0]], split=split)
    table = pairwise_table(compare(models(), ScoredOn("val"), 1000, 0, "nll"), "nll")
    assert "lower is better" in table.caption
    # NLL 0.03 per pixel of one, of the other (120 x 0.03 + 81 x 1.5) / 201
    assert cells(table, "difference") == [pytest.approx(0.03 - (120 * 0.03 + 81 * 1.5) / 201)]
    assert cells(table, "verdict") == ["a is better on these pictures"]
    assert [cells(table, key) for key in ("wins", "ties", "losses")] == [[12], [0], [0]]


def test_every_class_has_a_row(make_run, models):
    make_run("a", "a", confusion=[[100, 0, 0], [0, 100, 0], [0, 0, 0]])
    make_run("b", "b", confusion=[[100, 0, 0], [0, 99, 1], [0, 0, 0]])  # one pixel of one picture
    table = pairwise_classes_table(compare(models(), ScoredOn("val"), 100, 0))
    assert cells(table, "class") == ["background", "crack", "stain"]
    assert cells(table, "images") == [4, 4, 0]  # no truth holds a stain
    assert cells(table, "wins") == [0, 1, 0]
    assert cells(table, "ties") == [4, 3, 0]


@pytest.fixture
def table(tmp_path):
    def run():
        runs = gather([str(tmp_path / "outputs")])
        return phases_table(models_of(runs, ["name", "fold", "seed"], "encoder.name"))

    return run


def test_a_row_per_phase(make_run, table):
    phases = {**PHASES, "A": {**PHASES["A"], "refinement": {"round": 1, "drift": 0.125}}}
    (make_run("a", "a", 1) / "phases.json").write_text(json.dumps(phases))
    make_run("b", "b", 1)
    assert table().texts == [
        ["a", "1", "0", "A", "finished", "30", "val/miou", "0.7100", "22", "12.50", "0:01:01", "–"],
        ["a", "1", "0", "B", "reverted", "12", "val/accuracy", "0.9000", "0", "–", "–", "–"],
        ["a", "1", "0", "C", "skipped", "–", "–", "–", "–", "–", "–", "phase B was reverted"],
    ]


def test_unfinished_runs_show_how_far_they_came_and_replaced_ones_are_left_out(make_run, table):
    for time in ("2026-01-01", "2026-01-02"):
        (make_run("a", "a", 0, time=time) / "phases.json").write_text(json.dumps({"A": {"status": time}}))
    (make_run("a", "a", 1, status="failed") / "phases.json").write_text(json.dumps({"A": {"status": "running"}}))
    assert [row[4] for row in table().rows] == ["2026-01-02", "running"]


def test_no_phases_no_table(make_run, table):
    make_run()
    assert table() is None


def test_folds_list_what_is_missing(make_run, split_of, tmp_path):
    split = split_of()
    split["folds"][1]["name"] = "wood"
    make_run(fold=0, confusion=[[50, 0, 0], [0, 50, 0], [0, 0, 0]], split=split)
    make_run(fold=1, status="failed", split=split, provenance={"error": "OSError: full"})
    models = models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")
    table = folds_table(models, "val")
    assert cells(table, "fold") == ["0", "1: wood", "2"]
    assert cells(table, "status") == ["finished", "failed: OSError: full", "no run folder"]
    assert cells(table, "miou") == [1.0, None, None]
    assert cells(table, "images") == [4, None, None]
    assert table.texts[0][-2] == "0:01:01"


def miou(matrix):
    hits, off = matrix[0][0], matrix[0][1]
    return (hits / (hits + off) + 50 / (50 + off)) / 2


@pytest.fixture
def ranked_models(make_run, tmp_path):
    def made(*names):
        for name in names:
            make_run(name, name, confusion=RIGHT[name], config={"encoder": {"name": NAMES[name]}})
        found = models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")
        return ranked(found, "miou", ScoredOn("val"))

    return made


def test_a_row_per_family_with_its_best_model_and_the_mean_over_models(ranked_models):
    in_order = [model for _, model in ranked_models("a", "b", "c")]
    table = family_table(in_order, ScoredOn("val"), "miou")
    by_family = {row[0]: row for row in table.rows}
    assert list(by_family) == ["CNN", "transformer"]
    cnn, transformer = by_family["CNN"], by_family["transformer"]
    assert (cnn[1], transformer[1]) == (2, 1)
    assert cnn[2] == in_order[0].label
    assert cnn[3].mean == pytest.approx(miou(RIGHT["a"]))
    assert cnn[4] == pytest.approx((miou(RIGHT["a"]) + miou(RIGHT["c"])) / 2)
    assert transformer[4] == pytest.approx(miou(RIGHT["b"]))


def test_the_ranking_has_the_family_as_a_column(ranked_models):
    table = ranking_table(ranked_models("a", "b"), ScoredOn("val"))
    place = [column.key for column in table.columns].index("family")
    assert [row[place] for row in table.rows] == ["CNN", "transformer"]
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_models_of_one_family_have_no_such_table(ranked_models):
    in_order = [model for _, model in ranked_models("a", "c")]
    assert [family(model) for model in in_order] == ["CNN", "CNN"]
    assert family_table(in_order, ScoredOn("val"), "miou") is None
    assert math.isnan(in_order[0].summary("miou", ScoredOn("test")).mean)
    assert family_table(in_order, ScoredOn("test"), "miou") is None


def page(fold, share=0.8):
    shown = [np.arange(num) < of * num for of, num in ((0.3, 60), (share, 40))]
    parts = {
        part: PartCounts(
            np.stack([np.full(len(one), 50), one * 9], 1), np.stack([one >= 0, one], 1), np.ones((len(one), 2)) > 0
        )
        for part, one in zip(("train", "val"), shown, strict=True)
    }
    tests = compare_parts("segmentation", ["clean", "crack"], parts, "groups")
    return PartTests(data="walls", fold=fold, unit="groups", tests=tests)


@pytest.fixture
def runs(make_run, tmp_path):
    for name in "ab":
        for fold in range(2):
            write_parts(make_run(name, name, fold), page(fold))
    make_run("c", "c")  # from before the comparison
    return lambda: gather([str(tmp_path / "outputs")])


def test_alike_runs_are_told_once_and_by_fold(runs):
    found = parts_of(runs())
    assert [one.fold for one in found] == [0, 1]
    table = parts_table(found)
    assert [column.key for column in table.columns[:3]] == ["fold", "head", "of"]
    verdicts = {row[3]: row[5] for row in table.rows if row[2] == "groups that show it"}
    assert verdicts == {"clean": "not tested: every one shows it", "crack": "unlike, a medium difference"}
    assert "over groups" in table.caption


def test_a_broken_file_is_told_in_the_notes(runs, tmp_path):
    next((tmp_path / "outputs" / "a").rglob("parts.json")).write_text("{}")
    found = runs()
    models = models_of(found, ["name", "fold", "seed"], "encoder.name")
    assert any("parts.json" in note.text for note in notes_on(found, models, ScoredOn("val")))


def test_the_cost_of_runs_is_summed_and_never_zero_where_unknown() -> None:
    known = {"energy_j": {"rapl package-0": 1.8e6, "nvml 0": 1.8e6}, "device_time_s": {"processor": 1800.0}}
    unknown = {"energy_j": {}, "device_time_s": {"processor": 1800.0, "devices": 7200.0}}

    def cost(*pages: dict[str, Any]) -> str:
        return cost_of([SimpleNamespace(provenance=page) for page in pages])  # type: ignore[misc]

    assert cost({}) == ""
    assert cost(unknown, {}) == (
        " Energy of the machine while they ran: not measured; processor time 0.50 h, device time 2.00 h (1 of 2 runs)."
    )
    assert cost(known, unknown, {}) == (
        " Energy of the machine while they ran: 1 kWh (nvml, rapl) in 1 of 3 runs; "
        "processor time 1.00 h, device time 2.00 h (2 of 3 runs)."
    )


def test_energy_that_two_runs_share_and_what_was_not_counted_are_told() -> None:
    def page(hour: int, note: str = "") -> dict[str, Any]:
        times = {"started": f"2026-01-01T{hour:02}:00:00+00:00", "finished": f"2026-01-01T{hour + 2:02}:00:00+00:00"}
        return {"energy_j": {"rapl package-0": 3.6e6}, "energy_note": note, **times}

    def cost(*pages: dict[str, Any]) -> str:
        return cost_of([SimpleNamespace(provenance=page) for page in pages])  # type: ignore[misc]

    assert "beside" not in cost(page(1), page(3))  # one after the other
    assert "Not in it" not in cost(page(1), page(3))
    told = cost(page(1), page(2), page(9, "nvml 0 cannot be read: no permission"))
    assert "2 of them ran beside another" in told
    assert told.endswith("Not in it: nvml 0 cannot be read: no permission.")
    assert "1 of them" not in cost(page(1), {**page(1), "finished": None})  # killed: when it ended is not known
