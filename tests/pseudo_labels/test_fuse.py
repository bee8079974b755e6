import numpy as np
import pytest

from hsl.pseudo_labels.fuse import fuse_votes, renormalise

WEIGHTS = {"grabcut": 0.3, "gradcam": 0.5, "sam": 0.2}


def pixels(*votes: list[float]) -> np.ndarray:
    """Votes of a picture of one row: one list of C numbers per pixel."""
    return np.array(votes, dtype=np.float32).T[:, None]


def test_three_sources_by_hand() -> None:
    votes = {
        "grabcut": pixels([1, 0, 0], [0, 1, 0], [0, 1, 0]),
        "gradcam": pixels([0.5, 0.25, 0.25], [0, 0.2, 0.8], [0, 0.8, 0.2]),
        "sam": pixels([1, 0, 0], [0, 1, 0], [0, 0, 1]),
    }
    mask, confidence = fuse_votes(votes, WEIGHTS)
    # pixel 0: .3 + .25 + .2 of 1; pixel 1: .3 + .1 + .2 = .6 against .4; pixel 2: .3 + .4 = .7
    np.testing.assert_allclose(confidence, [[0.75, 0.6, 0.7]], atol=1e-6)
    assert mask.tolist() == [[0, 1, 1]]
    assert mask.dtype == np.uint8
    assert confidence.dtype == np.float32


def test_below_the_threshold_is_uncertain_and_the_threshold_itself_is_not() -> None:
    votes = {"gradcam": pixels([0.6, 0.4], [0.4, 0.6], [0.41, 0.59])}
    mask, _ = fuse_votes(votes, WEIGHTS)
    assert mask.tolist() == [[0, 1, 255]]
    assert fuse_votes(votes, WEIGHTS, uncertain_below=0.59)[0].tolist() == [[0, 1, 1]]


def test_a_source_without_opinion_takes_no_part_in_its_pixels() -> None:
    votes = {"grabcut": pixels([1, 0], [1, 0], [0, 0]), "sam": pixels([0, 1], [0, 0], [0, 0])}
    mask, confidence = fuse_votes(votes, WEIGHTS, uncertain_below=0.0)
    np.testing.assert_allclose(confidence, [[0.6, 1.0, 0.0]], atol=1e-6)
    assert mask.tolist() == [[0, 0, 255]]


def test_weights_are_scaled_over_the_sources_present() -> None:
    assert renormalise(WEIGHTS, ["grabcut", "sam"]) == pytest.approx({"grabcut": 0.6, "sam": 0.4})
    assert renormalise(WEIGHTS, WEIGHTS) == pytest.approx(WEIGHTS)


def test_the_first_of_equal_classes_is_named() -> None:
    mask, confidence = fuse_votes({"sam": pixels([0.5, 0.5])}, WEIGHTS, uncertain_below=0.5)
    assert (mask.item(), confidence.item()) == (0, 0.5)


@pytest.mark.parametrize(
    ("votes", "message"),
    [
        ({}, "Found none"),
        ({"crf": pixels([1, 0])}, "Found none for \\['crf'\\]"),
        ({"sam": pixels([1, 0]), "grabcut": pixels([1, 0], [1, 0])}, "one shape"),
        ({"sam": pixels([1, -0.1])}, "not negative"),
        ({"sam": pixels([1, np.nan])}, "finite"),
    ],
)
def test_errors(votes: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fuse_votes(votes, WEIGHTS)


def test_a_weight_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="weight above 0"):
        fuse_votes({"sam": pixels([1, 0])}, {"sam": 0.0})
