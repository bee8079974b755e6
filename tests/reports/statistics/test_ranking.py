import pytest

from hsl.reports.cv_results import cv_results
from hsl.reports.gather import gather
from hsl.reports.models import models_of
from hsl.reports.statistics.paired_tests import Interval, Summary
from hsl.reports.statistics.ranking import ranked, ranking_table
from hsl.reports.statistics.resampling import Estimate
from hsl.run_folder.run import ScoredOn

HALF = [[50, 50, 0], [50, 50, 0], [0, 0, 0]]  # IoU 50 / 150 in both
FULL = [[50, 0, 0], [0, 50, 0], [0, 0, 0]]
THREE = [[50, 0, 0], [0, 50, 0], [0, 0, 50]]


@pytest.fixture
def models(tmp_path):
    return lambda: models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")


def cells(table, key):
    return [row[[column.key for column in table.columns].index(key)] for row in table.rows]


def test_ranking_orders_by_the_mean_and_ranks_only_what_is_complete(make_run, models):
    for fold in range(2):
        make_run("a", "a", fold, HALF)
        make_run("b", "b", fold, FULL, tta=FULL)
    make_run("c", "c", 0, FULL)
    make_run("d", "d", 0, status="failed")
    ranking = ranked(models(), "miou", ScoredOn("val"))
    assert [(rank, model.label) for rank, model in ranking] == [
        (1, "b"),
        (2, "a"),
        (None, "c"),
        (None, "d (none finished)"),
    ]
    table = ranking_table(ranking, ScoredOn("val"))
    assert cells(table, "folds") == ["2 of 3", "2 of 3", "1 of 3", "0 of 3"]
    assert cells(table, "miou")[:2] == [Summary(1.0, 0.0, 2), Summary(pytest.approx(1 / 3), 0.0, 2)]
    assert table.texts[1][2] == "33.33 ± 0.00"
    assert table.texts[2][2] == "100.00 (1 fold)"
    assert cells(table, "miou_pooled") == [1.0, pytest.approx(1 / 3), 1.0, None]
    assert table.texts[1][3] == "–"  # no TTA
    assert cells(table, "classes_scored") == ["2 of 3", "2 of 3", "2 of 3", "– of 0"]


@pytest.mark.parametrize("metric", ["ece", "nll", "brier"])
def test_the_lowest_comes_first_where_lower_is_better(make_run, models, metric):
    # 100 pixels right: ECE 0.03, NLL 0.03, Brier 0.01; 100 of 200 right: (3 + 63) / 200, 153 / 200, 91 / 200
    make_run("a", "a", 0, HALF)
    make_run("b", "b", 0, FULL)
    table = ranking_table(ranked(models(), metric, ScoredOn("val")), ScoredOn("val"))
    assert cells(table, "model") == ["b", "a"]
    assert [cell.mean for cell in cells(table, metric)] == pytest.approx(
        {"ece": [0.03, 0.33], "nll": [0.03, 0.765], "brier": [0.01, 0.455]}[metric]
    )


def test_the_ranking_with_intervals(make_run, models):
    make_run("a", "a", 0, HALF)
    make_run("b", "b", 0, FULL)
    ranking = ranked(models(), "miou", ScoredOn("val"))
    table = ranking_table(ranking, ScoredOn("val"), "miou", {"b": Estimate(0.9, 8, Interval(0.9, 0.85, 0.955))})
    assert cells(table, "interval") == ["[85.00, 95.50]", None]
    assert cells(table, "groups") == [8, None]
    assert cells(table, "verdict") == ["–", None]  # b is the first; nothing was compared


def test_dice_of_empty_masks_stands_beside_that_of_predicting_nothing(make_run, models):
    # 4 pictures, none with stain, so half the values are 1 for anyone: 12 or 13 right pixels of crack in each
    half = [25 / 50, 25 / 50, 24 / 50, 26 / 50]  # 2 x 12 or 13 of what 25 true and 25 predicted pixels add up to
    for fold, confusion in enumerate([FULL, HALF]):
        make_run("a", "a", fold, confusion, test=FULL)
    found = models()
    table = ranking_table([(1, found[0])], ScoredOn("val"))
    keys = [column.key for column in table.columns]
    place = keys.index("dice_empty_one")
    assert keys[place + 1] == "dice_empty_one_predicting_nothing"
    (dice,), (nothing,) = cells(table, keys[place]), cells(table, keys[place + 1])
    assert (dice.num, dice.mean) == (2, pytest.approx((1 + (1 + sum(half) / 4) / 2) / 2, abs=0.01))
    assert nothing == Summary(0.5, 0.0, 2)
    assert "what predicting nothing scores" in table.caption
    assert "dice_empty_one" in [column.key for column in ranking_table([(1, found[0])], ScoredOn("test")).columns]
    page = cv_results([(1, found[0])], [], [], [], ["val"])
    told = page["models"][0]["parts"]["val"]["plain"]["over_folds"]
    assert told["dice_empty_one_predicting_nothing"] == {"mean": 0.5, "std": 0.0, "num": 2}


def test_without_counts_per_picture_no_dice_of_empty_masks(make_run, models):
    (make_run() / "pixel_counts.npz").unlink()
    table = ranking_table([(1, models()[0])], ScoredOn("val"))
    assert not any(column.key.startswith("dice_empty") for column in table.columns)
    assert "empty" not in table.caption


def test_unlike_numbers_of_scored_classes_show(make_run, models):
    make_run(fold=0, confusion=FULL)
    make_run(fold=1, confusion=THREE)
    table = ranking_table(ranked(models(), "miou", ScoredOn("val")), ScoredOn("val"))
    assert cells(table, "classes_scored") == ["2–3 of 3"]


def test_the_test_part_is_not_pooled_over_folds(make_run, models):
    for fold in range(2):
        make_run(fold=fold, test=HALF)
    table = ranking_table(ranked(models(), "miou", ScoredOn("test")), ScoredOn("test"))
    assert table.name == "ranking_test"
    assert "miou_pooled" not in [column.key for column in table.columns]
    assert cells(table, "miou") == [Summary(pytest.approx(1 / 3), 0.0, 2)]
