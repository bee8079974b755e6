import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.nn.functional import interpolate

from hsl.errors import ConfigError
from hsl.pseudo_labels.networks import cam_votes, class_activation, load_sam, sam_votes
from hsl.pseudo_labels.quality import fuse_votes, renormalise

WEIGHTS = {"grabcut": 0.3, "gradcam": 0.5, "sam": 0.2}
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
IMAGES = torch.randn(3, 3, 24, 40, generator=torch.Generator().manual_seed(1))
CLASSES = torch.tensor([0, 3, 4])


def pixels(*votes: list[float]) -> np.ndarray:
    """Votes of a picture of one row: one list of C numbers per pixel."""
    return np.array(votes, dtype=np.float32).T[:, None]


def test_three_sources_by_hand() -> None:
    votes = {
        "grabcut": pixels([1, 0, 0], [0, 1, 0], [0, 1, 0]),
        "gradcam": pixels([0.5, 0.25, 0.25], [0, 0.2, 0.8], [0, 0.8, 0.2]),
        "sam": pixels([1, 0, 0], [0, 1, 0], [0, 0, 1]),
    }
    mask, confidence = fuse_votes(votes, WEIGHTS)
    # pixel 0: .3 + .25 + .2 of 1; pixel 1: .3 + .1 + .2 = .6 against .4; pixel 2: .3 + .4 = .7
    np.testing.assert_allclose(confidence, [[0.75, 0.6, 0.7]], atol=1e-6)
    assert mask.tolist() == [[0, 1, 1]]
    assert mask.dtype == np.uint8
    assert confidence.dtype == np.float32


def test_below_the_threshold_is_uncertain_and_the_threshold_itself_is_not() -> None:
    votes = {"gradcam": pixels([0.6, 0.4], [0.4, 0.6], [0.41, 0.59])}
    mask, _ = fuse_votes(votes, WEIGHTS)
    assert mask.tolist() == [[0, 1, 255]]
    assert fuse_votes(votes, WEIGHTS, uncertain_below=0.59)[0].tolist() == [[0, 1, 1]]


def test_a_source_without_opinion_takes_no_part_in_its_pixels() -> None:
    votes = {"grabcut": pixels([1, 0], [1, 0], [0, 0]), "sam": pixels([0, 1], [0, 0], [0, 0])}
    mask, confidence = fuse_votes(votes, WEIGHTS, uncertain_below=0.0)
    np.testing.assert_allclose(confidence, [[0.6, 1.0, 0.0]], atol=1e-6)
    assert mask.tolist() == [[0, 0, 255]]


def test_weights_are_scaled_over_the_sources_present() -> None:
    assert renormalise(WEIGHTS, ["grabcut", "sam"]) == pytest.approx({"grabcut": 0.6, "sam": 0.4})
    assert renormalise(WEIGHTS, WEIGHTS) == pytest.approx(WEIGHTS)


def test_the_first_of_equal_classes_is_named() -> None:
    mask, confidence = fuse_votes({"sam": pixels([0.5, 0.5])}, WEIGHTS, uncertain_below=0.5)
    assert (mask.item(), confidence.item()) == (0, 0.5)


