import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score

from hsl.metrics.pixels.pixel_counts import METRICS, PixelCounts
from hsl.metrics.pixels.pixelwise import Pixelwise

NAMES = ("matrices", "boundaries", "pixels", "confidence", "nll", "brier")


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 3, 24, 20, generator=generator)
    target = torch.randint(0, 3, (5, 6, 5), generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2)
    target[0, :3] = 255
    return logits, target


@pytest.fixture(scope="module")
def counts(batch):
    rows = []
    for logits, target in zip(*batch, strict=True):
        metric = Pixelwise(num_classes=3)
        metric.update(logits[None], target[None])
        rows.append([getattr(metric, name).numpy() for name in NAMES])
    return PixelCounts(*[np.stack(arrays) for arrays in zip(*rows, strict=True)])


def test_the_sum_over_pictures_gives_the_scores_of_one_pass_over_all(batch, counts):
    metric = Pixelwise(num_classes=3)
    metric.update(*batch)
    expected = {name: value.item() for name, value in metric.compute().items()}
    assert counts.total.scores() == pytest.approx(expected)
    assert set(METRICS) <= expected.keys()
    assert len(expected) == len(METRICS) + 6


def test_scores_per_picture_equal_scikit_learn_and_the_picture_alone(batch, counts):
    for i, (logits, target) in enumerate(zip(*batch, strict=True)):
        valid = target != 255
        expected = jaccard_score(target[valid], logits.argmax(0)[valid], average="macro")
        assert counts.score("miou")[i] == pytest.approx(expected)
        for name in METRICS:
            assert counts.score(name)[i] == pytest.approx(counts[i].scores()[name])
        for name, values in counts.per_class().items():
            np.testing.assert_allclose(values[i], counts[i].per_class()[name])


@pytest.mark.parametrize("name", METRICS)
def test_weights_count_pictures_several_times(counts, name):
    weights = np.array([[1.0, 0.0, 2.0, 0.0, 1.0], [0.0, 0.0, 0.0, 3.0, 0.0]])
    first = counts[0] + counts[2] * 2 + counts[4]
    np.testing.assert_allclose(counts.score(name, weights), [first.scores()[name], counts[3].scores()[name]])


def test_nothing_valid_is_no_score():
    empty = PixelCounts(*(np.zeros(s) for s in [(2, 3, 3), (7, 3), (2, 15), (15,), (), ()]))
    assert all(np.isnan(value) for value in empty.scores().values())
