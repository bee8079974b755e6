import numpy as np
import pytest

from hsl.data.files.records import Catalogue
from hsl.data.patches import cut_statistics as patch_statistics
from hsl.data.patches.cut_statistics import PictureCounts, class_table, covered_pixels, neighbour_distances, summary


def counts(before: list[int], after: list[int], centres: list[list[int]], covered: int = 0) -> PictureCounts:
    padded = [np.array([*values, *[0] * (255 - len(values)), 9]) for values in (before, after)]
    places = np.array(centres, np.int64).reshape(-1, 2)
    return PictureCounts("p", (9, 9), *padded, foreground=before[1], covered=covered, centres=places, corners=places)


@pytest.mark.parametrize("strip", [1, 7, 512])
def test_covered_pixels_against_a_whole_map(monkeypatch: pytest.MonkeyPatch, strip: int) -> None:
    monkeypatch.setattr(patch_statistics, "STRIP", strip)
    random = np.random.default_rng(0)
    foreground = random.random((50, 40)) < 0.4
    corners = random.integers(0, 30, (6, 2))
    covered = np.zeros(foreground.shape, bool)
    for y, x in corners:
        covered[y : y + 12, x : x + 12] = True
    assert covered_pixels(foreground, corners, 12) == (covered & foreground).sum()
    assert covered_pixels(foreground, corners[:0], 12) == 0


def test_neighbour_distances() -> None:
    assert neighbour_distances(np.array([[0, 0], [3, 4], [3, 5]])).tolist() == [5, 1, 1]
    assert neighbour_distances(np.array([[0, 0]])).size == 0


def test_class_table() -> None:
    found = [counts([60, 20, 0], [5, 15, 0], []), counts([20, 0, 0], [0, 0, 0], [])]
    table = class_table(found, Catalogue("tiles", (), ("a", "b", "c")))
    assert table["pixels_before"].tolist() == [80, 20, 0]
    np.testing.assert_allclose(table["share_before"], [0.8, 0.2, 0])
    np.testing.assert_allclose(table["share_after"], [0.25, 0.75, 0])
    np.testing.assert_allclose(table["ratio"], [0.3125, 3.75, np.nan])


def test_summary() -> None:
    found = summary([counts([0, 10], [0, 5], [[0, 0], [0, 3]], 5), counts([0, 30], [0, 5], [], 15)])
    assert found == {
        "pictures": 2,
        "pictures_without_patch": 1,
        "patches": 2,
        "coverage": 0.5,
        "distance_min": 3.0,
        "distance_median": 3.0,
    }
    alone = summary([counts([9, 0], [0, 0], [])])
    assert np.isnan([alone["coverage"], alone["distance_min"], alone["distance_median"]]).all()
