import math

import pytest
import torch
from monai.inferers import sliding_window_inference
from tests.inference._inputs import Answers
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from hsl.errors import ConfigError
from hsl.inference import sliding_window
from hsl.inference.geometry import starts
from hsl.inference.predictor import Whole
from hsl.inference.sliding_window import SlidingWindow, gaussian
from hsl.inference.tta import TestTimeAugmentation, turn, turn_back

pytestmark = pytest.mark.usefixtures("without_gradients")
SIZES = [(64, 64), (101, 67), (67, 101), (33, 200), (5, 7), (1, 1), (20, 90), (64, 65)]


@pytest.fixture
def without_gradients():
    with torch.no_grad():
        yield


class Echo(Answers):
    """Answers with its input under two heads, and remembers what it was given."""

    def __init__(self):
        super().__init__(texture="dense", colour="map")
        self.batches = []

    def forward(self, images):
        self.batches.append(len(images))
        assert images.shape[1:] == (3, 64, 64)  # as a network of one fixed size would
        return {"texture": images, "colour": images}


class Edgy(Answers):
    """Reads 2 pixels to each side, and sees zeros beyond the border of what it is given."""

    def __init__(self, num_classes=4):
        super().__init__(segmentation="dense")
        generator = torch.Generator().manual_seed(0)
        self.conv = nn.Conv2d(3, num_classes, 5, padding=2, bias=False)
        self.conv.weight.data = torch.randn(self.conv.weight.shape, generator=generator)

    def forward(self, images):
        return {"segmentation": self.conv(images)}


class Positioned(Answers):
    """The logit is where in the window the pixel lies: no two windows agree on a pixel."""

    def __init__(self):
        super().__init__(a="dense")

    def forward(self, images):
        ramp = torch.arange(images.shape[-1], dtype=images.dtype)
        return {"a": (images[:, :1] + ramp + 3 * ramp[:, None])}


def predictor(window=64, stride=43, windows_per_batch=4, stitch_device="cpu"):
    return SlidingWindow(window, stride, windows_per_batch, stitch_device)


def monai(network, images, head, stride=43, window=64):
    overlap = max(0.0, 1 - (stride + 0.5) / window)  # MONAI cuts the stride down to whole pixels
    return sliding_window_inference(
        images, window, 4, lambda x: network(x)[head].clone(), overlap=overlap, mode="gaussian"
    )


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(("stride", "windows_per_batch"), [(43, 1), (32, 4), (64, 3), (5, 64)])
def test_an_identity_network_reproduces_its_input(height, width, stride, windows_per_batch):
    images = torch.randn(2, 3, height, width)
    before = images.clone()
    outputs = predictor(stride=stride, windows_per_batch=windows_per_batch)(Echo(), images)
    assert list(outputs) == ["texture", "colour"]
    for output in outputs.values():  # two heads that are one tensor do not disturb each other, nor the input
        torch.testing.assert_close(output, before, rtol=1e-5, atol=1e-5)
    assert torch.equal(images, before)


@pytest.mark.parametrize(("height", "width"), [size for size in SIZES if min(size) >= 64])
@pytest.mark.parametrize("stride", [43, 32, 64])
def test_equals_monai_where_windows_disagree(height, width, stride):
    images = torch.randn(2, 3, height, width)
    output = predictor(stride=stride)(Positioned(), images)["a"]
    torch.testing.assert_close(output, monai(Positioned(), images, "a", stride), rtol=1e-5, atol=1e-5)


