import pytest

from hsl.reports.gather import gather
from hsl.reports.models import models_of
from hsl.reports.statistics.comparisons import compare
from hsl.reports.tables.comparison_tables import pairwise_classes_table, pairwise_table
from hsl.run_folder.run import ScoredOn


@pytest.fixture
def models(tmp_path):
    return lambda: models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")


def cells(table, key):
    return [row[[column.key for column in table.columns].index(key)] for row in table.rows]


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
