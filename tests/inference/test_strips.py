import pytest
import torch
from tests.inference._inputs import Answers
from torch import nn

from hsl.heads import Head
from hsl.inference.sliding_window import SlidingWindow
from hsl.inference.strips import columns_within, num_strips, predicted_strips

SIZES = [(64, 64), (101, 67), (67, 101), (33, 200), (200, 33), (5, 7), (1, 1), (64, 65), (129, 130)]


class Reads(Answers):
    """Sees zeros beyond the border of a window, and knows where in it a pixel lies: no two windows agree."""

    def __init__(self):
        super().__init__(segmentation="dense", height="map")
        self.conv = nn.Conv2d(3, 4, 5, padding=2, bias=False)
        generator = torch.Generator().manual_seed(0)
        self.conv.weight.data = torch.randn(self.conv.weight.shape, generator=generator)

    def forward(self, images):
        ramp = torch.arange(images.shape[-1], dtype=images.dtype) / 20
        logits = self.conv(images) + ramp * ramp[:, None]
        return {"segmentation": logits, "height": logits[:, :1] * 2}


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_strips_are_the_sliding_window_over_the_whole(size):
    """Whatever columns are done at once, every pixel comes once, with the logits and the class of the whole picture."""
    network, generator = Reads(), torch.Generator().manual_seed(1)
    image = torch.randn((3, *size), generator=generator)
    for window, stride, at_once in ((64, 43, 4), (64, 64, 1), (16, 5, 3)):
        predictor = SlidingWindow(window, stride, at_once, "cpu")
        with torch.no_grad():
            whole = {head: logits[0] for head, logits in predictor(network, image[None]).items()}
            for columns in (1 if size[1] < 40 else 13, 50, 64, 1000):
                made = {head: torch.full_like(logits, float("nan")) for head, logits in whole.items()}
                read = lambda y, x, h, w: image[:, y : y + h, x : x + w]  # noqa: E731
                strips = list(predicted_strips(predictor, network, read, size, columns))
                for strip in strips:
                    for head, logits in strip.outputs.items():
                        assert made[head][:, strip.rows, strip.columns].isnan().all(), "a pixel comes once"
                        made[head][:, strip.rows, strip.columns] = logits
                assert len(strips) == num_strips(predictor, size, columns)
                for head in whole:
                    torch.testing.assert_close(made[head], whole[head], rtol=1e-4, atol=1e-4)
                assert torch.equal(made["segmentation"].argmax(0), whole["segmentation"].argmax(0))


def test_columns_follow_from_the_memory():
    network = Answers()
    network.known_heads = {"a": Head("a", "dense", tuple("xyz")), "distance": Head("distance", "map")}
    assert columns_within(network, 64, 4 * 5 * 64 * 1000) == 1000  # 3 classes, a map, the weights
    assert columns_within(network, 64, 1) == 64
