import pytest

from hsl.reports.comparison_tables import pairwise_classes_table, pairwise_table
from hsl.reports.comparisons import compare
from hsl.reports.gather import gather
from hsl.reports.results import models_of


@pytest.fixture
def models(tmp_path):
    return lambda: models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")


def cells(table, key):
    return [row[[column.key for column in table.columns].index(key)] for row in table.rows]


def test_pairwise(make_run, models, split_of):
    make_run("a", "a")
    make_run("b", "b")
    make_run("c", "c", split=split_of(prefix="q"))
    table = pairwise_table(compare(models(), "val", "plain", 100, 0))
    assert cells(table, "verdict")[0] == "no difference shown"
    assert cells(table, "interval")[0] == "[+0.00, +0.00]"
    assert cells(table, "verdict")[1].startswith("not paired: they saw unlike data")
    assert table.texts[1][2:15] == ["–"] * 13


def test_a_score_where_lower_is_better_says_so_and_has_no_points(make_run, models):
    make_run("a", "a", confusion=[[100, 0, 0], [0, 100, 0], [0, 0, 0]])
    make_run("b", "b", confusion=[[60, 40, 0], [40, 60, 0], [0, 0, 0]])
    table = pairwise_table(compare(models(), "val", "plain", 100, 0, "nll"), "nll")
    assert "lower is better" in table.caption
    # NLL 0.03 in every picture of one, 0.6 * 0.03 + 0.4 * 1.5 of the other
    assert cells(table, "interval") == ["[-0.5880, -0.5880]"]
    assert cells(table, "pooled") == [pytest.approx(-0.588)]
    assert cells(table, "verdict") == ["a is better on these pictures"]
    assert [cells(table, key) for key in ("wins", "ties", "losses")] == [[4], [0], [0]]


def test_every_class_has_a_row(make_run, models):
    make_run("a", "a", confusion=[[100, 0, 0], [0, 100, 0], [0, 0, 0]])
    make_run("b", "b", confusion=[[100, 0, 0], [0, 99, 1], [0, 0, 0]])  # one pixel of one picture
    table = pairwise_classes_table(compare(models(), "val", "plain", 100, 0))
    assert cells(table, "class") == ["background", "crack", "stain"]
    assert cells(table, "images") == [4, 4, 0]  # no truth holds a stain
    assert cells(table, "wins") == [0, 1, 0]
    assert cells(table, "ties") == [4, 3, 0]
