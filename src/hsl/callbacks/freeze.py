"""Modules that a phase of the training leaves exactly as they are."""

from collections.abc import Sequence
from typing import Any, cast

import lightning
from lightning.pytorch.callbacks import Callback
from torch import nn

from hsl.errors import ConfigError


class Freeze(Callback):
    """Keeps modules of the network bitwise unchanged: parameters have no gradient, batch norms no new statistics.

    A frozen module is in evaluation mode during the training, so its dropout is off too. Nothing is thawed at the end:
    the next phase builds its task anew.

    Args:
        modules: paths below ``network``, such as ``encoder`` or ``heads.classification``.

    Raises:
        ConfigError: at the start, before the optimizer exists: see `freeze`.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        self.modules = tuple(modules)
        self._frozen: list[nn.Module] = []

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._frozen = freeze(cast(Any, pl_module).network, self.modules)

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        # the start of an epoch and the end of a validation both put modules back into training mode
        for module in self._frozen:
            if module.training:
                module.eval()


def freeze(network: nn.Module, modules: Sequence[str]) -> list[nn.Module]:
    """Take the gradient from the parameters of modules, by their paths in the network.

    Returns:
        The modules.

    Raises:
        ConfigError: there is no such module, or nothing is left to train.
    """
    frozen = [_module(network, path).requires_grad_(False) for path in modules]
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ConfigError(
            f"`freeze` should leave something of the network to train. Found `freeze = {list(modules)}`, which is all "
            "of it. Take a module out of the list."
        )
    return frozen


def _module(network: nn.Module, path: str) -> nn.Module:
    named: dict[str, nn.Module] = dict(network.named_modules())
    if not path or path not in named:
        heads = [name for name in named if name.startswith("heads.") and name.count(".") == 1]
        known = ", ".join([*dict(network.named_children()), *heads])
        raise ConfigError(f"`freeze` should name modules of the network: {known}, or one below. Found `{path}`.")
    return named[path]
