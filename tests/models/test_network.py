"""Heads, and the network around them."""

import copy
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from hsl.errors import ConfigError
from hsl.heads import Head
from hsl.models.decoders import deeplabv3plus
from hsl.models.encoders import Encoder
from hsl.models.heads import DenseHead, EmbeddingHead, ImageHead, MapHead
from hsl.models.network import SegmentationNetwork, checkpoint_network

CONF = Path(__file__).parents[2] / "conf"
DECODERS = sorted(path.stem for path in (CONF / "decoder").glob("*.yaml"))
DAMAGE = Head("damage", "dense", ("clean", "crack"))
ENCODERS = ["convnext_atto", "mit_b0", "maxvit_pico", "mobilenetv3_small", "efficientnet_lite0"]


def encoder(name: str, image_size: int = 64) -> Encoder:
    """A copy of one that is built once: building takes longer than what is tested of most."""
    return copy.deepcopy(built_encoder(name, image_size))


@cache
def built_encoder(name: str, image_size: int) -> Encoder:
    torch.manual_seed(0)
    cfg = OmegaConf.create({"data": {"image_size": image_size}})
    cfg.encoder = OmegaConf.load(CONF / "encoder" / f"{name}.yaml")
    cfg.encoder.weights = None
    return instantiate(cfg.encoder)


def network(encoder_name: str, decoder_name: str, **heads: int) -> SegmentationNetwork:
    heads = heads or {"segmentation": 3}
    return SegmentationNetwork(
        encoder(encoder_name),
        instantiate(OmegaConf.load(CONF / "decoder" / f"{decoder_name}.yaml")),
        dict.fromkeys(heads, DenseHead),
        [Head(name, "dense", [str(c) for c in range(num_classes)]) for name, num_classes in heads.items()],
    )


def pairs() -> list[Any]:
    """All of them; by default each decoder with features of every stride and without stride 2, unet with the rest."""
    both = [(encoder, decoder) for encoder in ENCODERS for decoder in DECODERS]
    often = [encoder in ("convnext_atto", "mobilenetv3_small") or decoder == "unet" for encoder, decoder in both]
    return [pytest.param(*each, marks=() if now else pytest.mark.slow) for each, now in zip(both, often, strict=True)]


@pytest.mark.parametrize(("encoder_name", "decoder_name"), pairs())
def test_every_decoder_with_every_family_of_encoders(encoder_name: str, decoder_name: str) -> None:
    torch.manual_seed(0)
    model = network(encoder_name, decoder_name)
    logits = model(torch.rand(2, 3, 64, 64))["segmentation"]
    assert logits.shape == (2, 3, 64, 64)
    logits.square().mean().backward()
    # Parameters that a step does not reach would stop distributed training.
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []
    reached = [bool(parameter.grad.abs().sum() > 0) for parameter in model.parameters()]
    assert sum(reached) >= 0.99 * len(reached)


