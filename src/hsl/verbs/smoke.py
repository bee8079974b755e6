"""`hsl smoke`: does every encoder train at all."""

import gc
import time
from dataclasses import dataclass

import torch
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.table import Table
from torch import Tensor

from hsl.config.validation import validate
from hsl.console import PlainConsole
from hsl.errors import DataError, UserError
from hsl.models.network import SegmentationNetwork
from hsl.terminal import say
from hsl.verbs.profile.memory import random_pictures, trial_loss, with_encoder


@dataclass(frozen=True)
class Trial:
    """One encoder's outcome; nothing in ``failures`` is good."""

    encoder: str
    parameters: int
    seconds: float
    failures: tuple[str, ...]


def smoke(cfg: DictConfig) -> None:
    """Try every encoder of ``cfg.encoders`` and print a table.

    Raises:
        DataError: one of them failed; all were tried.
    """
    validate(cfg)
    trials = []
    for name in cfg.encoders:
        trials.append(_try(name))
        verdict = "; ".join(trials[-1].failures) or "ok"
        say(f"{name}: {verdict} ({trials[-1].seconds:.1f} s)")
        gc.collect()
    _print(trials, f"One step at {cfg.data.image_size} pixels, batch {cfg.data.batch_size}")
    failed = [trial.encoder for trial in trials if trial.failures]
    if failed:
        raise DataError(f"Every encoder should pass. Found {len(failed)} that did not: {', '.join(failed)}.")


def check_step(network: SegmentationNetwork, number: int, side: int) -> list[str]:
    """One step forward and backward on ``number`` random pictures; what is wrong with it.

    Checked are the shapes of the encoder's features and of every head's output, the loss, and that a gradient
    reaches every parameter that asks for one.
    """
    network.train()
    features: list[Tensor] = []
    handle = network.encoder.register_forward_hook(lambda _module, _inputs, output: features.extend(output))
    outputs = network(random_pictures(number, side, torch.device("cpu")))
    handle.remove()
    loss = trial_loss(outputs)
    loss.backward()  # type: ignore[no-untyped-call]
    wanted: dict[str, tuple[Tensor, tuple[int, ...]]] = {
        f"features at stride {2**i}": (feature, (number, channels, side >> i, side >> i))
        for i, (feature, channels) in enumerate(zip(features, network.encoder.out_channels, strict=True))
    }
    for name, logits in outputs.items():
        head = network.known_heads[name]
        size = () if head.kind == "image" else (side, side)
        wanted[name] = (logits, (number, len(head.classes), *size))
    wrong = [f"{n} {tuple(t.shape)} instead of {shape}" for n, (t, shape) in wanted.items() if t.shape != shape]
    if not torch.isfinite(loss):
        wrong.append(f"loss {loss.item()}")
    unreached = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    if unreached:
        wrong.append(f"no gradient reaches {', '.join(unreached)}")
    return wrong


def _try(name: str) -> Trial:
    start = time.perf_counter()
    parameters = 0
    try:
        cfg = with_encoder(name)
        torch.manual_seed(cfg.seed)
        network: SegmentationNetwork = instantiate(cfg.network)
        parameters = sum(parameter.numel() for parameter in network.encoder.parameters())
        failures = check_step(network, cfg.data.batch_size, cfg.data.image_size)
    except (UserError, HydraException, RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        failures = [f"{type(error).__name__}: {str(error).splitlines()[0]}"]  # the next encoder is still to be tried
    return Trial(name, parameters, time.perf_counter() - start, tuple(failures))


def _print(trials: list[Trial], title: str) -> None:
    table = Table("encoder", "parameters", "s", "verdict", title=title, title_justify="left")
    for trial in trials:
        verdict = "; ".join(trial.failures) or "ok"
        table.add_row(trial.encoder, f"{trial.parameters / 1e6:.1f} M", f"{trial.seconds:.1f}", verdict)
    PlainConsole().print(table)
