import warnings

import pytest
import torch
from torch import nn

from hsl.batch import Batch
from hsl.errors import ConfigError
from hsl.losses import functional
from hsl.losses.class_weights import weigh_classes
from hsl.losses.cross_entropy import Focal
from hsl.losses.overlap import Dice, Lovasz
from hsl.losses.segmentation_loss import SegmentationLoss

COUNTS = {"segmentation": torch.tensor([900, 100])}
WEIGHTS = {"dice": 0.5, "focal": 0.5}
LOGITS = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
TARGET = torch.randint(0, 2, (2, 4, 4), generator=torch.Generator().manual_seed(1))
PIXELS_OF_CLASSES = torch.tensor([8_000, 1_500, 500])
METHODS = ["inverse_sqrt", "inverse", "effective_number"]


def make_terms() -> dict[str, nn.Module]:
    return {"dice": Dice(), "focal": Focal()}


def make_batch(target: torch.Tensor, head: str = "segmentation") -> Batch:
    return {
        "id": ["a", "b"],
        "image": torch.zeros(2, 3, 4, 4),
        "size": torch.tensor([[4, 4]] * 2),
        "masks": {head: target},
    }


def test_objectives_are_the_unweighted_terms() -> None:
    loss = SegmentationLoss(make_terms(), WEIGHTS, COUNTS)
    objectives = loss({"segmentation": LOGITS}, make_batch(TARGET))
    weights = torch.tensor([0.5, 1.5])
    assert list(objectives) == ["dice", "focal"]
    torch.testing.assert_close(objectives["dice"], functional.soft_dice(LOGITS, TARGET, weights))
    torch.testing.assert_close(objectives["focal"], functional.focal(LOGITS, TARGET, weights))
    assert loss.weights == WEIGHTS


def test_null_class_weights() -> None:
    loss = SegmentationLoss(make_terms(), WEIGHTS, COUNTS, class_weights=None)
    objectives = loss({"segmentation": LOGITS}, make_batch(TARGET))
    torch.testing.assert_close(objectives["focal"], functional.focal(LOGITS, TARGET))


def test_another_head() -> None:
    loss = SegmentationLoss(make_terms(), WEIGHTS, {"damage": COUNTS["segmentation"]}, head="damage")
    batch = make_batch(TARGET, "damage")
    assert loss({"damage": LOGITS, "other": LOGITS[:1]}, batch)["dice"] > 0


def test_float32_under_autocast() -> None:
    loss = SegmentationLoss(make_terms(), WEIGHTS, COUNTS)
    half = LOGITS.bfloat16()
    plain = loss({"segmentation": half.float()}, make_batch(TARGET))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = loss({"segmentation": half}, make_batch(TARGET))
    for name, value in mixed.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, plain[name])


def test_class_weights_move_with_the_module_and_stay_out_of_checkpoints() -> None:
    loss = SegmentationLoss(make_terms(), WEIGHTS, COUNTS)
    assert loss.state_dict() == {}
    assert loss.to("meta").class_weights.is_meta  # type: ignore[union-attr]


def test_presence_pixels_reach_median_frequency() -> None:
    pixels = {"segmentation": torch.tensor([1000, 200])}
    loss = SegmentationLoss(make_terms(), WEIGHTS, COUNTS, "median_frequency", presence_pixels=pixels)
    raw = torch.tensor([1 / 0.9, 1 / 0.5])
    torch.testing.assert_close(loss.class_weights, raw / raw.mean())


def test_a_term_without_class_weights_is_named() -> None:
    terms = {"dice": Dice(), "lovasz": Lovasz()}
    with pytest.warns(UserWarning, match="take no class weights.*lovasz"):
        loss = SegmentationLoss(terms, {"dice": 1.0, "lovasz": 1.0}, COUNTS)
    objectives = loss({"segmentation": LOGITS}, make_batch(TARGET))
    torch.testing.assert_close(objectives["lovasz"], Lovasz()(LOGITS, TARGET))


def test_class_weights_that_nothing_takes() -> None:
    with pytest.raises(ConfigError, match="class_weights=null"):
        SegmentationLoss({"lovasz": Lovasz()}, {"lovasz": 1.0}, COUNTS)


@pytest.mark.parametrize("weights", [{"dice": 1.0}, {"dice": 1.0, "focal": 1.0, "ce": 1.0}, {}])
def test_terms_and_weights_must_match(weights: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"\['dice', 'focal'\]"):
        SegmentationLoss(make_terms(), weights, COUNTS)


def test_no_terms() -> None:
    with pytest.raises(ConfigError, match="terms"):
        SegmentationLoss({}, {}, COUNTS)


def test_unknown_head() -> None:
    with pytest.raises(ConfigError, match=r"one of \['segmentation'\].*Found `loss.head = depth`"):
        SegmentationLoss(make_terms(), WEIGHTS, COUNTS, head="depth")


def test_logits_with_another_number_of_classes() -> None:
    loss = SegmentationLoss(make_terms(), WEIGHTS, COUNTS)
    with pytest.raises(ValueError, match="3 channels"):
        loss({"segmentation": torch.zeros(2, 3, 4, 4)}, make_batch(TARGET))


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
    torch.testing.assert_close(weigh_classes(PIXELS_OF_CLASSES, "effective_number", beta=0.0), torch.ones(3))
    near_one = weigh_classes(PIXELS_OF_CLASSES, "effective_number", beta=1 - 1e-12)
    torch.testing.assert_close(near_one, weigh_classes(PIXELS_OF_CLASSES, "inverse"), rtol=1e-4, atol=0)


def test_median_frequency_by_hand() -> None:
    # Shares in the pictures that contain the class: 0.8, 0.3, 0.1; median 0.3.
    weights = weigh_classes(PIXELS_OF_CLASSES, "median_frequency", presence_pixels=torch.tensor([10_000, 5_000, 5_000]))
    raw = torch.tensor([0.3 / 0.8, 1.0, 3.0])
    torch.testing.assert_close(weights, raw / raw.mean())


def test_median_frequency_needs_the_pictures() -> None:
    with pytest.raises(ConfigError, match="presence_pixels"):
        weigh_classes(PIXELS_OF_CLASSES, "median_frequency")


@pytest.mark.parametrize("method", METHODS)
def test_mean_is_one_and_rare_weighs_more(method: str) -> None:
    weights = weigh_classes(PIXELS_OF_CLASSES, method)  # type: ignore[arg-type]
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
    torch.testing.assert_close(weigh_classes(PIXELS_OF_CLASSES, [1.0, 2, 3]), torch.tensor([0.5, 1.0, 1.5]))


def test_list_may_hold_zero() -> None:
    torch.testing.assert_close(weigh_classes(PIXELS_OF_CLASSES, [0.0, 1.0, 2.0]), torch.tensor([0.0, 1.0, 2.0]))


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
        weigh_classes(PIXELS_OF_CLASSES, method, **arguments)  # type: ignore[arg-type]


def test_no_pixel_at_all() -> None:
    with pytest.raises(ConfigError, match="labelled pixel"):
        weigh_classes(torch.zeros(3, dtype=torch.int64), "inverse")


def test_one_class() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert weigh_classes(torch.tensor([7]), "inverse_sqrt").tolist() == [1]
