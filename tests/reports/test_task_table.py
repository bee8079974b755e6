"""The table of the tasks, and scores over the classes that one groups, against scikit-learn on single pixels."""

import json
import math

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from hsl.reports.models import models_of
from hsl.reports.page.notes import notes_on
from hsl.reports.scores import total_counts
from hsl.reports.tables.class_tables import merged, named_by, task_table, ungrouped
from hsl.run_folder.run import ScoredOn, gather, read_run

FOCUSED = {"loss": {"primary": ["genus", "health"]}}
ONE_HEAD = {
    "loss": {"gamma": 2.0},
    "task": {"network": {"heads": {"segmentation": {"_partial_": True}}}, "primary": "all"},
}
# Four classes of the data set, of which the last two are read alike by every task: three global ones.
MEMBERS = [0, 1, 2, 2]
TABLES = {"genus": [0, 1, 1, 1], "health": [0, 0, 1, 1]}
FACTS = {"members": MEMBERS, "source_tables": TABLES}


@pytest.fixture
def models(tmp_path):
    return lambda: models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")


def miou(right):
    """Of 100 pixels of each of two classes, a share of the second right, the rest taken for the first."""
    hits = 100 * right
    return (100 / (200 - hits) + hits / 100) / 2


def harmonic(*values):
    return len(values) / sum(1 / value for value in values)


def cells(table, model, task):
    (row,) = [row for row in table.rows if row[:2] == [model, task]]
    return dict(zip([column.key for column in table.columns], row, strict=True))


def test_a_row_per_task_with_mean_and_spread_over_folds_and_the_h_mean_of_the_primary(make_run, add_tasks, models):
    shares = [(0.9, 0.5, 0.2), (0.7, 0.6, 0.3)]
    for fold, (genus, health, fish) in enumerate(shares):
        add_tasks(make_run(fold=fold, config=FOCUSED), {"genus": genus, "health": health, "fish": fish}, fold)
    make_run("flat", "flat", config={"loss": {"gamma": 2.0}})
    table = task_table(models(), ScoredOn("val"))
    names = [(row[0].split(" · ")[0], row[1], row[2], row[3]) for row in table.rows]
    assert names == [
        ("resnet50", "global", "fused", 3),
        ("resnet50", "genus", "primary", 2),
        ("resnet50", "health", "primary", 2),
        ("resnet50", "fish", "auxiliary", 2),
        ("flat", "global", "one head", 3),
    ]
    label = table.rows[0][0]
    values = [miou(0.9), miou(0.7)]
    found = cells(table, label, "genus")
    assert (found["miou"].mean, found["miou"].std) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert found["pixel_accuracy"].mean == pytest.approx((0.95 + 0.85) / 2)
    assert found["ece"].num == 2
    assert found["boundary_f1"].mean > 0
    assert found["h_mean"] is None
    means = [harmonic(miou(genus), miou(health)) for genus, health, _ in shares]
    h_mean = cells(table, label, "global")["h_mean"]
    assert (h_mean.mean, h_mean.std, h_mean.num) == pytest.approx((np.mean(means), np.std(means, ddof=1), 2))
    assert cells(table, table.rows[-1][0], "global")["h_mean"].num == 0
    assert [text[-1] for text in table.texts][-1] == "–"


def test_seeds_are_averaged_within_their_fold_and_all_tasks_are_primary_without_a_word(make_run, add_tasks, models):
    for seed, share in enumerate((0.8, 0.4)):
        add_tasks(make_run(seed=seed, time=f"2026-01-0{seed + 1}_00-00-00"), {"genus": share, "health": 1.0})
    (model,) = models()
    assert model.primary == ["genus", "health"]
    expected = np.mean([harmonic(miou(share), 1) for share in (0.8, 0.4)])
    assert model.h_mean(ScoredOn("val")).mean == pytest.approx(expected)
    assert model.h_mean(ScoredOn("val")).num == 1
    assert model.h_mean(ScoredOn("test")).num == 0


def test_scores_come_from_the_counts_and_a_contradicting_file_is_named(make_run, add_tasks, models, tmp_path):
    folder = add_tasks(make_run(), {"genus": 0.9, "health": 0.5})
    page = json.loads((folder / "metrics.json").read_text())
    page["parts"]["val"]["plain"]["tasks"]["genus"]["miou"] = 0.99
    (folder / "metrics.json").write_text(json.dumps(page))
    (model,) = models()
    assert model.on_task("genus").summary("miou", ScoredOn("val")).mean == pytest.approx(miou(0.9))
    runs = gather([str(tmp_path / "outputs")])
    (said,) = [note.text for note in notes_on(runs, [model], ScoredOn("val")) if "contradicts" in note.text]
    assert "counts of genus of the run on val, plain: miou 0.9900, but 0.9045 by" in said
    assert cells(task_table([model], ScoredOn("val")), model.label, "global")["h_mean"].mean < 0.99