@pytest.mark.parametrize(
    ("votes", "message"),
    [
        ({}, "Found none"),
        ({"crf": pixels([1, 0])}, "Found none for \\['crf'\\]"),
        ({"sam": pixels([1, 0]), "grabcut": pixels([1, 0], [1, 0])}, "one shape"),
        ({"sam": pixels([1, -0.1])}, "not negative"),
        ({"sam": pixels([1, np.nan])}, "finite"),
    ],
)
def test_errors(votes: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fuse_votes(votes, WEIGHTS)


def test_a_weight_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="weight above 0"):
        fuse_votes({"sam": pixels([1, 0])}, {"sam": 0.0})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SAM of random weights, small enough for a test."""
    transformers = pytest.importorskip("transformers")
    import torch

    torch.manual_seed(0)
    vision = transformers.SamVisionConfig(
        hidden_size=16, output_channels=16, num_hidden_layers=1, num_attention_heads=2, image_size=64, patch_size=16,
        window_size=2, global_attn_indexes=[0], mlp_dim=32, num_pos_feats=8,
    )  # fmt: skip
    prompt = transformers.SamPromptEncoderConfig(hidden_size=16, image_size=64, patch_size=16, mask_input_channels=4)
    decoder = transformers.SamMaskDecoderConfig(
        hidden_size=16, mlp_dim=32, num_hidden_layers=1, num_attention_heads=2, iou_head_hidden_dim=16
    )
    config = transformers.SamConfig(
        vision_config=vision.to_dict(), prompt_encoder_config=prompt.to_dict(), mask_decoder_config=decoder.to_dict()
    )
    images = transformers.SamImageProcessor(
        size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}, mask_size={"longest_edge": 16},
        mask_pad_size={"height": 16, "width": 16},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("sam")
    transformers.SamModel(config).save_pretrained(folder)
    transformers.SamProcessor(images).save_pretrained(folder)
    return folder


def test_segments_of_a_checkpoint(checkpoint: Path) -> None:
    sam = load_sam(checkpoint, points_per_side=4, predicted_iou=0.0, stability=0.0)
    segments = sam(IMAGE)
    assert segments
    assert {segment.shape for segment in segments} == {(40, 56)}
    assert {segment.dtype for segment in segments} == {np.dtype(bool)}
    for first, second in zip(segments, sam(IMAGE), strict=True):
        np.testing.assert_array_equal(first, second)

    votes = np.zeros((3, 40, 56), dtype=np.float32)
    votes[2] = 1
    covered = np.any(segments, axis=0)
    found = sam_votes(sam, IMAGE, votes)
    np.testing.assert_array_equal(found[2], covered)
    assert not found[:2].any()
    assert covered.any()


def test_a_strict_segmenter_has_no_opinion(checkpoint: Path) -> None:
    sam = load_sam(checkpoint, points_per_side=2, predicted_iou=1.0, stability=1.0)
    assert not sam_votes(sam, IMAGE, np.ones((2, 40, 56), dtype=np.float32)).any()


def test_votes_by_hand() -> None:
    left, middle, right = (np.zeros((1, 6), dtype=bool) for _ in range(3))
    left[0, :2], middle[0, 1:4], right[0, 5] = True, True, True
    votes = np.array([[[0.9, 0.2, 0.1, 0.3, 1.0, 0.0]], [[0.1, 0.8, 0.9, 0.7, 0.0, 0.0]]], dtype=np.float32)
    # left: 1.1 against 0.9; middle: 0.6 against 2.4; right: none has an opinion
    found = sam_votes(lambda _: [left, middle, right], np.zeros((1, 6, 3), np.uint8), votes)
    assert found[:, 0].tolist() == [[1, 0.5, 0, 0, 0, 0], [0, 0.5, 1, 1, 0, 0]]
    assert found.dtype == np.float32


def test_no_segment_no_opinion() -> None:
    votes = np.ones((2, 2, 2), dtype=np.float32)
    assert not sam_votes(lambda _: [], np.zeros((2, 2, 3), np.uint8), votes).any()
    assert (votes == 1).all()


def test_votes_of_another_size() -> None:
    with pytest.raises(ValueError, match="size of the picture"):
        sam_votes(lambda _: [], IMAGE, np.zeros((2, 56, 40), dtype=np.float32))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Put a checkpoint of SAM"):
        load_sam(tmp_path / "nothing")


def test_a_folder_of_another_model(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text('{"model_type": "sam"}', encoding="utf8")
    with pytest.raises(ConfigError, match="cannot be read as a checkpoint of SAM"):
        load_sam(tmp_path)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf8")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"Install `hsl\[sam\]`"):
        load_sam(tmp_path)


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
