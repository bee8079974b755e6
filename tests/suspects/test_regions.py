"""Objects that a mask lacks, invents or misnames are told; rims, specks and what one model supports are not."""

import numpy as np
import pytest
from tests.suspects._inputs import seen

from hsl.suspects.regions import Region, regions_of


def painted(*boxes: tuple[int, int, int, int, int]) -> np.ndarray:
    mask = np.zeros((60, 80), np.uint8)
    for top, left, height, width, label in boxes:
        mask[top : top + height, left : left + width] = label
    return mask


KEPT, OTHER = (5, 5, 20, 20, 1), (35, 50, 12, 15, 2)


@pytest.mark.parametrize(
    ("mask", "kind", "pair"),
    [
        (painted(KEPT), "missed object", (0, 2)),
        (painted(KEPT, OTHER, (35, 10, 12, 12, 1)), "spurious object", (1, 0)),
        (painted(KEPT, (*OTHER[:4], 1)), "wrong class", (1, 2)),
    ],
)
def test_each_kind_is_told_with_its_place(mask: np.ndarray, kind: str, pair: tuple[int, int]) -> None:
    truth = painted(KEPT, OTHER)
    (region,) = regions_of(seen(truth, mask))
    assert (region.kind, (region.label, region.predicted)) == (kind, pair)
    where = np.zeros_like(mask, bool)
    top, left, height, width = region.box
    where[top : top + height, left : left + width] = region.pixels
    np.testing.assert_array_equal(where, truth != mask)
    assert region.share == 1
    assert region.area == (truth != mask).sum()
    np.testing.assert_allclose(region.sureness, 0.85, atol=0.01)  # of the less sure model


def test_contours_drawn_wider_or_narrower_and_specks_are_not_told() -> None:
    truth = painted(KEPT, OTHER)
    assert not [*regions_of(seen(truth, truth))]
    for mask in (
        painted((4, 4, 22, 22, 1), OTHER),
        painted((6, 6, 18, 18, 1), OTHER),
        painted(KEPT, OTHER, (0, 70, 2, 4, 1)),
    ):
        assert not [*regions_of(seen(truth, mask))]
    ignored = painted(KEPT, (*OTHER[:4], 255))
    assert not [*regions_of(seen(truth, ignored))]


def test_one_model_that_sees_the_label_is_enough_to_say_nothing() -> None:
    truth, mask = painted(KEPT, OTHER), painted(KEPT)
    evidence = seen(truth, mask, sure=(0.95, 0.95, 0.95))
    evidence.maps[2] = seen(mask, mask, sure=(0.6,)).maps[0]
    assert not [*regions_of(evidence)]


def test_larger_surer_and_whole_regions_score_higher() -> None:
    def region(radius: float = 5.0, sureness: float = 0.5, share: float = 0.5) -> Region:
        return Region(0, 1, (0, 0, 1, 1), np.ones((1, 1), bool), sureness, share, radius, (100, 100))

    assert region().score == pytest.approx(0.125)  # a radius of 5 % of the picture counts half
    assert region().score < min(region(radius=6).score, region(sureness=0.6).score, region(share=0.6).score)
