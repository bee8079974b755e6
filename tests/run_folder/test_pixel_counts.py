import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score

from hsl.errors import DataError
from hsl.metrics.pixels.pixelwise import Pixelwise
from hsl.run_folder.pixel_counts import METRICS, Pictures, PixelCounts, read_pixel_counts
from hsl.run_folder.run import read_run

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


def test_one_picture_or_some_in_any_order(counts):
    pictures = Pictures(["a", "b", "c", "d", "e"], counts)
    np.testing.assert_array_equal(pictures.of("d").matrices, counts.matrices[3])
    np.testing.assert_array_equal(pictures.pick(["e", "b"]).nll, counts.nll[[4, 1]])


def test_nothing_valid_is_no_score():
    empty = PixelCounts(*(np.zeros(s) for s in [(2, 3, 3), (7, 3), (2, 15), (15,), (), ()]))
    assert all(np.isnan(value) for value in empty.scores().values())


def test_a_run_gives_its_pictures_apart_and_together(make_run):
    run = read_run(make_run(confusion=[[90, 10, 0], [0, 50, 0], [0, 0, 0]], tta=[[150, 0, 0], [0, 0, 0], [0, 0, 0]]))
    assert run.pixel_counts("val", "plain").confusion.tolist() == [[90, 10, 0], [0, 50, 0], [0, 0, 0]]
    assert run.pixel_counts("val", "tta").scores()["pixel_accuracy"] == 1
    assert run.pixel_counts("test", "plain") is None
    pictures = run.pictures["val", "plain"]
    assert list(pictures.ids) == ["p0_0", "p0_1", "p0_2", "p0_3"]
    assert pictures.of("p0_3").confusion.tolist() == [[22, 2, 0], [0, 12, 0], [0, 0, 0]]
    # 140 right pixels at 0.97, 10 wrong at 0.63: |140 - 135.8| + 6.3 over 150
    assert run.pixel_counts("val", "plain").scores()["ece"] == pytest.approx((4.2 + 6.3) / 150)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("nll"), "should hold the array `nll`. Found none"),
        (lambda content: content.update(matrices=content["matrices"][:, :, :2]), r"`matrices` should have the shape"),
        (lambda content: content.update(ids=np.array(["a", "b", "a", "c"])), "should hold each picture once"),
    ],
)
def test_a_broken_file_is_named(make_run, change, message):
    path = make_run() / "pixel_counts.npz"
    content = dict(np.load(path))
    change(content)
    np.savez(path, **content)
    with pytest.raises(DataError, match=message):
        read_pixel_counts(path, 3)


@pytest.mark.parametrize("content", [b"", b"PK no archive", b"plain text"])
def test_a_file_that_is_no_archive(tmp_path, content):
    path = tmp_path / "pixel_counts.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"pixel_counts\.npz` is damaged"):
        read_pixel_counts(path, 3)