@pytest.mark.parametrize("decoder_name", DECODERS)
def test_mixed_precision_and_channels_last(decoder_name: str) -> None:
    torch.manual_seed(0)
    model = network("mobilenetv3_small", decoder_name).to(memory_format=torch.channels_last)
    image = torch.rand(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(image)["segmentation"]
    logits.float().square().mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize(("height", "width"), [(32, 96), (128, 64), (160, 32)])
@pytest.mark.parametrize("decoder_name", DECODERS)
def test_any_multiple_of_the_stride(decoder_name: str, height: int, width: int) -> None:
    model = network("mobilenetv3_small", decoder_name).eval()
    assert model.stride == 32
    with torch.inference_mode():
        assert model(torch.rand(1, 3, height, width))["segmentation"].shape == (1, 3, height, width)


@pytest.mark.parametrize(("name", "side", "multiple"), [("mit_b0", 80, 32), ("maxvit_pico", 96, 64)])
def test_other_sizes_are_refused(name: str, side: int, multiple: int) -> None:
    with pytest.raises(ValueError, match=rf"multiples of {multiple}. Found {side} x 64"):
        network(name, "segformer")(torch.rand(1, 3, side, 64))


def test_heads_share_the_features_and_keep_their_names() -> None:
    model = network("mobilenetv3_small", "unet", material=5, damage=2)
    outputs = model(torch.rand(2, 3, 64, 64))
    assert {name: tuple(logits.shape) for name, logits in outputs.items()} == {
        "material": (2, 5, 64, 64),
        "damage": (2, 2, 64, 64),
    }


def test_heads_and_classes_must_agree() -> None:
    make = partial(SegmentationNetwork, encoder("mobilenetv3_small"), class_heads=[DAMAGE])
    with pytest.raises(ConfigError, match=r"\['damage'\].*Found `heads = \['segmentation'\]`"):
        make(
            decoder=instantiate(OmegaConf.load(CONF / "decoder" / "unet.yaml")),
            heads={"segmentation": DenseHead},
        )


def test_one_batch_can_be_learned() -> None:
    torch.manual_seed(0)
    model = network("mobilenetv3_small", "unet", segmentation=2)
    image = torch.rand(2, 3, 64, 64)
    mask = (image[:, 0] > 0.5).long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(25):
        loss = torch.nn.functional.cross_entropy(model(image)["segmentation"], mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("decoder_name", ["hierarchical", "multihead", "unet"])
def test_one_maker_makes_the_heads_of_the_data_whatever_they_are(decoder_name: str) -> None:
    heads = [Head("genus", "dense", ("a", "b", "c")), Head("health", "dense", ("a", "b"))]
    decoder = instantiate(OmegaConf.load(CONF / "decoder" / f"{decoder_name}.yaml"))
    model = SegmentationNetwork(encoder("mobilenetv3_small"), decoder, DenseHead, heads)
    outputs = model(torch.rand(2, 3, 32, 96))
    assert {head: tuple(each.shape) for head, each in outputs.items()} == {
        "genus": (2, 3, 32, 96), "health": (2, 2, 32, 96),
    }  # fmt: skip


@pytest.mark.parametrize("decoder_name", DECODERS)
@pytest.mark.parametrize("encoder_name", ["mit_b0", "mobilenetv3_small"])
def test_what_is_shared_stands_between_encoder_and_decoder(encoder_name: str, decoder_name: str) -> None:
    torch.manual_seed(0)
    model = network(encoder_name, decoder_name).eval()
    seen: list[torch.Tensor] = []

    def detached(features: list[torch.Tensor]) -> list[torch.Tensor]:
        seen.extend(each.detach().requires_grad_(each.numel() > 0) for each in features)
        return seen

    image = torch.rand(1, 3, 64, 64)
    outputs = model(image, share=detached)
    assert torch.equal(outputs["segmentation"], model(image)["segmentation"])
    assert [each.shape[1] for each in seen] == model.encoder.out_channels
    outputs["segmentation"].square().mean().backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert all(p.grad is not None for p in model.decoder.parameters())
    assert all(each.grad is not None for each in seen[4:])


def test_an_image_head_needs_no_decoder() -> None:
    head = Head("kind", "image", ("a", "b", "c"))
    made = SegmentationNetwork(encoder("mobilenetv3_small"), None, {"kind": ImageHead}, [head])
    images = torch.rand(2, 3, 64, 64)
    outputs = made(images)
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {"kind": (2, 3)}
    assert made.embed(images).shape == (2, made.encoder.out_channels[-1])
    outputs["kind"].sum().backward()
    assert [key for key, parameter in made.named_parameters() if parameter.grad is None] == []
    with pytest.raises(ConfigError, match=r"data\.image_labels"):
        SegmentationNetwork(encoder("mobilenetv3_small"), None, {"kind": ImageHead}, [])


def test_only_wanted_heads_are_built_and_only_evaluated_ones_answer_later() -> None:
    further = {
        "hv": partial(MapHead, channels=1),
        "embedding": EmbeddingHead,
        "reconstruction": partial(MapHead, channels=3),
    }
    made = SegmentationNetwork(
        encoder("mobilenetv3_small"),
        instantiate(OmegaConf.load(CONF / "decoder" / "unet.yaml")),
        {"damage": DenseHead},
        [DAMAGE],
        further_heads=further,
        wanted=["damage", "hv", "embedding"],
        evaluated=["hv"],
    )
    images = torch.rand(2, 3, 64, 64)
    assert {name: head.kind for name, head in made.known_heads.items()} == {
        "damage": "dense", "hv": "map", "embedding": "embedding",
    }  # fmt: skip
    assert set(made.heads) == set(made(images)) == made.known_heads.keys()
    assert set(made.eval()(images)) == {"damage", "hv"}


IMAGE = Head("classification", "image", ("c", "d"))


class Encoder(nn.Module):
    """A pyramid of six strides."""

    out_channels = (3, 4, 4, 8, 8, 8)
    stride = 32
    fixed_size = False

    def __init__(self) -> None:
        super().__init__()
        pairs = zip(self.out_channels, self.out_channels[1:], strict=False)
        self.stages = nn.ModuleList(nn.Conv2d(first, second, 3, 2, 1) for first, second in pairs)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        features = [image]
        for stage in self.stages:
            features.append(torch.tanh(stage(features[-1])))
        return features


def made() -> SegmentationNetwork:
    torch.manual_seed(0)
    decoder = partial(deeplabv3plus, channels=8, skip_channels=4, rates=[2, 4, 6], dropout=0.0)
    heads = {"segmentation": DenseHead, "classification": ImageHead}
    known = [Head("segmentation", "dense", ("a", "b")), IMAGE]
    return SegmentationNetwork(Encoder(), decoder, heads, known)  # type: ignore[arg-type]


def test_the_decoder_is_run_again_too_and_no_gradient_changes() -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    gradients, calls = [], []
    for checkpointed in (False, True):
        network = made()
        network.heads["classification"].dropout = nn.Identity()
        counts = {"encoder": 0, "decoder": 0}
        for name, inner in (("encoder", network.encoder.stages[0]), ("decoder", network.decoder.body)):

            def count(*_: object, name: str = name, counts: dict[str, int] = counts) -> None:
                counts[name] += 1

            inner.register_forward_pre_hook(count)  # the second run ends once all that is missing is there
        if checkpointed:
            checkpoint_network(network)
        outputs = network(images)
        sum(output.square().mean() for output in outputs.values()).backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
        calls.append(counts)
    assert calls == [{"encoder": 1, "decoder": 1}, {"encoder": 2, "decoder": 2}]
    assert all(torch.allclose(*pair, atol=1e-7) for pair in zip(*gradients, strict=True))


def test_a_network_of_image_heads_alone_has_no_decoder_to_run_again() -> None:
    head = {"classification": ImageHead}
    network = SegmentationNetwork(Encoder(), None, head, [IMAGE])  # type: ignore[arg-type]
    checkpoint_network(network)
    network(torch.randn(2, 3, 64, 64))["classification"].sum().backward()
    assert all(parameter.grad is not None for parameter in network.encoder.parameters())


def test_where_the_encoder_looks_is_shown_in_training_where_it_is_asked_for() -> None:
    heads = {"classification": ImageHead}
    classes = [Head("classification", "image", ("a", "b"))]
    plain = SegmentationNetwork(encoder("mit_b0"), None, heads, classes)
    asked = SegmentationNetwork(encoder("mit_b0"), None, heads, classes, wanted=("attention",))
    assert plain.state_dict().keys() == asked.state_dict().keys()
    image = torch.rand(2, 3, 64, 96)
    assert plain(image).keys() == asked.eval()(image).keys() == {"classification"}
    shown = asked.train()(image)["attention"]
    torch.testing.assert_close(shown, asked.encoder(image)[-1].square().mean(dim=1, keepdim=True))
    assert shown.shape == (2, 1, 2, 3)
    assert asked.known_heads["attention"].kind == "map"


# Heads.


@pytest.mark.parametrize(("upsampling", "kernel_size", "expected"), [(1, None, 3), (4, None, 1), (4, 3, 3), (1, 1, 1)])
def test_convolution_follows_the_resolution(upsampling: int, kernel_size: int | None, expected: int) -> None:
    head = DenseHead(8, 5, upsampling, kernel_size)
    assert head.classify.kernel_size == (expected, expected)
    assert head(torch.rand(2, 8, 6, 10)).shape == (2, 5, 6 * upsampling, 10 * upsampling)


def test_upsampling_is_bilinear_between_pixel_centres() -> None:
    head = DenseHead(1, 1, 2)
    with torch.no_grad():
        head.classify.weight.fill_(1.0)
        logits = head(torch.tensor([[[[0.0, 4.0]]]]))
    # Centres of the four new columns lie at -0.25, 0.25, 0.75 and 1.25 of the old ones.
    assert torch.allclose(logits[0, 0, 0], torch.tensor([0.0, 1.0, 3.0, 4.0]))


def test_constant_map_stays_constant_to_the_border() -> None:
    head = DenseHead(2, 3, 4)
    logits = head(torch.ones(1, 2, 3, 3))
    assert torch.allclose(logits, logits[:, :, :1, :1].expand_as(logits))


def test_an_image_head_reads_the_mean_of_the_features() -> None:
    head = ImageHead(4, 3, dropout=0.0)
    features = torch.randn(2, 4, 5, 6)
    torch.testing.assert_close(head(features), head.classify(features.mean(dim=(2, 3))))
    with pytest.raises(ConfigError, match="dropout = 1"):
        ImageHead(4, 3, dropout=1)


def test_a_map_head_answers_at_full_size_between_0_and_1() -> None:
    values = MapHead(8, upsampling=4, channels=3)(torch.randn(2, 8, 5, 6) * 10)
    assert values.shape == (2, 3, 20, 24)
    assert 0 <= values.min() <= values.max() <= 1


@pytest.mark.parametrize(("upsampling", "size"), [(1, (2, 16, 4, 6)), (4, (2, 16, 16, 24))])
def test_an_embedding_has_length_one(upsampling: int, size: tuple[int, ...]) -> None:
    embedding = EmbeddingHead(8, upsampling=upsampling, dimension=16)(torch.randn(2, 8, 16, 24))
    assert embedding.shape == size
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(size[0], *size[2:]))
    with pytest.raises(ConfigError, match="stride = 4"):
        EmbeddingHead(8, upsampling=8)
