import json
import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from hsl.reports.models import models_of
from hsl.reports.scores import IMAGE_METRICS, Scores
from hsl.reports.statistics.comparisons import compare, pooled_estimates
from hsl.reports.statistics.paired_tests import corrected_resampled_t, holm
from hsl.run_folder.run import ScoredOn, gather, read_run

RIGHT, WRONG = [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]


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


@pytest.fixture
def models_of_runs(make_run, tmp_path, split_of):
    """Of eight pictures of one group each, four show a crack, three do not, and one has no labelled pixel.

    Where there is no crack, ``b`` finds one in 40 of 100 pixels and ``a`` none.
    """
    split = split_of(num_folds=2, per_fold=8)
    rows = [(name, f"g{i}", 0.5) for i, name in enumerate(split["folds"][0]["val"])]
    for name, wrong in (("a", 0), ("b", 40)):
        folder = make_run(name, name, 0, split=split, rows=rows)
        with np.load(folder / "pixel_counts.npz") as content:
            arrays = dict(content)
        arrays["matrices"][:] = 0
        for i in range(4):
            arrays["matrices"][i, 0, :2, :2] = [[60 + i, 10], [20 - i, 80 + i]]
        arrays["matrices"][4:7, 0, 0, :2] = [100 - wrong, wrong]
        np.savez(folder / "pixel_counts.npz", **arrays)
    found = models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")
    return sorted(found, key=lambda model: model.label)


def test_what_is_predicted_where_there_is_no_foreground_counts_in_the_pooled_difference(models_of_runs):
    hits, missed, spurious = 4 * 80 + 6, 4 * 20 - 6, 4 * 10
    expected = [hits / (hits + missed + spurious + more) for more in (0, 3 * 40)]
    (found,) = compare(models_of_runs, ScoredOn("val"), 500, 0, "foreground_iou")
    assert found.score.mean == pytest.approx(expected[0] - expected[1])
    assert found.beside["mean over pictures"].num_units == 4  # the others have no foreground IoU of `a`
    alone = pooled_estimates(models_of_runs, ScoredOn("val"), 500, 0, "foreground_iou")
    assert [alone[name].mean for name in "ab"] == pytest.approx(expected)


def test_a_picture_without_a_labelled_pixel_is_no_unit(models_of_runs):
    (found,) = compare(models_of_runs, ScoredOn("val"), 500, 0, "foreground_iou")
    alone = pooled_estimates(models_of_runs, ScoredOn("val"), 500, 0, "foreground_iou")
    assert (found.score.num_units, found.num_images, alone["a"].num_units) == (7, 7, 7)


@pytest.fixture
def heads(tmp_path):
    def found():
        models_of_runs = models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")
        return sorted((model.on_images() for model in models_of_runs), key=lambda model: model.label)

    return found


@pytest.fixture
def head(make_run, add_image_head, split_of):
    """``head("a", fold, "1101")``: a classifier whose pictures, all healthy, are right where there is a 1."""

    def make(name, fold, right, split=None, seed=0, **options):
        split = split or split_of(per_fold=len(right))
        given = (np.zeros(len(right), dtype=int), np.array([RIGHT if one == "1" else WRONG for one in right]))
        folder = make_run(name, name, fold, split=split, seed=seed)
        return add_image_head(folder, fold, given=given, split=split, dense=options.pop("dense", False), **options)

    return make


def test_mcnemar_by_hand_beside_the_difference_of_the_pooled_scores(head, heads):
    head("a", 0, "11111100")
    head("b", 0, "10000010")
    (pair,) = compare(heads(), ScoredOn("val"), 500, 0, "accuracy")
    assert (pair.first, pair.second, pair.num_images) == ("a", "b", 8)
    # five pictures that only a has right, one that only b has: 2 (1 + 6) / 2^6
    assert (pair.pictures.wins, pair.pictures.ties, pair.pictures.losses) == (5, 2, 1)
    assert pair.mcnemar_p == pytest.approx(0.21875)
    assert (pair.score.mean, pair.score.num_units) == (pytest.approx(4 / 8), 4)
    assert pair.wilcoxon_p == pytest.approx(stats.wilcoxon([1, 1, 1, 1, 1, -1]).pvalue)
    f1 = [12 / 14, 4 / 10]  # of healthy: 6 of 8, 2 of 8; miner is only ever predicted: 0
    assert pair.beside["macro F1"].mean == pytest.approx((f1[0] - f1[1]) / 2)
    assert pair.verdict.text == "too few independent groups to say (4; at least 6)"
    assert math.isnan(pair.trainings.p)  # one fold


