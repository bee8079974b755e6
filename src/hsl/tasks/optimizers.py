"""Optimizers over the parameters of a module."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW

from hsl.config import ConfigError


def adamw(
    module: nn.Module,
    lr: float,
    betas: Sequence[float],
    weight_decay: float,
    batch_size: int,
    reference_batch_size: int | None = None,
) -> AdamW:
    """AdamW without decay of norms and biases.

    Source: Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization".

    Args:
        module: all its parameters are taken, frozen ones too (without a gradient they stay as they are).
        lr: learning rate, above 0.
        betas: decay of the two moments, each in [0, 1); 0.9 and 0.999 in the paper.
        weight_decay: at least 0; acts on parameters of two or more dimensions that are no bias.
        batch_size: pictures per optimizer step.
        reference_batch_size: batch size that ``lr`` is meant for; ``lr`` is scaled by ``batch_size /
            reference_batch_size``. ``None`` takes ``lr`` as it is.

    Raises:
        ConfigError: an argument is out of range.
    """
    first, second = betas
    if not (0 <= first < 1 and 0 <= second < 1):
        raise ConfigError(f"`optimizer.betas` should be in [0, 1). Found `optimizer.betas = {list(betas)}`.")
    scaled = scale_learning_rate(lr, batch_size, reference_batch_size)
    return AdamW(parameter_groups(module, weight_decay), lr=scaled, betas=(float(first), float(second)))


def sgd(
    module: nn.Module,
    lr: float,
    momentum: float,
    weight_decay: float,
    batch_size: int,
    reference_batch_size: int | None = None,
    nesterov: bool = True,
) -> SGD:
    """Stochastic gradient descent with momentum, without decay of norms and biases.

    Args:
        module: as in ``adamw``.
        lr: learning rate, above 0.
        momentum: in [0, 1); above 0 where ``nesterov`` is on.
        weight_decay: at least 0; on the same parameters as in ``adamw``.
        batch_size: as in ``adamw``.
        reference_batch_size: as in ``adamw`` (the linear rule of Goyal et al. 2017, "Accurate, Large
            Minibatch SGD").
        nesterov: look ahead along the momentum.

    Raises:
        ConfigError: an argument is out of range.
    """
    if not 0 <= momentum < 1 or (nesterov and momentum == 0):
        raise ConfigError(
            "`optimizer.momentum` should be in [0, 1), and above 0 with `optimizer.nesterov=true`. "
            f"Found `optimizer.momentum = {momentum}`."
        )
    scaled = scale_learning_rate(lr, batch_size, reference_batch_size)
    return SGD(parameter_groups(module, weight_decay), lr=scaled, momentum=momentum, nesterov=nesterov)


def scale_learning_rate(lr: float, batch_size: int, reference_batch_size: int | None) -> float:
    """``lr * batch_size / reference_batch_size``, or ``lr`` without a reference.

    Raises:
        ConfigError: ``lr`` or a batch size is not above 0.

    Example:
        >>> scale_learning_rate(1e-3, 32, 16)
        0.002
    """
    if not lr > 0:
        raise ConfigError(f"`optimizer.lr` should be above 0. Found `optimizer.lr = {lr}`.")
    if reference_batch_size is None:
        return lr
    if not (batch_size > 0 and reference_batch_size > 0):
        raise ConfigError(
            "`optimizer.batch_size` and `optimizer.reference_batch_size` should be above 0. "
            f"Found {batch_size} and {reference_batch_size}."
        )
    return lr * batch_size / reference_batch_size


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters with decay and without, as groups of a torch optimizer; an empty group is left out.

    Raises:
        ConfigError: ``weight_decay`` is negative.
    """
    if not weight_decay >= 0:
        raise ConfigError(
            f"`optimizer.weight_decay` should be at least 0. Found `optimizer.weight_decay = {weight_decay}`."
        )
    decayed = [parameter for name, parameter in module.named_parameters() if _decays(name, parameter)]
    plain = [parameter for name, parameter in module.named_parameters() if not _decays(name, parameter)]
    groups = ({"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and name.rpartition(".")[2] != "bias"
