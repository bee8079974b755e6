import numpy as np
import pytest

from hsl.errors import DataError
from hsl.metrics.objects.average_precision import THRESHOLDS
from hsl.metrics.pixels import formulas
from hsl.metrics.pixels.pixelwise import STATES
from hsl.reports.scores import total_counts
from hsl.run_folder.objects import NUM_THRESHOLDS
from hsl.run_folder.pixel_counts import NUM_BINS, NUM_COUNTS, _shapes, read_pixel_counts
from hsl.run_folder.run import ScoredOn, read_run


def test_the_schema_is_that_of_the_metrics():
    assert len(formulas.BOUNDARY_COUNTS) == NUM_COUNTS
    assert formulas.NUM_BINS == NUM_BINS
    assert len(THRESHOLDS) == NUM_THRESHOLDS
    assert set(_shapes(3)) == set(STATES)


def test_a_run_gives_its_pictures_apart_and_together(make_run):
    run = read_run(make_run(confusion=[[90, 10, 0], [0, 50, 0], [0, 0, 0]], tta=[[150, 0, 0], [0, 0, 0], [0, 0, 0]]))
    assert total_counts(run, ScoredOn("val")).confusion.tolist() == [[90, 10, 0], [0, 50, 0], [0, 0, 0]]
    assert total_counts(run, ScoredOn("val", "tta")).scores()["pixel_accuracy"] == 1
    assert total_counts(run, ScoredOn("test")) is None
    pictures = run.pictures["val", "plain"]
    assert list(pictures.ids) == ["p0_0", "p0_1", "p0_2", "p0_3"]
    assert pictures.confusion[3].tolist() == [[22, 2, 0], [0, 12, 0], [0, 0, 0]]
    # 140 right pixels at 0.97, 10 wrong at 0.63: |140 - 135.8| + 6.3 over 150
    assert total_counts(run, ScoredOn("val")).scores()["ece"] == pytest.approx((4.2 + 6.3) / 150)


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