def test_a_clear_difference_over_folds_has_a_winner(head, heads):
    scores = {"a": ["11111111", "11111110", "11111111"], "b": ["10000000", "00100000", "11000000"]}
    for name, folds in scores.items():
        for fold, right in enumerate(folds):
            head(name, fold, right)
    (pair,) = compare(heads(), ScoredOn("val"), 2000, 0, "accuracy")
    assert pair.score.num_units == 12
    assert pair.verdict.winner == "a"
    assert pair.mcnemar_p == pytest.approx(2 * 0.5**19)
    accuracy = [7 / 8, 6 / 8, 6 / 8]
    assert pair.trainings.p == pytest.approx(corrected_resampled_t(accuracy, 0.5)[1])
    assert pair.verdict.training.startswith("a new training would likely show it too (p = ")
    assert (pair.folds, pair.num_images) == ([0, 1, 2], 24)


def test_the_score_that_ranks_decides_or_the_accuracy_where_it_is_no_sum(head, heads):
    for fold in range(3):
        head("a", fold, "11111110")
        head("b", fold, "11010000")
    found = {name: compare(heads(), ScoredOn("val"), 500, 0, name)[0] for name in ("macro_f1", "macro_auroc")}
    assert found["macro_f1"].metric == "macro_f1"
    assert list(found["macro_f1"].beside) == ["exact match"]
    # healthy 21 of 24, miner is only ever predicted; 9 of 24
    assert found["macro_f1"].score.mean == pytest.approx((42 / 45 - 18 / 33) / 2)
    assert found["macro_auroc"].metric == "accuracy"
    assert found["macro_auroc"].score.mean == pytest.approx(12 / 24)


def test_alike_models_are_not_told_apart(head, heads):
    head("a", 0, "1100")
    head("b", 0, "1100")
    (pair,) = compare(heads(), ScoredOn("val"), 100, 0, "accuracy")
    assert (pair.mcnemar_p, pair.wilcoxon_p) == (1.0, 1.0)
    assert pair.score.mean == 0
    assert not pair.verdict.winner


def test_holm_over_all_pairs(head, heads):
    for name, right in (("a", "11111111"), ("b", "11111000"), ("c", "00000000")):
        head(name, 0, right)
    found = compare(heads(), ScoredOn("val"), 100, 0, "accuracy")
    assert [one.mcnemar_holm_p for one in found] == holm([one.mcnemar_p for one in found])
    assert [one.wilcoxon_holm_p for one in found] == holm([one.wilcoxon_p for one in found])


def test_seeds_are_averaged_within_a_picture(head, heads):
    head("a", 0, "1100", seed=0)
    head("a", 0, "1010", seed=1)
    head("b", 0, "0100")
    (pair,) = compare(heads(), ScoredOn("val"), 100, 0, "accuracy")
    # a: 1, 0.5, 0.5, 0; b: 0, 1, 0, 0
    assert pair.score.mean == pytest.approx((1 - 0.5 + 0.5 + 0) / 4)
    assert (pair.pictures.wins, pair.pictures.ties, pair.pictures.losses) == (2, 1, 1)


def test_a_classifier_and_a_dual_head_are_compared_by_their_image_heads(head, heads):
    head("a", 0, "1111")
    head("b", 0, "1000", dense=True)
    (pair,) = compare(heads(), ScoredOn("val"), 100, 0, "accuracy")
    assert (pair.refused, pair.num_images) == ("", 4)


def test_pictures_without_a_label_are_left_out(head, heads):
    head("a", 0, "1110", unknown=("p0_0",))
    head("b", 0, "0110", unknown=("p0_0",))
    (pair,) = compare(heads(), ScoredOn("val"), 100, 0, "accuracy")
    assert (pair.num_images, pair.pictures.ties) == (3, 3)


def test_refusals_name_the_reason(head, heads, split_of):
    head("a", 0, "1110")
    head("b", 0, "1110", split=split_of(prefix="q"))
    head("c", 0, "1110", classes=["healthy", "miner", "mould"])
    (head("d", 0, "1110") / "image_predictions.csv").unlink()
    head("e", 1, "1110")
    head("f", 0, "1110", unknown=("p0_3",))
    found = {one.second: one for one in compare(heads(), ScoredOn("val"), 50, 0, "accuracy") if one.first == "a"}
    assert "they saw unlike data" in found["b"].refused
    assert found["c"].refused == "they have unlike class lists"
    assert found["d"].refused == "d has no complete image predictions for val, plain in fold 0"
    assert found["e"].refused == "no fold is finished in both"
    assert found["f"].refused == "1 pictures were scored by one of them only, for example p0_3"
    assert found["b"].verdict.text.startswith("not paired: they saw unlike data")
    assert found["b"].score is None


def test_intervals_of_the_pooled_scores(head, heads):
    for fold, right in enumerate(["1110", "1111", "1000"]):
        head("a", fold, right)
    (head("b", 0, "1110") / "image_predictions.csv").unlink()
    head("c", 0, "1110")
    found = pooled_estimates(heads(), ScoredOn("val"), 400, 0, "accuracy")
    assert set(found) == {"a", "c"}
    assert (found["a"].mean, found["a"].num_units) == (pytest.approx(8 / 12), 6)
    assert found["a"].interval.low < 8 / 12 < found["a"].interval.high <= 1
    assert (found["c"].num_units, found["c"].interval) == (2, None)
