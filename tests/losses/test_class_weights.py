import warnings

import pytest
import torch

from hsl.errors import ConfigError
from hsl.losses.class_weights import weigh_classes

COUNTS = torch.tensor([8_000, 1_500, 500])
METHODS = ["inverse_sqrt", "inverse", "effective_number"]


def test_inverse_sqrt_by_hand() -> None:
    # 1/10 : 1/4 : 1 -> divided by their mean 0.45
    weights = weigh_classes(torch.tensor([10_000, 1_600, 100]), "inverse_sqrt")
    torch.testing.assert_close(weights, torch.tensor([0.1, 0.25, 1.0]) / 0.45)


def test_inverse_by_hand() -> None:
    torch.testing.assert_close(weigh_classes(torch.tensor([3, 1]), "inverse"), torch.tensor([0.5, 1.5]))


def test_effective_number_by_hand() -> None:
    # beta = 1/2: E = 1.5 and 1.75 for 2 and 3 pixels
    raw = torch.tensor([1 / 1.5, 1 / 1.75])
    torch.testing.assert_close(weigh_classes(torch.tensor([2, 3]), "effective_number", beta=0.5), raw / raw.mean())


def test_effective_number_limits() -> None:
    torch.testing.assert_close(weigh_classes(COUNTS, "effective_number", beta=0.0), torch.ones(3))
    near_one = weigh_classes(COUNTS, "effective_number", beta=1 - 1e-12)
    torch.testing.assert_close(near_one, weigh_classes(COUNTS, "inverse"), rtol=1e-4, atol=0)


def test_median_frequency_by_hand() -> None:
    # Shares in the pictures that contain the class: 0.8, 0.3, 0.1; median 0.3.
    weights = weigh_classes(COUNTS, "median_frequency", presence_pixels=torch.tensor([10_000, 5_000, 5_000]))
    raw = torch.tensor([0.3 / 0.8, 1.0, 3.0])
    torch.testing.assert_close(weights, raw / raw.mean())


def test_median_frequency_needs_the_pictures() -> None:
    with pytest.raises(ConfigError, match="presence_pixels"):
        weigh_classes(COUNTS, "median_frequency")


@pytest.mark.parametrize("method", METHODS)
def test_mean_is_one_and_rare_weighs_more(method: str) -> None:
    weights = weigh_classes(COUNTS, method)  # type: ignore[arg-type]
    assert weights.dtype == torch.float32
    assert weights.mean().item() == pytest.approx(1)
    assert weights[0] < weights[1] < weights[2]


@pytest.mark.parametrize("max_ratio", [1.0, 3.0, 40.0])
def test_ratio_holds_after_normalisation(max_ratio: float) -> None:
    weights = weigh_classes(torch.tensor([10**12, 10**6, 10]), "inverse", max_ratio=max_ratio)
    assert (weights.max() / weights.min()).item() == pytest.approx(max_ratio)
    assert weights.mean().item() == pytest.approx(1)


@pytest.mark.parametrize("method", METHODS)
def test_absent_class_weighs_nothing_and_is_named(method: str) -> None:
    with pytest.warns(UserWarning, match="Classes 1, 3 have no pixel") as caught:
        weights = weigh_classes(torch.tensor([900, 0, 100, 0]), method)  # type: ignore[arg-type]
    assert len(caught) == 1
    assert weights[[1, 3]].tolist() == [0, 0]
    torch.testing.assert_close(weights[[0, 2]], weigh_classes(torch.tensor([900, 100]), method))  # type: ignore[arg-type]


def test_list_is_normalised() -> None:
    torch.testing.assert_close(weigh_classes(COUNTS, [1.0, 2, 3]), torch.tensor([0.5, 1.0, 1.5]))


def test_list_may_hold_zero() -> None:
    torch.testing.assert_close(weigh_classes(COUNTS, [0.0, 1.0, 2.0]), torch.tensor([0.0, 1.0, 2.0]))


@pytest.mark.parametrize(
    ("method", "arguments", "words"),
    [
        ("sqrt", {}, "inverse_sqrt.*Found `class_weights = sqrt`"),
        ("inverse", {"max_ratio": 0.5}, "max_ratio"),
        ("effective_number", {"beta": 1.0}, "beta"),
        ([1.0, 2.0], {}, "3 numbers"),
        ([1.0, -2.0, 1.0], {}, "at least 0"),
        ([0.0, 0.0, 0.0], {}, "above 0"),
        ([1.0, float("nan"), 1.0], {}, "finite"),
        ([1.0, 1.0, 41.0], {}, "max_ratio"),
    ],
)
def test_error_table(method: object, arguments: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        weigh_classes(COUNTS, method, **arguments)  # type: ignore[arg-type]


def test_no_pixel_at_all() -> None:
    with pytest.raises(ConfigError, match="labelled pixel"):
        weigh_classes(torch.zeros(3, dtype=torch.int64), "inverse")


def test_one_class() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert weigh_classes(torch.tensor([7]), "inverse_sqrt").tolist() == [1]
