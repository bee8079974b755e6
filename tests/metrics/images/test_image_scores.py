import numpy as np
import pytest
import torch
from sklearn import metrics

from hsl.metrics.images.image_scores import image_scores
from hsl.metrics.images.imagewise import ImageScores


def single() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.dirichlet(np.ones(4), 60), rng.integers(0, 4, 60)


def several() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.random((60, 3)), (rng.random((60, 3)) > 0.6).astype(float)


def test_one_class_per_picture_against_scikit_learn() -> None:
    probabilities, targets = single()
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
    probabilities, targets = single()
    targets[10:] = -1
    found = image_scores(probabilities, targets)
    assert found["accuracy"] == image_scores(probabilities[:10], targets[:10])["accuracy"]
    assert found["num_images"] == 10
    probabilities, labels = several()
    labels[5:, 1] = np.nan
    assert image_scores(probabilities, labels)["per_class"]["support"][1] == labels[:5, 1].sum()


def test_batches_are_the_whole_and_a_reset_forgets() -> None:
    probabilities, targets = single()
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
