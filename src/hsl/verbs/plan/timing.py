"""Training steps of the candidates, measured on this machine: what the rules know of time and memory."""

import gc
import os
from collections.abc import Sequence

import torch
from hydra import compose
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn
from torch.optim import Optimizer

from hsl.models.weights import are_at_hand
from hsl.terminal import say
from hsl.verbs.plan.views import MEGA, Cost
from hsl.verbs.profile.memory import Step, bytes_per_picture, measure_step, resident_bytes

SIDE = 128
NUMBERS = (2, 4)
REPEATS = 2


def device() -> str:
    """Where a training of this machine runs."""
    return "gpu" if torch.cuda.is_available() else "cpu"


def free_bytes() -> float:
    """Of the memory that a training of this machine may take."""
    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0])
    return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def measure(encoders: Sequence[str], decoders: Sequence[str], precision: str) -> list[Cost]:
    """Two steps of every pair in a network with one dense head, of two and of four pictures.

    Encoders without ImageNet weights here are left out where another one has them: no plan would take them.
    """
    settings = {name: composed(name, decoders[0], SIDE).encoder for name in encoders}
    pretrained = [name for name in encoders if are_at_hand(settings[name].name, settings[name].get("package"))]
    pairs = [(encoder, decoder) for encoder in pretrained or encoders for decoder in decoders]
    say(f"timing {', '.join(f'{encoder} + {decoder}' for encoder, decoder in pairs)}")
    costs, area = [], SIDE * SIDE / MEGA
    for encoder, decoder in pairs:
        steps, resident = _steps(composed(encoder, decoder, SIDE), NUMBERS, SIDE, precision)
        seconds = steps[-1].seconds / (NUMBERS[-1] * area)
        costs.append(Cost(encoder, decoder, seconds, bytes_per_picture(steps) / area, resident, bool(pretrained)))
    return costs


def measure_batch(cost: Cost, height: int, width: int, number: int, precision: str) -> Step:
    """A step of the plan itself; a picture that is not square is tried as a square of as many pixels."""
    side = max(32, round((height * width) ** 0.5 / 32) * 32)
    steps, _ = _steps(composed(cost.encoder, cost.decoder, side), (number,), side, precision)
    return steps[0]


def composed(encoder: str, decoder: str, side: int) -> DictConfig:
    """The network that `hsl profile` tries encoders in, without its image head."""
    words = [f"encoder={encoder}", f"decoder={decoder}", f"data.image_size={side}"]
    cfg = compose("profile", words)
    del cfg.network.heads.classification
    cfg.network.class_heads = cfg.network.class_heads[:1]
    return cfg


def _steps(cfg: DictConfig, numbers: Sequence[int], side: int, precision: str) -> tuple[list[Step], int]:
    torch.manual_seed(0)
    network: nn.Module = instantiate(cfg.network).to("cuda" if torch.cuda.is_available() else "cpu")
    optimizer: Optimizer = instantiate(cfg.optimizer)(network)
    steps = []
    for number in numbers:
        trials = [measure_step(network, optimizer, number, side, precision) for _ in range(REPEATS)]
        steps.append(Step(number, trials[-1].memory, min(trial.seconds for trial in trials)))
    resident = resident_bytes(network, optimizer)
    gc.collect()
    return steps, resident
