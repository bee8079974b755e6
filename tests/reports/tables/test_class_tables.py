import math

import pytest

from hsl.reports.gather import gather
from hsl.reports.models import models_of
from hsl.reports.tables.class_tables import per_class_table
from hsl.run_folder.run import ScoredOn

THREE = [[50, 0, 0], [0, 50, 0], [0, 0, 50]]


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
