import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.nn.functional import interpolate

from hsl.pseudo_labels.gradcam import cam_votes, class_activation


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 6, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> list[Tensor]:
        first = self.norm(self.first(images)).relu()
        return [images, first, self.last(first)]


class Network(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.encoder, self.head, self.dropout = Encoder(), nn.Linear(6, 5), nn.Dropout(0.5)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        deepest = self.encoder(images)[-1]
        return {"classification": self.head(self.dropout(deepest.relu().square().mean((2, 3))))}


class Plain(nn.Module):
    """What the package takes by itself: one tensor of logits."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)["classification"]


IMAGES = torch.randn(3, 3, 24, 40, generator=torch.Generator().manual_seed(1))
CLASSES = torch.tensor([0, 3, 4])


def test_equals_the_library() -> None:
    network = Network()
    found = class_activation(network, IMAGES, CLASSES)
    plain = GradCAM(Plain(network), [network.encoder.last])
    expected = plain(IMAGES, [ClassifierOutputTarget(int(index)) for index in CLASSES])
    assert found.shape == (3, 24, 40)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    assert expected.any(axis=(1, 2)).all()


def test_equals_the_formula() -> None:
    network = Network().eval()
    deepest = network.encoder(IMAGES)[-1].detach().requires_grad_()
    logits = network.head(deepest.relu().square().mean((2, 3)))
    gradient = torch.autograd.grad(logits[torch.arange(3), CLASSES].sum(), deepest)[0]
    maps = (gradient.mean((2, 3), keepdim=True) * deepest).sum(1, keepdim=True).relu()
    maps = interpolate(maps, (24, 40), mode="bilinear")[:, 0].detach().numpy()
    lowest, highest = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    found = class_activation(network, IMAGES, CLASSES)
    np.testing.assert_allclose(found, (maps - lowest) / (highest - lowest), atol=1e-4)
    np.testing.assert_allclose(found.max((1, 2)), 1, atol=1e-6)


def test_a_picture_does_not_depend_on_its_batch() -> None:
    network = Network()
    together = class_activation(network, IMAGES, CLASSES)
    alone = class_activation(network, IMAGES[1:2], CLASSES[1:2])
    np.testing.assert_allclose(together[1:2], alone, atol=1e-5)


def test_the_network_is_left_as_it_was() -> None:
    network = Network().train()
    network.dropout.eval()
    network.encoder.last.weight.requires_grad_(False)
    network.head.weight.grad = (grad := torch.ones_like(network.head.weight))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    class_activation(network, IMAGES, CLASSES)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [name for name, each in network.named_modules() if not each.training] == ["dropout"]
    assert [name for name, each in network.named_parameters() if not each.requires_grad] == ["encoder.last.weight"]
    assert [name for name, each in network.named_parameters() if each.grad is not None] == ["head.weight"]
    assert network.head.weight.grad is grad
    assert grad.eq(1).all()
    assert not any(each._forward_hooks or each._backward_hooks for each in network.modules())


def test_frozen_networks_and_no_grad_give_the_same() -> None:
    network = Network()
    expected = class_activation(network, IMAGES, CLASSES)
    network.requires_grad_(False)
    with torch.no_grad():
        np.testing.assert_array_equal(class_activation(network, IMAGES, CLASSES), expected)


def test_a_map_that_is_0_everywhere_stays_0() -> None:
    network = Network()
    network.head.weight.data.zero_()
    assert not class_activation(network, IMAGES, CLASSES).any()


@pytest.mark.parametrize(
    ("classes", "head", "message"),
    [
        ([0, 1], "classification", "one per picture"),
        ([0, 1, 5], "classification", r"\[0, 5\)"),
        ([0, -1, 2], "classification", r"\[0, 5\)"),
        ([0, 1, 2], "grade", "Found `head = grade`"),
    ],
)
def test_errors_leave_the_network_alone(classes: list[int], head: str, message: str) -> None:
    network = Network().train()
    with pytest.raises(ValueError, match=message):
        class_activation(network, IMAGES, torch.tensor(classes), head)
    assert network.training
    assert network.head.weight.requires_grad
    assert not any(each._forward_hooks for each in network.modules())


def test_votes_of_an_activation() -> None:
    cam = np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
    votes = cam_votes(cam, channel=1, num_classes=3)
    assert votes.tolist() == [[[0.5, 0.25, 0.0]], [[0.0, 0.5, 1.0]], [[0.5, 0.25, 0.0]]]
    assert votes.dtype == np.float32


@pytest.mark.parametrize(
    ("cam", "channel", "num_classes", "message"),
    [(0.5, 3, 3, "Found 3 of 3"), (0.5, 0, 1, "two or more"), (1.5, 0, 2, "1.5"), (np.nan, 0, 2, "lie in")],
)
def test_votes_of_what_is_no_activation(cam: float, channel: int, num_classes: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cam_votes(np.full((1, 1), cam, dtype=np.float32), channel, num_classes)