def test_without_its_counts_a_task_keeps_the_scores_of_its_confusion_matrix_and_the_run_says_so(make_run, add_tasks):
    folder = add_tasks(make_run(), {"genus": 0.9, "health": 0.5})
    (folder / "pixel_counts_genus.npz").unlink()
    run = read_run(folder)
    assert run.tasks == ["genus", "health"]
    assert run.on_task("genus").confusion(ScoredOn("val")).tolist() == [[100, 0], [10, 90]]
    assert total_counts(run.on_task("genus"), ScoredOn("val")) is None
    assert total_counts(run.on_task("health"), ScoredOn("val")).confusion.tolist() == [[100, 0], [50, 50]]
    (problem,) = run.problems
    assert "pixel_counts_genus.npz` is missing" in problem


def test_a_task_whose_matrix_does_not_fit_its_classes(make_run, add_tasks):
    folder = add_tasks(make_run(), {"genus": 0.9})
    page = json.loads((folder / "metrics.json").read_text())
    page["task_classes"]["genus"].append("extra")
    (folder / "metrics.json").write_text(json.dumps(page))
    run = read_run(folder)
    assert run.status == "unreadable"
    assert "val/plain/genus should be 3 x 3 counts" in run.reason


def test_a_refused_model_has_no_h_mean(make_run, add_tasks, models, split_of):
    add_tasks(make_run(fold=0), {"genus": 0.9})
    add_tasks(make_run(fold=1, split=split_of(prefix="q")), {"genus": 0.9}, 1, split_of(prefix="q"))
    (model,) = models()
    assert model.refused
    assert math.isnan(model.h_mean(ScoredOn("val")).mean)
    assert model.on_task("genus").summary("miou", ScoredOn("val")).num == 0


def test_flat_focused_and_holistic_are_compared_over_the_same_tasks(make_run, add_tasks, models):
    """Focused calls two of three tasks primary, the others all; every model has both H-means, by hand."""
    shares = {"flat": (0.9, 0.5, 0.2), "focused": (0.8, 0.7, 0.1), "holistic": (0.6, 0.6, 0.6)}
    holistic = {"loss": {"primary": "all"}, "task": {"network": {"heads": {"_target_": "x"}}, "primary": "all"}}
    configs = {"flat": ONE_HEAD, "focused": FOCUSED, "holistic": holistic}
    for name, values in shares.items():
        folder = make_run(name, name, config=configs[name])
        add_tasks(folder, dict(zip(("genus", "health", "fish"), values, strict=True)))
    table = task_table(models(), ScoredOn("val"))
    titles = {column.key: column.title for column in table.columns}
    assert titles["h_mean"] == "H-mean of the mIoU of genus and health (%)"
    assert titles["h_mean_all"] == "H-mean of the mIoU of genus, health and fish (%)"
    rows = {row[0].split(" · ")[0]: row[0] for row in table.rows}
    roles = {}
    for name, values in shares.items():
        scored = [miou(value) for value in values]
        found = cells(table, rows[name], "global")
        assert found["h_mean"].mean == pytest.approx(harmonic(*scored[:2]))
        assert found["h_mean_all"].mean == pytest.approx(harmonic(*scored))
        assert cells(table, rows[name], "genus")["miou"].mean == pytest.approx(scored[0])
        roles[name] = (found["role"], cells(table, rows[name], "fish")["role"])
    assert roles == {
        "flat": ("one head", "primary, read from the one head"),
        "focused": ("fused", "auxiliary"),
        "holistic": ("fused", "primary"),
    }


def test_the_primary_tasks_of_a_flat_model_are_those_of_its_task(make_run, add_tasks, models):
    config = {**ONE_HEAD, "task": {**ONE_HEAD["task"], "primary": ["health"]}}
    add_tasks(make_run(config=config), {"genus": 0.9, "health": 0.5})
    (model,) = models()
    assert model.primary == ["health"]
    assert model.h_mean(ScoredOn("val")).mean == pytest.approx(miou(0.5))


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
