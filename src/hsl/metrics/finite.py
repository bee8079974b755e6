"""The check that every output of a network is a number."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hsl.errors import NonFiniteLogitsError


def broken_images(outputs: Tensor) -> Tensor:
    """Which images have an output that is NaN or infinite.

    It does not wait for an accelerator, and needs no memory of the size of the outputs.

    Args:
        outputs: ``(B, ...)``, floating point.

    Returns:
        ``bool (B,)``.

    Example:
        >>> broken_images(torch.tensor([[0.0, 1.0], [0.0, float("-inf")]])).tolist()
        [False, True]
    """
    outputs = outputs.detach()
    if not outputs.numel():
        return torch.zeros(len(outputs), dtype=torch.bool, device=outputs.device)
    places = tuple(range(1, outputs.ndim))
    return ~(outputs.amin(places).isfinite() & outputs.amax(places).isfinite())


def check_outputs(outputs: Mapping[str, Tensor], ids: Sequence[str], place: str) -> None:
    """Stop at an output that is NaN or infinite: no class can be read from it.

    The heads of one device travel to the host in one transfer, so on an accelerator this costs one synchronisation.

    Args:
        outputs: ``(B, ...)`` by head.
        ids: ids of the B images.
        place: where it happened, e.g. ``epoch 3, step 17``.

    Raises:
        NonFiniteLogitsError: an output is not finite.
    """
    if outputs:
        device = next(iter(outputs.values())).device
        flags = torch.stack([broken_images(output).to(device) for output in outputs.values()])
        refuse(outputs, flags.tolist(), ids, place)


def refuse(outputs: Mapping[str, Tensor], broken: Sequence[Sequence[bool]], ids: Sequence[str], place: str) -> None:
    """As `check_outputs`, where it is already known by head which images are broken."""
    found = []
    for (head, output), flags in zip(outputs.items(), broken, strict=True):
        if names := [name for name, flag in zip(ids, flags, strict=True) if flag]:
            values = output.detach()[[i for i, flag in enumerate(flags) if flag]].float()
            value = values[~values.isfinite()][0].item()
            found.append(f"`{value}` in `{head}` for {', '.join(names)}")
    if found:
        raise NonFiniteLogitsError(
            f"Every output should be finite. Found {'; '.join(found)} ({place}). {NonFiniteLogitsError.ADVICE}"
        )


def check_on_host(logits: Tensor) -> None:
    """Check the logits of a metric at once, but for those on a GPU: they are counted and told by `check_count`.

    Raises:
        NonFiniteLogitsError: a logit is not finite, and not on a GPU.
    """
    if not logits.is_cuda:
        check_outputs({"logits": logits}, [f"image {i} of the batch" for i in range(len(logits))], "a metric")


def check_count(broken: Tensor) -> None:
    """Raise where metrics were told logits that are not finite. Reads from the device.

    Raises:
        NonFiniteLogitsError: says in how many images.
    """
    if number := int(broken):
        raise NonFiniteLogitsError(
            f"Every logit should be finite. Found others in {number} images. {NonFiniteLogitsError.ADVICE}"
        )
