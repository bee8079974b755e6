import numpy as np
import pytest
from sklearn import metrics

from hsl.metrics.images.image_counts import COUNTED, ImageCounts


def one_hot(places, num_classes):
    return np.eye(num_classes)[places]


@pytest.fixture
def single():
    rng = np.random.default_rng(0)
    truth, guess = rng.integers(0, 4, 60), rng.integers(0, 4, 60)
    guess[:30] = truth[:30]
    return truth, guess, ImageCounts.of(one_hot(truth, 4), one_hot(guess, 4) == 1, several=False)


@pytest.fixture
def multi():
    rng = np.random.default_rng(1)
    truth = (rng.random((50, 3)) < 0.4).astype(float)
    guess = np.where(rng.random((50, 3)) < 0.2, 1 - truth, truth)
    return truth, guess, ImageCounts.of(truth, guess == 1, several=True)


def test_one_class_per_picture_equals_scikit_learn(single):
    truth, guess, counts = single
    for name, expected in {
        "accuracy": metrics.accuracy_score(truth, guess),
        "exact_match": metrics.accuracy_score(truth, guess),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, guess),
        "macro_f1": metrics.f1_score(truth, guess, average="macro"),
        "macro_precision": metrics.precision_score(truth, guess, average="macro"),
        "macro_recall": metrics.recall_score(truth, guess, average="macro"),
        "micro_f1": metrics.f1_score(truth, guess, average="micro"),
        "micro_precision": metrics.precision_score(truth, guess, average="micro"),
        "micro_recall": metrics.recall_score(truth, guess, average="micro"),
    }.items():
        assert counts.total.score(name) == pytest.approx(expected), name


def test_several_classes_per_picture_equal_scikit_learn(multi):
    truth, guess, counts = multi
    for name, expected in {
        "accuracy": 1 - metrics.hamming_loss(truth, guess),
        "exact_match": metrics.accuracy_score(truth, guess),
        "macro_f1": metrics.f1_score(truth, guess, average="macro"),
        "micro_f1": metrics.f1_score(truth, guess, average="micro"),
        "micro_precision": metrics.precision_score(truth, guess, average="micro"),
        "micro_recall": metrics.recall_score(truth, guess, average="micro"),
        "balanced_accuracy": metrics.recall_score(truth, guess, average="macro"),
    }.items():
        assert counts.total.score(name) == pytest.approx(expected), name
    scores = metrics.precision_recall_fscore_support(truth, guess)
    for name, expected in zip(("precision", "recall", "f1", "support"), scores, strict=True):
        np.testing.assert_allclose(counts.total.per_class()[name], expected)


def test_a_class_that_is_never_predicted_counts_as_zero_and_one_that_does_not_occur_not_at_all():
    # truth 0, 1; prediction 0, 0: of the three classes the second is missed, the third is in neither
    counts = ImageCounts.of(one_hot([0, 1], 3), one_hot([0, 0], 3) == 1, several=False).total
    assert counts.score("macro_precision") == pytest.approx((0.5 + 0) / 2)
    assert counts.score("macro_f1") == pytest.approx((2 / 3 + 0) / 2)
    assert counts.score("balanced_accuracy") == pytest.approx(0.5)
    np.testing.assert_array_equal(counts.per_class()["precision"], [0.5, np.nan, np.nan])
    assert counts.per_class()["support"].tolist() == [1, 1, 0]


def test_pictures_without_a_label_are_in_no_count(multi):
    truth, guess, _ = multi
    holes = truth.copy()
    holes[::5, 1] = np.nan
    kept = ~np.isnan(holes).any(axis=1)
    with_holes = ImageCounts.of(holes, guess == 1, several=True)
    without = ImageCounts.of(truth[kept], guess[kept] == 1, several=True)
    assert with_holes.total.known == kept.sum()
    for name in COUNTED:
        assert with_holes.total.score(name) == without.total.score(name)


def test_nothing_known_is_not_zero():
    counts = ImageCounts.of(np.full((2, 3), np.nan), np.ones((2, 3), dtype=bool), several=True).total
    assert all(np.isnan(counts.score(name)) for name in COUNTED)


def test_weighted_sums_are_the_scores_of_the_pictures_drawn(single):
    truth, _, counts = single
    rng = np.random.default_rng(2)
    drawn = rng.integers(0, len(truth), (5, len(truth)))
    weights = np.stack([np.bincount(row, minlength=len(truth)) for row in drawn]).astype(float)
    for name in ("accuracy", "macro_f1", "balanced_accuracy"):
        found = counts.score(name, weights)
        expected = [counts[row].total.score(name) for row in drawn]
        np.testing.assert_allclose(found, expected)
    assert (counts.num_pictures, counts.width) == (60, 12)


def test_counts_add_up_and_scale():
    first = ImageCounts.of(one_hot([0, 1], 2), one_hot([0, 0], 2) == 1, several=False)
    second = ImageCounts.of(one_hot([1, 1], 2), one_hot([1, 1], 2) == 1, several=False)
    found = first + second * 2
    assert found.right.tolist() == [3.0, 2.0]
    assert found.total.score("accuracy") == 5 / 6
