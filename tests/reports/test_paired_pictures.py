import numpy as np
import pytest

from hsl.reports.gather import gather
from hsl.reports.models import models_of
from hsl.reports.statistics.comparisons import compare, pooled_estimates
from hsl.run_folder.run import ScoredOn


@pytest.fixture
def models(make_run, tmp_path, split_of):
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


def test_what_is_predicted_where_there_is_no_foreground_counts_in_the_pooled_difference(models):
    hits, missed, spurious = 4 * 80 + 6, 4 * 20 - 6, 4 * 10
    expected = [hits / (hits + missed + spurious + more) for more in (0, 3 * 40)]
    (found,) = compare(models, ScoredOn("val"), 500, 0, "foreground_iou")
    assert found.score.mean == pytest.approx(expected[0] - expected[1])
    assert found.beside["mean over pictures"].num_units == 4  # the others have no foreground IoU of `a`
    alone = pooled_estimates(models, ScoredOn("val"), 500, 0, "foreground_iou")
    assert [alone[name].mean for name in "ab"] == pytest.approx(expected)


def test_a_picture_without_a_labelled_pixel_is_no_unit(models):
    (found,) = compare(models, ScoredOn("val"), 500, 0, "foreground_iou")
    alone = pooled_estimates(models, ScoredOn("val"), 500, 0, "foreground_iou")
    assert (found.score.num_units, found.num_images, alone["a"].num_units) == (7, 7, 7)
