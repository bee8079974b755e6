"""Trying an encoder in a network without data: what profile, smoke and sweep plan share."""

import torch
import torch.nn.functional as F
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import Tensor

from hsl.batch import Outputs


def with_encoder(option: str, **values: object) -> DictConfig:
    """The config of the running verb with another encoder.

    Args:
        option: the encoder's word on the command line.
        **values: further top-level keys to set.
    """
    hydra = HydraConfig.get()
    given = [override for override in hydra.overrides.task if not override.startswith("encoder=")]
    overrides = [*given, f"encoder={option}", *(f"{key}={value}" for key, value in values.items())]
    return compose(str(hydra.job.config_name), overrides=overrides)


def random_pictures(number: int, side: int, device: torch.device) -> Tensor:
    """Normalised pictures ``(number, 3, side, side)`` of noise."""
    return torch.randn(number, 3, side, side, device=device)


def trial_loss(outputs: Outputs) -> Tensor:
    """The sum of the cross-entropies of all heads with random targets."""
    losses = []
    for logits in outputs.values():
        target = torch.randint(logits.shape[1], (len(logits), *logits.shape[2:]), device=logits.device)
        losses.append(F.cross_entropy(logits.float(), target))
    return torch.stack(losses).sum()
