import pytest
import torch
from segmentation_models_pytorch.losses import LovaszLoss

from hsl.losses.lovasz import Lovasz


def test_by_hand() -> None:
    # Errors of class 0: (1/4 at its pixel, 3/4 at the other). Sorted: 3/4 (background), 1/4 (foreground).
    # Jaccard loss after the first error 1/2, after both 1: steps 1/2, 1/2, so 1/2 in all.
    # Class 1: errors 3/4 (foreground), 1/4 (background); Jaccard loss 1 at once, so 3/4.
    logits = torch.tensor([[3.0, 3.0], [1.0, 1.0]]).log().view(1, 2, 1, 2)
    assert Lovasz()(logits, torch.tensor([[[0, 1]]])).item() == pytest.approx(0.625)


def test_equal_to_smp() -> None:
    logits, target = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    target[0, 0] = 255
    peer = LovaszLoss("multiclass", ignore_index=255)
    torch.testing.assert_close(Lovasz()(logits, target), peer(logits, target))


def test_certain_prediction_is_one_minus_mean_iou() -> None:
    target, prediction = torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 1, 1, 1]]])
    logits = 60.0 * torch.nn.functional.one_hot(prediction, 2).movedim(-1, 1).float()
    assert Lovasz()(logits, target).item() == pytest.approx(1 - (1 / 2 + 2 / 3) / 2)