def test_the_weighted_mean_by_hand():
    """Two windows of 4 over 6 pixels: where both lie, the mean of two answers by their Gaussian weights."""
    output = predictor(window=4, stride=2)(Positioned(), torch.zeros(1, 3, 4, 6))["a"][0, 0, 0]
    near, far = (math.exp(-(d**2) / (2 * 0.5**2)) for d in (0.5, 1.5))
    near, far = (max(w * far, 1e-3) for w in (near, far))  # in the first row, 1.5 above the middle
    third = (near * 2 + far * 0) / (near + far)
    fourth = (far * 3 + near * 1) / (near + far)
    torch.testing.assert_close(output, torch.tensor([0, 1, third, fourth, 2, 3]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("side", "stride"), [(64, 43), (65, 43), (107, 43), (108, 43), (500, 1), (129, 64)])
def test_every_pixel_is_covered_and_no_window_leaves_the_picture(side, stride):
    found = starts(side, 64, stride)
    assert {p for start in found for p in range(start, start + 64)} == set(range(side))
    assert found == sorted(set(found))
    assert found[:-1] == list(range(0, side - 64, stride))


def test_weights_are_gaussian_with_a_floor():
    weights = gaussian(65, torch.device("cpu"))
    sigma = 65 / 8
    assert weights.max() == weights[32, 32] == 1
    assert weights[32, 40].item() == pytest.approx(math.exp(-(8**2) / (2 * sigma**2)), rel=1e-6)
    assert weights.min().item() == pytest.approx(1e-3)


def away_from_borders(side, window, stride, reach):
    """Pixels that lie at least ``reach`` inside of every window that they are in."""
    windows = [(start, start + window) for start in starts(side, window, stride)]
    return [p for p in range(side) if all(not a <= p < b or a + reach <= p < b - reach for a, b in windows)]


@pytest.mark.parametrize("stride", [64, 43])
def test_equals_the_whole_picture_where_the_receptive_field_allows(stride):
    images = torch.randn(1, 3, 150, 170)
    whole = Edgy()(images)["segmentation"]
    output = predictor(stride=stride)(Edgy(), images)["segmentation"]
    rows, columns = (away_from_borders(side, 64, stride, reach=2) for side in (150, 170))
    assert len(rows) > 130
    torch.testing.assert_close(output[:, :, rows][..., columns], whole[:, :, rows][..., columns], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(output, whole, atol=1e-3)  # near the borders it cannot be equal


def test_windows_of_several_pictures_share_a_batch():
    network = Echo()
    predictor(windows_per_batch=8)(network, torch.randn(3, 3, 100, 100))  # 4 windows each
    assert network.batches == [8, 4]


class Banded(sliding_window._Band):
    """As where the network has a device of its own: with the CPU in its place."""

    def __init__(self, shape, axis, window, device, stitch_device):
        super().__init__(shape, axis, window, device, stitch_device)
        self._result.fill_(math.nan)  # whatever is not written shows
        self._sums = torch.zeros_like(self._result[0].narrow(axis, 0, window))


@pytest.mark.parametrize(("height", "width"), [(101, 67), (67, 101), (150, 260), (260, 150), (40, 200), (64, 64)])
@pytest.mark.parametrize("stride", [43, 32, 64, 5])
def test_a_band_at_a_time_gives_the_same(monkeypatch, height, width, stride):
    images = torch.randn(3, 3, height, width)
    expected = predictor(stride=stride)(Positioned(), images)["a"]
    monkeypatch.setattr(sliding_window, "_Band", Banded)
    output = predictor(stride=stride, windows_per_batch=7)(Positioned(), images)["a"]
    torch.testing.assert_close(output, expected, rtol=1e-6, atol=1e-6)


class LargestTensor(TorchDispatchMode):
    """The most elements that one tensor on the CPU has had."""

    def __init__(self):
        super().__init__()
        self.num_elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.device.type == "cpu":
            self.num_elements = max(self.num_elements, result.numel())
        return result


@pytest.mark.parametrize("length", [200, 900])
def test_the_device_holds_a_batch_and_a_band_whatever_the_length(length):
    with LargestTensor() as largest:
        predictor(windows_per_batch=2, stitch_device="meta")(Edgy(num_classes=30), torch.randn(1, 3, 64, length))
    assert largest.num_elements == 2 * 30 * 64 * 64


def test_the_result_lies_on_the_stitch_device():
    output = predictor(stitch_device="meta")(Edgy(), torch.randn(1, 3, 100, 120))["segmentation"]
    assert output.device.type == "meta"
    assert output.shape == (1, 4, 100, 120)


def test_half_precision_is_summed_in_float32():
    images = torch.randn(1, 3, 100, 130)
    output = predictor()(Echo(), images.bfloat16())["texture"]
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, images.bfloat16().float(), rtol=1e-6, atol=1e-6)


def test_under_autocast_the_windows_are_rounded_and_the_sums_are_not():
    class Rounded(Edgy):
        def forward(self, images):
            with torch.autocast("cpu", torch.bfloat16):
                return {head: logits.float() for head, logits in super().forward(images).items()}

    images = torch.randn(1, 3, 100, 130)
    with torch.autocast("cpu", torch.bfloat16):
        output = predictor()(Edgy(), images)["segmentation"]
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, monai(Rounded(), images, "segmentation"), rtol=1e-5, atol=1e-5)


def test_composes_with_test_time_augmentation():
    images, names = torch.randn(2, 3, 90, 130), ["identity", "hflip", "vflip", "rot90"]
    output = TestTimeAugmentation(predictor(), names)(Edgy(), images)["segmentation"]
    by_hand = [
        turn_back(predictor()(Edgy(), turn(images, name))["segmentation"], name).softmax(dim=1) for name in names
    ]
    torch.testing.assert_close(output.exp(), sum(by_hand) / 4)


def test_a_picture_of_one_window_is_one_look():
    images = torch.randn(2, 3, 64, 64)
    output = predictor()(Edgy(), images)["segmentation"]
    torch.testing.assert_close(output, Whole(stride=64)(Edgy(), images)["segmentation"])


@pytest.mark.parametrize(
    ("kind", "answer"), [("image", lambda x: x.mean((2, 3))), ("embedding", lambda x: F.avg_pool2d(x, 4))]
)
def test_a_head_that_is_not_dense_is_an_error(kind, answer):
    class Other(Answers):
        def forward(self, images):
            return {"severity": answer(images)}

    with pytest.raises(ValueError, match=r"Head `severity` should give logits .*\(B, C, 64, 64\).* Found shape"):
        predictor()(Other(severity=kind), torch.zeros(1, 3, 100, 100))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"window": 0}, "`window` should be in"),
        ({"stride": 65}, r"`stride` should be in \[1, 64\]. Found `stride = 65`"),
        ({"stride": 0}, "Found `stride = 0`"),
        ({"windows_per_batch": 0}, "`windows_per_batch` should be in"),
    ],
)
def test_arguments_outside_their_range(given, message):
    with pytest.raises(ConfigError, match=message):
        predictor(**given)
