"""The label quality of a picture equals cleanlab's; only what all models contradict is sure."""

import numpy as np

from hsl.suspects.scores import Evidence, softmin, trust

CLEANLAB = [0.05727129930709255, 0.05725327426769099, 0.048367894679269136, 0.0411224271758069]
"""`cleanlab.segmentation.rank.get_label_quality_scores(labels, probabilities)` of version 2.9.0 for `drawn`."""


def drawn() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet([0.5] * 3, size=(4, 12, 9)).transpose(0, 3, 1, 2)
    return probabilities, generator.integers(0, 3, (4, 12, 9))


def test_softmin_is_that_of_cleanlab() -> None:
    probabilities, labels = drawn()
    for planes, label, expected in zip(probabilities, labels, CLEANLAB, strict=True):
        values = np.take_along_axis(planes, label[None], axis=0)
        np.testing.assert_allclose(softmin(values), expected, rtol=1e-12)


def test_evidence_of_a_picture_takes_the_mean_and_leaves_unknown_pixels_out() -> None:
    probabilities, labels = drawn()
    maps = np.rint(255 * probabilities[:2]).astype(np.uint8)
    mask = labels[0].astype(np.uint8)
    whole = Evidence(mask, maps)
    values = np.take_along_axis(maps.mean(axis=0) / 255, labels[0][None], axis=0)
    np.testing.assert_allclose(whole.softmin, softmin(values), rtol=1e-5)
    mask = mask.copy()
    mask[3:] = 255
    part = Evidence(mask, maps)
    np.testing.assert_allclose(part.softmin, softmin(values[:, :3]), rtol=1e-5)
    assert not part.sureness[3:].any()
    assert np.isnan(Evidence(np.full_like(mask, 255), maps).softmin)


def test_sureness_is_that_of_the_model_nearest_to_the_label() -> None:
    maps = np.zeros((2, 3, 1, 3), np.uint8)
    maps[:, :, 0, 0] = [[0, 255, 0], [51, 204, 0]]  # label 0: both see 1, the second less surely
    maps[:, :, 0, 1] = [[0, 255, 0], [153, 102, 0]]  # label 0: the second agrees with it
    maps[:, :, 0, 2] = [[255, 0, 0], [255, 0, 0]]  # label 0: both agree
    np.testing.assert_allclose(Evidence(np.zeros((1, 3), np.uint8), maps).sureness, [[0.6, 0, 0]])


def test_models_are_trusted_as_far_as_they_are_right_in_the_rest_of_the_picture() -> None:
    total = np.array([[900, 10], [40, 50]])
    knows, knows_not = np.array([[90, 0], [5, 40]]), np.array([[90, 0], [45, 0]])
    assert trust(1, 0, 5, knows, total) > 0.85 > 0.1 > trust(1, 0, 5, knows_not, total)
    # by hand: 40 of 40 others of the class and 5 more at 50 of 90; of the predicted one 90 of 90 and 5 at 900 of 940
    expected = (40 + 5 * 50 / 90) / 45 * (90 + 5 * 900 / 940) / 95
    np.testing.assert_allclose(trust(1, 0, 5, knows, total), expected)
    alone = np.array([[90, 0], [5, 0]])  # nothing else of the class in the picture: as in the data set
    np.testing.assert_allclose(trust(1, 0, 5, alone, total), 50 / 90 * (90 + 5 * 900 / 940) / 95)


def test_counts_leave_unknown_pixels_out() -> None:
    mask = np.array([[0, 1, 255]], np.uint8)
    maps = np.array([[[[255, 255, 0]], [[0, 0, 255]]]], np.uint8)
    np.testing.assert_array_equal(Evidence(mask, maps).counts, [[1, 0], [1, 0]])
