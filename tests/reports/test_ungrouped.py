"""The ungrouped score of a task against scikit-learn on single pixels."""

import math

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from hsl.reports.gather import gather
from hsl.reports.models import models_of
from hsl.reports.tables.task_table import task_table
from hsl.reports.ungrouped import merged, named_by, ungrouped
from hsl.run_folder.run import ScoredOn

# Four classes of the data set, of which the last two are read alike by every task: three global ones.
MEMBERS = [0, 1, 2, 2]
TABLES = {"genus": [0, 1, 1, 1], "health": [0, 0, 1, 1]}
FACTS = {"members": MEMBERS, "source_tables": TABLES}


@pytest.fixture
def model(make_run, add_tasks, tmp_path):
    def made(provenance):
        for fold, seed in ((0, 0), (1, 1)):
            matrix = np.random.default_rng(seed).integers(5, 60, (3, 3)).tolist()
            add_tasks(
                make_run("a", fold=fold, confusion=matrix, provenance=provenance), {"genus": 0.8, "health": 0.6}, fold
            )
        (found,) = models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")
        return found

    return made


def pixels(matrix):
    pairs = [(t, p) for (t, p), number in np.ndenumerate(matrix) for _ in range(int(number))]
    return np.array(pairs).T


@pytest.mark.parametrize(("task", "kept"), [("genus", [1, 2]), ("health", [2])])
def test_equal_to_scikit_learn_with_the_other_classes_as_one(model, task, kept):
    found = model(FACTS)
    number, summary = ungrouped(found, task, ScoredOn("val"))
    expected = []
    for run in found.finished.values():
        target, prediction = pixels(run.confusion(ScoredOn("val")))
        target, prediction = (np.where(np.isin(each, kept), each, 0) for each in (target, prediction))
        expected.append(jaccard_score(target, prediction, average="macro"))
    assert number == 1 + len(kept)
    assert (summary.mean, summary.std, summary.num) == pytest.approx((np.mean(expected), np.std(expected, ddof=1), 2))


def test_the_table_of_tasks_has_it_beside_the_grouped_score(model):
    table = task_table([model(FACTS)], ScoredOn("val"))
    keys = [column.key for column in table.columns]
    rows = {row[1]: dict(zip(keys, row, strict=True)) for row in table.rows}
    assert rows["genus"]["classes_ungrouped"] == 3
    assert rows["genus"]["classes"] == 2
    assert rows["genus"]["miou_ungrouped"].num == 2
    assert rows["global"]["miou_ungrouped"] is None
    assert "Ungrouped" in table.caption


def test_nothing_is_merged_where_a_task_names_all():
    matrix = np.arange(9).reshape(3, 3)
    np.testing.assert_array_equal(merged(matrix, [False, True, True]), matrix)
    np.testing.assert_array_equal(merged(matrix, [False, False, False]), [[36]])


@pytest.mark.parametrize("facts", [{}, {"members": MEMBERS}, FACTS | {"source_tables": {"genus": [0, 1]}}])
def test_runs_that_do_not_tell_have_no_such_score(model, facts):
    found = model(facts)
    assert named_by(next(iter(found.finished.values())), "genus") is None
    number, summary = ungrouped(found, "genus", ScoredOn("val"))
    assert number is None
    assert math.isnan(summary.mean)
