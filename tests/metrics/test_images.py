"""Scores of whole pictures; a logit that is no number is never scored."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import Tensor

from hsl.errors import NonFiniteLogitsError, UserError
from hsl.metrics.finite import broken_images, check_count, check_outputs
from hsl.metrics.images.image_counts import COUNTED, ImageCounts
from hsl.metrics.images.image_scores import image_scores
from hsl.metrics.images.imagewise import ImageScores, probabilities_of
from hsl.metrics.objects.watershed import split_objects
from hsl.metrics.pixels.pixelwise import Pixelwise, calibrate


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


def single_scores() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.dirichlet(np.ones(4), 60), rng.integers(0, 4, 60)


def several() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.random((60, 3)), (rng.random((60, 3)) > 0.6).astype(float)


def test_one_class_per_picture_against_scikit_learn() -> None:
    probabilities, targets = single_scores()
    predicted = probabilities.argmax(1)
    found = image_scores(probabilities, targets)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(targets, predicted))
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(targets, predicted))
    for name in ("precision", "recall", "f1"):
        score = getattr(metrics, f"{name}_score")
        assert found[f"macro_{name}"] == pytest.approx(score(targets, predicted, average="macro"))
        assert found[f"micro_{name}"] == pytest.approx(score(targets, predicted, average="micro"))
        assert found["per_class"][name] == pytest.approx(score(targets, predicted, average=None))
    assert found["macro_auroc"] == pytest.approx(metrics.roc_auc_score(targets, probabilities, multi_class="ovr"))
    assert np.array_equal(found["confusion"], metrics.confusion_matrix(targets, predicted))


def test_several_classes_against_scikit_learn() -> None:
    probabilities, targets = several()
    predicted = probabilities >= 0.5
    found = image_scores(probabilities, targets)
    assert found["exact_match"] == pytest.approx(metrics.accuracy_score(targets, predicted))
    assert found["accuracy"] == pytest.approx((targets == predicted).mean())
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(targets, predicted, average="macro"))
    assert found["micro_f1"] == pytest.approx(metrics.f1_score(targets, predicted, average="micro"))
    assert found["macro_auroc"] == pytest.approx(metrics.roc_auc_score(targets, probabilities))
    precision = metrics.average_precision_score(targets, probabilities)
    assert found["macro_average_precision"] == pytest.approx(precision)
    strict = image_scores(probabilities, targets, [0.9, 0.5, 0.1])
    assert strict["macro_f1"] == pytest.approx(
        metrics.f1_score(targets, probabilities >= [0.9, 0.5, 0.1], average="macro")
    )


def test_unknown_labels_are_left_out() -> None:
    probabilities, targets = single_scores()
    targets[10:] = -1
    found = image_scores(probabilities, targets)
    assert found["accuracy"] == image_scores(probabilities[:10], targets[:10])["accuracy"]
    assert found["num_images"] == 10
    probabilities, labels = several()
    labels[5:, 1] = np.nan
    assert image_scores(probabilities, labels)["per_class"]["support"][1] == labels[:5, 1].sum()


def test_batches_are_the_whole_and_a_reset_forgets() -> None:
    probabilities, targets = single_scores()
    logits = torch.from_numpy(probabilities).log().float()
    metric = ImageScores(4, several=False)
    for start in range(0, 60, 7):
        metric.update(logits[start : start + 7], torch.from_numpy(targets)[start : start + 7])
    whole = image_scores(probabilities, targets)
    found = metric.compute()
    assert found["accuracy"].item() == pytest.approx(whole["accuracy"])
    assert found["macro_auroc"].item() == pytest.approx(whole["macro_auroc"])
    metric.reset()
    metric.update(torch.tensor([[9.0, 0, 0, 0]]), torch.tensor([0]))
    assert metric.compute()["accuracy"].item() == 1


def test_nothing_known_is_nan_and_one_class_has_no_curve() -> None:
    found = image_scores(np.array([[0.5, 0.5]]), np.array([-1]))
    assert np.isnan(found["accuracy"])
    assert found["num_images"] == 0
    assert np.isnan(image_scores(np.array([[0.9, 0.1]]), np.array([0]))["macro_auroc"])


# A logit that is no number is never scored as some class, whatever looks at it.


VALUES = [math.nan, math.inf, -math.inf]
TARGET = torch.zeros(3, 4, 5, dtype=torch.int64)


def logits_with(value: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Three images of three classes; the second has one logit of this value, not of its true class."""
    logits = torch.randn(3, 3, 4, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    logits[1, 2, 3, 4] = value
    return logits


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_every_kind_of_tensor_is_looked_through(value: float, dtype: torch.dtype, layout: torch.memory_format) -> None:
    logits = logits_with(value, dtype).contiguous(memory_format=layout)
    assert broken_images(logits).tolist() == [False, True, False]
    assert broken_images(logits[:, :, 3, 4]).tolist() == [False, True, False]


def test_large_finite_logits_are_numbers() -> None:
    extreme = torch.tensor([[3e38, -3e38], [0.0, 0.0]])
    assert not broken_images(extreme).any()
    assert not broken_images(torch.full((2, 2, 3, 3), 65504.0).half()).any()
    assert broken_images(torch.zeros(2, 3, 0, 4)).tolist() == [False, False]
    check_outputs({"a": extreme}, ["x", "y"], "here")
    check_outputs({}, [], "here")


@pytest.mark.parametrize("value", VALUES)
def test_the_message_names_head_images_value_and_place(value: float) -> None:
    outputs = {"genus": torch.zeros(3, 2), "health": logits_with(value)}
    with pytest.raises(NonFiniteLogitsError, match=rf"`{value}` in `health` for p2 \(epoch 3\)") as caught:
        check_outputs(outputs, ["p1", "p2", "p3"], "epoch 3")
    assert isinstance(caught.value, UserError)
    assert isinstance(caught.value, ArithmeticError)
    assert "optimizer.lr" in str(caught.value)


def pixelwise(logits: Tensor) -> None:
    Pixelwise(3).update(logits, TARGET)


def calibration(logits: Tensor) -> None:
    calibrate(logits, TARGET.byte())


def labels(logits: Tensor) -> None:
    ImageScores(3, several=False).update(logits[:, :, 3, 4], torch.zeros(3, dtype=torch.int64))


def several_labels(logits: Tensor) -> None:
    ImageScores(3, several=True).update(logits[:, :, 3, 4], torch.zeros(3, 3))


@pytest.mark.parametrize("look", [pixelwise, calibration, labels, several_labels])
@pytest.mark.parametrize("value", VALUES)
def test_no_metric_takes_it(look: Callable[[Tensor], None], value: float) -> None:
    with pytest.raises(NonFiniteLogitsError, match="image 1 of the batch"):
        look(logits_with(value))
    look(logits_with(1.0))


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("value", VALUES)
def test_probabilities_of_an_image_head_are_not_made_up(several: bool, value: float) -> None:
    logits = logits_with(value)[:, :, 3, 4]
    probabilities = probabilities_of(logits, several).numpy()
    assert np.isfinite(probabilities[[0, 2]]).all()
    assert not np.isfinite(probabilities[1]).all()
    targets = np.zeros((3, 3)) if several else np.zeros(3, np.int64)
    with pytest.raises(NonFiniteLogitsError, match="row 1"):
        image_scores(probabilities, targets)


def test_what_an_accelerator_counted_is_told_by_compute() -> None:
    metric = Pixelwise(3)
    for look in (metric.compute, metric.states):
        metric.update(logits_with(1.0), TARGET)
        metric.broken += 2
        with pytest.raises(NonFiniteLogitsError, match="2 images"):
            look()
        metric.reset()
        check_count(metric.broken)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("place", [0, 1])
def test_objects_are_not_cut_from_it(value: float, place: int) -> None:
    maps = [np.full((4, 4), 0.7), np.full((4, 4), 0.5)]
    maps[place][1, 2] = value
    with pytest.raises(ValueError, match="should be finite"):
        split_objects(*maps)
