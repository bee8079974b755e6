"""Memory for time: parts of the network run again in the backward pass instead of keeping what they made."""

import functools

from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_network(network: nn.Module) -> None:
    """Checkpoint the gradients of the encoder, see `checkpoint_gradients`, and of the decoder as a whole.

    Args:
        network: an `hsl.models.network.SegmentationNetwork`; one of image heads alone has no decoder.
    """
    checkpoint_gradients(network.get_submodule("encoder"))
    if getattr(network, "decoder", None) is not None:
        _run_again(network.get_submodule("decoder"))


def checkpoint_gradients(encoder: nn.Module) -> None:
    """Keep only the borders of the encoder's stages, or where it has no such switch only its input and output.

    Gradients are the same (Chen 2016, "Training Deep Nets with Sublinear Memory Cost"); the encoder's forward pass is
    run twice. Running statistics of batch norm see each batch twice; who calls the backward pass takes that back.

    Args:
        encoder: an `hsl.models.encoders.Encoder`, or any module.
    """
    # smp wraps timm's networks in `model`; its own encoders may inherit timm's switch without reading it
    network = getattr(getattr(encoder, "body", None), "model", None)
    for one in (network, getattr(network, "model", None)):  # the second: where timm wraps a network once more
        switch = getattr(one, "set_grad_checkpointing", None)
        if switch is not None:
            switch(True)
            return
    _run_again(encoder)


def _run_again(module: nn.Module) -> None:
    """Keep the input and the output of a module only."""
    module.forward = functools.partial(checkpoint, module.forward, use_reentrant=False)
