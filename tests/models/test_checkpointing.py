from functools import partial

import torch
from torch import nn

from hsl.heads import Head
from hsl.models.checkpointing import checkpoint_network
from hsl.models.decoders import deeplabv3plus
from hsl.models.heads import DenseHead, ImageHead
from hsl.models.network import SegmentationNetwork

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
