import math

import numpy as np
import pytest

from hsl.reports.gather import gather
from hsl.reports.models import models_of
from hsl.reports.statistics.comparisons import compare
from hsl.reports.statistics.paired_tests import Interval, Summary
from hsl.reports.statistics.ranking import ranked, ranking_table
from hsl.reports.statistics.resampling import Estimate
from hsl.reports.tables.class_tables import per_class_table, thresholds_table
from hsl.reports.tables.comparison_tables import pairwise_table
from hsl.reports.tables.run_tables import folds_table
from hsl.run_folder.run import ScoredOn

RIGHT, WRONG = [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]
HEALTHY = np.zeros(4, dtype=int)


@pytest.fixture
def models(tmp_path):
    def found():
        runs = gather([str(tmp_path / "outputs")])
        return [model.on_images() for model in models_of(runs, ["name", "fold", "seed"], "encoder.name")]

    return found


@pytest.fixture
def head(make_run, add_image_head):
    def make(name, fold, right, **options):
        given = (HEALTHY, np.array([RIGHT if one == "1" else WRONG for one in right]))
        return add_image_head(make_run(name, name, fold), fold, given=given, dense=False, **options)

    return make


def cells(table, key):
    return [row[[column.key for column in table.columns].index(key)] for row in table.rows]


def test_the_ranking_by_mean_pools_out_of_fold_and_ranks_only_what_is_complete(head, models, make_run):
    for fold in range(2):
        head("a", fold, "1100")
        head("b", fold, ("1111", "1000")[fold])
    head("c", 0, "1111")
    make_run("d", "d", 0, status="failed")
    ranking = ranked(models(), "accuracy", ScoredOn("val"))
    assert [(rank, model.label) for rank, model in ranking] == [
        (1, "b"),
        (2, "a"),
        (None, "c"),
        (None, "d (none finished)"),
    ]
    table = ranking_table(ranking, ScoredOn("val"), "accuracy", {"b": Estimate(0.6, 9, Interval(0.6, 0.5, 0.755))})
    assert cells(table, "accuracy")[:2] == [
        Summary(0.625, pytest.approx(0.75 / math.sqrt(2)), 2),
        Summary(0.5, 0.0, 2),
    ]
    assert cells(table, "accuracy_pooled") == [0.625, 0.5, 1.0, None]
    assert cells(table, "macro_f1_pooled")[0] == pytest.approx(5 / 13)
    assert cells(table, "interval") == ["[50.00, 75.50]", None, None, None]
    assert cells(table, "folds") == ["2 of 3", "2 of 3", "1 of 3", "0 of 3"]
    assert table.texts[0][2] == "62.50 ± 53.03"
    assert table.texts[3][2] == "–"
    keys = [column.key for column in table.columns]
    assert "exact_match" not in keys
    assert "accuracy_tta" not in keys


def test_the_test_part_is_not_pooled(make_run, add_image_head, models):
    given = (np.array([0, 1]), np.array([RIGHT, RIGHT]))
    for fold in range(2):
        add_image_head(make_run(fold=fold), fold, part="test", given=given)
    table = ranking_table(ranked(models(), "accuracy", ScoredOn("test")), ScoredOn("test"), "accuracy")
    assert table.name == "image_ranking_test"
    assert cells(table, "accuracy") == [Summary(0.5, 0.0, 2)]
    assert "accuracy_pooled" not in [column.key for column in table.columns]
    classes = per_class_table(models(), ScoredOn("test"))
    assert cells(classes, "support") == [1, 1, 0]  # the same two pictures in both folds


def test_per_class(head, models):
    head("a", 0, "1110")
    head("a", 1, "1111")
    table = per_class_table(models(), ScoredOn("val"))
    assert cells(table, "class") == ["healthy", "miner", "rust"]
    assert cells(table, "support") == [8, 0, 0]
    healthy, miner, rust = cells(table, "f1")
    assert healthy == Summary(pytest.approx((6 / 7 + 1) / 2), pytest.approx((1 / 7) / math.sqrt(2)), 2)
    assert (miner.mean, miner.num) == (0.0, 1)  # in fold 1 neither in truth nor in prediction
    assert rust.num == 0
    assert table.texts[2][3:] == ["–"] * 5
    assert table.texts[1][5] == "0.00 (1 fold)"


def test_folds_name_the_value_that_was_monitored(head, models):
    head("a", 1, "1110")
    table = folds_table(models(), "val")
    assert cells(table, "fold") == ["0", "1", "2"]
    assert cells(table, "status") == ["no run folder", "finished", "no run folder"]
    assert cells(table, "accuracy") == [None, 0.75, None]
    assert cells(table, "monitor")[1] == "val/accuracy"
    assert cells(table, "monitored")[1] == 0.5
    assert not any("mIoU" in column.title for column in table.columns)


def test_a_reverted_run_is_marked_in_every_table(head, models):
    folder = head("a", 0, "1110")
    (folder / "rollback.json").write_text('{"decision": "reverted"}')
    (model,) = found = models()
    assert model.label == "a (reverted)"
    assert cells(folds_table(found, "val"), "status")[0] == "finished, reverted"
    assert cells(folds_table(found, "val"), "status")[0] == "finished, reverted"
    assert cells(per_class_table(found, ScoredOn("val")), "model") == ["a (reverted)"] * 3


def test_thresholds_and_exact_match_of_several_classes(make_run, add_image_head, models):
    for fold in range(2):
        add_image_head(make_run(fold=fold), fold, several=True)
    table = thresholds_table(models(), "val")
    assert cells(table, "class") == ["healthy", "miner", "rust"]
    assert cells(table, "threshold") == [Summary(0.5, 0.0, 2)] * 3
    assert table.texts[0][2:] == ["0.5000 ± 0.0000", "0.5000", "0.5000"]
    ranking = ranking_table(ranked(models(), "exact_match", ScoredOn("val")), ScoredOn("val"), "exact_match")
    assert 0 <= cells(ranking, "exact_match")[0].mean <= cells(ranking, "accuracy")[0].mean


def test_no_thresholds_with_one_class_per_picture(head, models):
    head("a", 0, "1110")
    assert thresholds_table(models(), "val") is None


def test_pairs(head, models):
    head("a", 0, "1111")
    head("b", 0, "0001")
    (folder := head("c", 0, "0001")).joinpath("image_predictions.csv").unlink()
    assert folder.exists()
    table = pairwise_table(compare(models(), ScoredOn("val"), 200, 0, "accuracy"), "accuracy", "image_pairwise")
    first, second, _ = table.rows
    assert first[:3] == ["a", "b", "too few independent groups to say (2; at least 6)"]
    assert cells(table, "difference")[0] == 0.75
    assert table.texts[0][4] == "+75.00"
    assert cells(table, "wins") == [3, None, None]
    assert cells(table, "mcnemar_holm_p")[0] == 0.25
    assert second[2].startswith("not paired: c has no complete image predictions")
