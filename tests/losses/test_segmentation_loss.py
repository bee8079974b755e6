import pytest
import torch
from torch import nn

from hsl.batch import Batch
from hsl.errors import ConfigError
from hsl.losses import functional
from hsl.losses.cross_entropy import Focal
from hsl.losses.overlap import Dice, Lovasz
from hsl.losses.segmentation_loss import SegmentationLoss

COUNTS = {"segmentation": torch.tensor([900, 100])}
WEIGHTS = {"dice": 0.5, "focal": 0.5}


def make_terms() -> dict[str, nn.Module]:
    return {"dice": Dice(), "focal": Focal()}


def make_batch(target: torch.Tensor, head: str = "segmentation") -> Batch:
    return {
        "id": ["a", "b"],
        "image": torch.zeros(2, 3, 4, 4),
        "size": torch.tensor([[4, 4]] * 2),
        "masks": {head: target},
    }


LOGITS = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
TARGET = torch.randint(0, 2, (2, 4, 4), generator=torch.Generator().manual_seed(1))


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
