"""Optimizers over the parameters of a module."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW

from hsl.config.ranges import FractionBelowOne, NonNegativeFloat, PositiveFloat, PositiveInt
from hsl.errors import ConfigError


def adamw(
    module: nn.Module,
    lr: PositiveFloat,
    betas: Sequence[FractionBelowOne],
    weight_decay: NonNegativeFloat,
    batch_size: PositiveInt,
    reference_batch_size: PositiveInt | None = None,
    lr_by_module: Mapping[str, NonNegativeFloat] | None = None,
) -> AdamW:
    """AdamW without decay of norms and biases.

    Source: Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization".

    Args:
        module: its parameters that are to be trained are taken; frozen ones stay as they are.
        lr: learning rate, above 0.
        betas: decay of the two moments, each in [0, 1); 0.9 and 0.999 in the paper.
        weight_decay: at least 0; acts on parameters of two or more dimensions that are no bias.
        batch_size: pictures per optimizer step.
        reference_batch_size: batch size that ``lr`` is meant for; ``lr`` is scaled by ``batch_size /
            reference_batch_size``. ``None`` takes ``lr`` as it is.
        lr_by_module: see `parameter_groups`; scaled as ``lr`` is.

    Raises:
        ConfigError: an argument is out of range, or a module is unknown or has nothing to train.
    """
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ConfigError(f"`optimizer.betas` should be two in [0, 1). Found `optimizer.betas = {list(betas)}`.")
    first, second = betas
    scaled, by_module = _scaled(lr, lr_by_module, batch_size, reference_batch_size)
    groups = parameter_groups(module, weight_decay, by_module)
    return AdamW(groups, lr=scaled, betas=(float(first), float(second)))


def sgd(
    module: nn.Module,
    lr: PositiveFloat,
    momentum: FractionBelowOne,
    weight_decay: NonNegativeFloat,
    batch_size: PositiveInt,
    reference_batch_size: PositiveInt | None = None,
    nesterov: bool = True,
    lr_by_module: Mapping[str, NonNegativeFloat] | None = None,
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
        lr_by_module: as in ``adamw``.

    Raises:
        ConfigError: an argument is out of range, or a module is unknown or has nothing to train.
    """
    if not 0 <= momentum < 1 or (nesterov and momentum == 0):
        raise ConfigError(
            "`optimizer.momentum` should be in [0, 1), and above 0 with `optimizer.nesterov=true`. "
            f"Found `optimizer.momentum = {momentum}`."
        )
    scaled, by_module = _scaled(lr, lr_by_module, batch_size, reference_batch_size)
    groups = parameter_groups(module, weight_decay, by_module)
    return SGD(groups, lr=scaled, momentum=momentum, nesterov=nesterov)


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


def parameter_groups(
    module: nn.Module, weight_decay: float, lr_by_module: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Parameters with decay and without, as groups of a torch optimizer; what is frozen and empty groups are left out.

    Args:
        module: the task, or any module where there is no ``lr_by_module``.
        weight_decay: of the parameters that are decayed.
        lr_by_module: path of a module below ``network`` (``encoder``, ``heads.classification``) -> its learning rate.
            The longest path that a parameter lies below counts. The groups without one come first.

    Raises:
        ConfigError: ``weight_decay`` is negative, or a path is unknown or has nothing to train.
    """
    if not weight_decay >= 0:
        raise ConfigError(
            f"`optimizer.weight_decay` should be at least 0. Found `optimizer.weight_decay = {weight_decay}`."
        )
    rates = {f"network.{path}": lr for path, lr in (lr_by_module or {}).items()}
    trained = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    for path in rates:
        if not any(name.startswith(f"{path}.") for name, _ in trained):
            raise ConfigError(_nothing_to_train(module, path.removeprefix("network.")))
    groups: list[dict[str, Any]] = []
    for path in ("", *rates):
        own = [(name, parameter) for name, parameter in trained if _longest(name, rates) == path]
        rate = {"lr": rates[path]} if path else {}
        decayed = [parameter for name, parameter in own if _decays(name, parameter)]
        plain = [parameter for name, parameter in own if not _decays(name, parameter)]
        groups += [{"params": decayed, "weight_decay": weight_decay, **rate}]
        groups += [{"params": plain, "weight_decay": 0.0, **rate}]
    return [group for group in groups if group["params"]]


def _scaled(
    lr: float, lr_by_module: Mapping[str, float] | None, batch_size: int, reference_batch_size: int | None
) -> tuple[float, dict[str, float]]:
    by_module = {
        path: scale_learning_rate(one, batch_size, reference_batch_size) for path, one in (lr_by_module or {}).items()
    }
    return scale_learning_rate(lr, batch_size, reference_batch_size), by_module


def _longest(name: str, paths: Mapping[str, float]) -> str:
    """The longest of the paths that the parameter lies below; empty: none."""
    return max((path for path in paths if name.startswith(f"{path}.")), key=len, default="")


def _nothing_to_train(module: nn.Module, path: str) -> str:
    known = sorted({name.split(".")[1] for name, _ in module.named_parameters() if name.startswith("network.")})
    return (
        "`optimizer.lr_by_module` should name modules of the network that have parameters to train, such as "
        f"{', '.join(known)} or one below. Found `{path}`. Correct the path, or leave it out where it is frozen."
    )


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and name.rpartition(".")[2] != "bias"
