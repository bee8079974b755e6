import math

import pytest

from hsl.reports.gather import gather
from hsl.reports.models import models_of
from hsl.reports.statistics.ranking import ranked, ranking_table
from hsl.reports.tables.family_table import family, family_table
from hsl.run_folder.run import ScoredOn

RIGHT = {"a": [[50, 0, 0], [0, 50, 0], [0, 0, 0]], "b": [[40, 10, 0], [0, 50, 0], [0, 0, 0]]}
RIGHT["c"] = [[30, 20, 0], [0, 50, 0], [0, 0, 0]]
NAMES = {"a": "tu-convnext_tiny.fb_in1k", "b": "mit_b2", "c": "resnet50"}


def miou(matrix):
    hits, off = matrix[0][0], matrix[0][1]
    return (hits / (hits + off) + 50 / (50 + off)) / 2


@pytest.fixture
def models(make_run, tmp_path):
    def made(*names):
        for name in names:
            make_run(name, name, confusion=RIGHT[name], config={"encoder": {"name": NAMES[name]}})
        found = models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")
        return ranked(found, "miou", ScoredOn("val"))

    return made


def test_a_row_per_family_with_its_best_model_and_the_mean_over_models(models):
    in_order = [model for _, model in models("a", "b", "c")]
    table = family_table(in_order, ScoredOn("val"), "miou")
    by_family = {row[0]: row for row in table.rows}
    assert list(by_family) == ["CNN", "transformer"]
    cnn, transformer = by_family["CNN"], by_family["transformer"]
    assert (cnn[1], transformer[1]) == (2, 1)
    assert cnn[2] == in_order[0].label
    assert cnn[3].mean == pytest.approx(miou(RIGHT["a"]))
    assert cnn[4] == pytest.approx((miou(RIGHT["a"]) + miou(RIGHT["c"])) / 2)
    assert transformer[4] == pytest.approx(miou(RIGHT["b"]))


def test_the_ranking_has_the_family_as_a_column(models):
    table = ranking_table(models("a", "b"), ScoredOn("val"))
    place = [column.key for column in table.columns].index("family")
    assert [row[place] for row in table.rows] == ["CNN", "transformer"]
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_models_of_one_family_have_no_such_table(models):
    in_order = [model for _, model in models("a", "c")]
    assert [family(model) for model in in_order] == ["CNN", "CNN"]
    assert family_table(in_order, ScoredOn("val"), "miou") is None
    assert math.isnan(in_order[0].summary("miou", ScoredOn("test")).mean)
    assert family_table(in_order, ScoredOn("test"), "miou") is None
