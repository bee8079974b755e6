"""What two channels show at one pixel comes through every predictor."""

import pytest
import torch
from tests.inference._inputs import Answers
from torch import Tensor

from hsl.inference.channels import channel_codes
from hsl.inference.predictor import Predictor
from hsl.inference.sliding_window import SlidingWindow
from hsl.inference.tta import TestTimeAugmentation
from hsl.inference.whole import Whole

CHANNELS = ("leaf", "symptom", "margin")


class SeesColours(Answers):
    """Finds each channel where its colour is bright, pixel by pixel."""

    def forward(self, images: Tensor, share: object = None) -> dict[str, Tensor]:
        return {name: torch.stack([-images[:, k], images[:, k]], 1) for k, name in enumerate(CHANNELS)}


WHOLE = Whole(stride=1)
WINDOWS = SlidingWindow(window=16, stride=8, windows_per_batch=3, stitch_device="cpu")


@pytest.mark.parametrize(
    "predictor",
    [WHOLE, TestTimeAugmentation(WHOLE, "dihedral"), WINDOWS, TestTimeAugmentation(WINDOWS, ["identity", "rot90"])],
    ids=["whole", "tta", "windows", "both"],
)
def test_every_combination_survives(predictor: Predictor) -> None:
    shown = torch.rand(2, 3, 24, 40, generator=torch.Generator().manual_seed(0)) < 0.5
    codes, confidence = channel_codes(
        predictor(SeesColours(**dict.fromkeys(CHANNELS, "dense")), shown.float() * 4 - 2), CHANNELS
    )
    expected = sum(shown[:, k].to(torch.uint8) << k for k in range(3))
    assert codes.unique().tolist() == list(range(8))
    assert torch.equal(codes.cpu(), expected)
    torch.testing.assert_close(confidence.cpu(), torch.full((2, 24, 40), torch.sigmoid(torch.tensor(4.0)).item()))
