"""Memory for time: parts of the encoder run again in the backward pass instead of keeping what they made."""

import functools

from torch import nn
from torch.utils.checkpoint import checkpoint


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
    encoder.forward = functools.partial(checkpoint, encoder.forward, use_reentrant=False)
