import pytest
import torch
import ttach
from tests.inference._inputs import Answers
from torch import nn

from hsl.errors import ConfigError
from hsl.inference.predictor import Whole
from hsl.inference.tta import TestTimeAugmentation, turn, turn_back

EIGHT = ["identity", "rot90", "rot180", "rot270", "hflip", "antitranspose", "vflip", "transpose"]
DEFAULT = ["identity", "hflip", "vflip", "rot90"]


def plain(network, images):
    return network(images)


class Lopsided(Answers):
    """A network that is not symmetric: its answer depends on the orientation."""

    def __init__(self, num_classes=4):
        super().__init__(segmentation="dense")
        generator = torch.Generator().manual_seed(0)
        self.conv = nn.Conv2d(3, num_classes, 3, padding=1)
        self.conv.weight.data = torch.randn(self.conv.weight.shape, generator=generator)

    def forward(self, images):
        return {"segmentation": self.conv(images)}


@pytest.mark.parametrize("name", EIGHT)
def test_inverse_is_exact_on_a_picture_that_is_not_square(name):
    images = torch.arange(2 * 3 * 5 * 7).reshape(2, 3, 5, 7)
    assert torch.equal(turn_back(turn(images, name), name), images)


def test_orientations_by_hand():
    image = torch.tensor([[1, 2, 3], [4, 5, 6]])
    expected = {
        "identity": [[1, 2, 3], [4, 5, 6]],
        "hflip": [[3, 2, 1], [6, 5, 4]],
        "vflip": [[4, 5, 6], [1, 2, 3]],
        "rot90": [[3, 6], [2, 5], [1, 4]],
        "rot180": [[6, 5, 4], [3, 2, 1]],
        "rot270": [[4, 1], [5, 2], [6, 3]],
        "transpose": [[1, 4], [2, 5], [3, 6]],
        "antitranspose": [[6, 3], [5, 2], [4, 1]],
    }
    assert {name: turn(image, name).tolist() for name in EIGHT} == expected


class Softmax(nn.Module):
    """ttach averages what the model returns, so its model returns probabilities."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images)["segmentation"].softmax(1)


@torch.no_grad()
@pytest.mark.parametrize(
    ("names", "oracle"),
    [
        (["identity", "hflip"], [ttach.HorizontalFlip()]),
        (["identity", "vflip", "hflip", "rot180"], [ttach.HorizontalFlip(), ttach.VerticalFlip()]),
        (["identity", "rot90", "rot180", "rot270"], [ttach.Rotate90([0, 90, 180, 270])]),
        (["dihedral"], [ttach.HorizontalFlip(), ttach.Rotate90([0, 90, 180, 270])]),
    ],
)
def test_equals_ttach(names, oracle):
    network, images = Lopsided(), torch.randn(2, 3, 12, 9)
    ours = TestTimeAugmentation(plain, names)(network, images)["segmentation"].softmax(1)
    theirs = ttach.SegmentationTTAWrapper(Softmax(network), ttach.Compose(oracle), merge_mode="mean")(images)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_is_the_mean_of_probabilities_not_of_logits():
    network, images = Lopsided(), torch.randn(1, 3, 6, 8)
    logits = [turn_back(network(turn(images, name))["segmentation"], name) for name in DEFAULT]
    mean = sum(each.softmax(1) for each in logits) / 4
    output = TestTimeAugmentation(plain, DEFAULT)(network, images)["segmentation"]
    torch.testing.assert_close(output.exp(), mean)
    torch.testing.assert_close(output.softmax(1), mean)
    assert not torch.allclose(output.softmax(1), (sum(logits) / 4).softmax(1), atol=1e-3)


def test_two_opposed_certainties_give_one_half():
    class Left(Answers):  # sure of class 1 on the left, of class 0 on the right
        def forward(self, images):
            logits = torch.zeros(1, 2, 1, 2)
            logits[0, 1, 0, 0] = logits[0, 0, 0, 1] = 1000.0
            return {"a": logits}

    output = TestTimeAugmentation(plain, ["identity", "hflip"])(Left(a="dense"), torch.zeros(1, 3, 1, 2))["a"]
    torch.testing.assert_close(output.exp(), torch.full((1, 2, 1, 2), 0.5))
    one = TestTimeAugmentation(plain, ["identity"])(Left(a="dense"), torch.zeros(1, 3, 1, 2))["a"]
    assert torch.isfinite(one).all()
    assert one[0, 0, 0, 0] == -1000.0


def test_a_symmetric_network_is_unchanged():
    class Pointwise(Answers):
        def forward(self, images):
            return {"a": images}

    images = torch.randn(2, 3, 5, 7)
    output = TestTimeAugmentation(plain, "dihedral")(Pointwise(a="dense"), images)["a"]
    torch.testing.assert_close(output, images.log_softmax(1), rtol=1e-5, atol=1e-6)


def test_half_precision_is_averaged_in_float32():
    class Half(Answers):
        def forward(self, images):
            return {"a": images.to(torch.bfloat16)}

    images = torch.randn(1, 3, 4, 4)
    output = TestTimeAugmentation(plain, DEFAULT)(Half(a="dense"), images)["a"]
    assert output.dtype == torch.float32
    torch.testing.assert_close(output.exp().sum(1), torch.ones(1, 4, 4), rtol=0, atol=1e-6)


def test_composes_with_padding_on_a_picture_that_is_not_square():
    output = TestTimeAugmentation(Whole(stride=8), DEFAULT)(Lopsided(), torch.randn(1, 3, 13, 22))
    assert output["segmentation"].shape == (1, 4, 13, 22)


def test_several_heads_stay_apart():
    class Two(Answers):
        def forward(self, images):
            return {"a": images, "b": -images[:, :2]}

    images = torch.randn(1, 3, 4, 6)
    outputs = TestTimeAugmentation(plain, DEFAULT)(Two(a="dense", b="dense"), images)
    torch.testing.assert_close(outputs["b"], (-images[:, :2]).log_softmax(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["identity", "rot45"], r"among identity, rot90.*dihedral \(all eight\)\. Found `rot45`"),
        (["hflip", "hflip"], "Found `hflip` twice"),
        (["dihedral", "rot90"], "Found `rot90` twice"),
        ([], "should not be empty"),
    ],
)
def test_wrong_names(names, message):
    with pytest.raises(ConfigError, match=message):
        TestTimeAugmentation(plain, names)


def test_image_heads_and_maps_are_averaged():
    class Sums(Answers):
        def forward(self, images):
            return {"kind": images[:, 0, 0, :2], "depth": images[:, :1], "colours": images}

    images = torch.arange(32.0).reshape(2, 1, 4, 4).expand(2, 3, 4, 4)
    found = TestTimeAugmentation(plain, ["identity", "hflip"])(Sums(kind="image", depth="map", colours="map"), images)
    torch.testing.assert_close(found["depth"], images[:, :1])  # turned there and back
    torch.testing.assert_close(found["colours"], images)
    torch.testing.assert_close(found["kind"], (images[:, 0, 0, :2] + images[:, 0, 0, 2:].flip(-1)) / 2)


def test_embeddings_are_refused():
    class Vectors(Answers):
        def forward(self, images):
            return {"pixels": images}

    with pytest.raises(ConfigError, match="Head `pixels` should give classes or a map"):
        TestTimeAugmentation(plain, DEFAULT)(Vectors(pixels="embedding"), torch.zeros(2, 3, 4, 4))
