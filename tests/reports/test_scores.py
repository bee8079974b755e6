import json
import math

import numpy as np
import pytest
from sklearn import metrics

from hsl.reports.models import models_of
from hsl.reports.scores import IMAGE_METRICS, Scores
from hsl.run_folder.run import ScoredOn, gather, read_run


@pytest.fixture
def models(tmp_path):
    def found():
        runs = gather([str(tmp_path / "outputs")])
        return [model.on_images() for model in models_of(runs, ["name", "fold", "seed"], "encoder.name")]

    return found


def made(num, several, seed=0):
    rng = np.random.default_rng(seed)
    if several:
        targets = (rng.random((num, 3)) < 0.5).astype(np.float32)
        return targets, np.clip(0.6 * targets + 0.4 * rng.random((num, 3)), 0, 1)
    targets = rng.integers(0, 3, num)
    values = rng.random((num, 3)) + 0.7 * np.eye(3)[targets]
    return targets, values / values.sum(axis=1, keepdims=True)


def test_a_run_of_one_class_per_picture_equals_scikit_learn(make_run, add_image_head, split_of):
    split = split_of(num_folds=2, per_fold=40)
    targets, probabilities = given = made(40, several=False)
    folder = add_image_head(make_run(split=split), 0, split=split, given=given, dense=False)
    found = Scores.of_run(read_run(folder).on_image_head(), ScoredOn("val"))
    guess = probabilities.argmax(axis=1)
    areas = [metrics.roc_auc_score(targets == i, probabilities[:, i]) for i in range(3)]
    precisions = [metrics.average_precision_score(targets == i, probabilities[:, i]) for i in range(3)]
    assert found.overall["accuracy"] == pytest.approx(metrics.accuracy_score(targets, guess))
    assert found.overall["macro_f1"] == pytest.approx(metrics.f1_score(targets, guess, average="macro"))
    assert found.overall["macro_auroc"] == pytest.approx(
        metrics.roc_auc_score(targets, probabilities, multi_class="ovr")
    )
    assert found.overall["macro_average_precision"] == pytest.approx(np.mean(precisions))
    np.testing.assert_allclose(found.per_class["auroc"], areas)
    np.testing.assert_allclose(found.per_class["average_precision"], precisions)
    np.testing.assert_allclose(found.per_class["recall"], metrics.recall_score(targets, guess, average=None))
    assert found.per_class["support"].tolist() == np.bincount(targets).tolist()


def test_a_run_of_several_classes_per_picture_equals_scikit_learn(make_run, add_image_head, split_of):
    split = split_of(num_folds=2, per_fold=40)
    targets, probabilities = given = made(40, several=True)
    folder = add_image_head(make_run(split=split), 0, split=split, given=given, several=True)
    found = Scores.of_run(read_run(folder).on_image_head(), ScoredOn("val"))
    guess = probabilities >= 0.5
    assert found.overall["exact_match"] == pytest.approx(metrics.accuracy_score(targets, guess))
    assert found.overall["macro_f1"] == pytest.approx(metrics.f1_score(targets, guess, average="macro"))
    assert found.overall["micro_f1"] == pytest.approx(metrics.f1_score(targets, guess, average="micro"))
    assert found.overall["macro_auroc"] == pytest.approx(metrics.roc_auc_score(targets, probabilities))
    assert dict(found.thresholds) == {"healthy": 0.5, "miner": 0.5, "rust": 0.5}


def test_area_under_the_curve_by_hand(make_run, add_image_head):
    # of the pairs (with, without) of class 0: 0.8 > 0.7, 0.8 > 0.1, 0.6 < 0.7, 0.6 > 0.1: 3 of 4
    probabilities = np.array([[0.8, 0.2, 0], [0.6, 0.4, 0], [0.7, 0.3, 0], [0.1, 0.9, 0]])
    folder = add_image_head(make_run(), 0, given=(np.array([0, 0, 1, 1]), probabilities))
    found = Scores.of_run(read_run(folder).on_image_head(), ScoredOn("val"))
    np.testing.assert_array_equal(found.per_class["auroc"], [0.75, 0.75, np.nan])
    assert found.overall["accuracy"] == 0.75
    assert found.overall["macro_auroc"] == 0.75


def test_without_predictions_the_stored_scores_count_and_the_run_says_so(make_run, add_image_head):
    folder = add_image_head(make_run(), 0, skill=0.5)
    before = Scores.of_run(read_run(folder).on_image_head(), ScoredOn("val"))
    (folder / "image_predictions.csv").unlink()
    run = read_run(folder)
    after = Scores.of_run(run.on_image_head(), ScoredOn("val"))
    (problem,) = run.problems
    assert "image_predictions.csv` is missing" in problem
    for name in IMAGE_METRICS:
        assert after.overall[name] == pytest.approx(before.overall[name], nan_ok=True)
    np.testing.assert_allclose(after.per_class["support"], before.per_class["support"])
    assert Scores.of_run(run.on_image_head(), ScoredOn("test")) is None


def test_over_folds_and_pooled_by_hand(make_run, add_image_head, models):
    sure, unsure = [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]
    add_image_head(make_run(fold=0), 0, given=(np.zeros(4, dtype=int), np.array([sure] * 4)))
    add_image_head(make_run(fold=1), 1, given=(np.zeros(4, dtype=int), np.array([sure] + [unsure] * 3)))
    (model,) = models()
    assert model.overall("accuracy", ScoredOn("val")) == {0: 1.0, 1: 0.25}
    summary = model.summary("accuracy", ScoredOn("val"))
    assert (summary.mean, summary.std, summary.num) == pytest.approx((0.625, 0.75 / math.sqrt(2), 2))
    counts = model.counts(ScoredOn("val"))
    assert counts.score("accuracy") == 0.625
    # 5 right, 3 healthy taken for miner: F1 2*5/(2*5+3) and 0
    assert counts.score("macro_f1") == pytest.approx((10 / 13 + 0) / 2)


def test_a_fold_with_fewer_seeds_weighs_the_same(make_run, add_image_head, models):
    sure, unsure = [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]
    truth = np.zeros(4, dtype=int)
    for seed, row in ((0, sure), (1, unsure)):
        add_image_head(make_run(fold=0, seed=seed), 0, given=(truth, np.array([row] * 4)))
    add_image_head(make_run(fold=1), 1, given=(truth, np.array([sure] * 4)))
    (model,) = models()
    assert model.summary("accuracy", ScoredOn("val")).mean == 0.75
    assert model.counts(ScoredOn("val")).score("accuracy") == 0.75


def test_what_has_no_image_head(make_run, models):
    make_run()
    (model,) = models()
    assert model.classes == []
    assert model.scores(ScoredOn("val")) == {}
    assert model.counts(ScoredOn("val")) is None
    assert math.isnan(model.summary("accuracy", ScoredOn("val")).mean)


def test_unlike_classes_are_not_averaged(make_run, add_image_head, models):
    add_image_head(make_run(fold=0), 0)
    add_image_head(make_run(fold=1), 1, classes=["healthy", "miner", "mould"])
    (model,) = models()
    assert model.refused == "its runs have unlike classes"
    assert model.summary("accuracy", ScoredOn("val")).num == 0
    assert model.counts(ScoredOn("val")) is None


def test_two_image_heads_are_refused(make_run, add_image_head):
    folder = add_image_head(make_run(), 0)
    page = json.loads((folder / "metrics.json").read_text())
    page["image_classes"]["second"] = ["a", "b"]
    (folder / "metrics.json").write_text(json.dumps(page))
    run = read_run(folder)
    assert run.status == "unreadable"
    assert "one image head at most. Found classification, second" in run.reason
