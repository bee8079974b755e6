"""Learning-rate schedules, stepped once per optimizer step.

Each is a factor on the optimizer's learning rate that depends on the step alone, so a resumed run continues
the same curve. Past the last step the factor stays at its end.

The factors are ours; torch's ``LambdaLR`` applies them. Of the library curves, ``torch.optim.lr_scheduler.OneCycleLR``
is equal where the rise has a step. Where it has none (under 4 steps with ``pct_start`` 0.3) its factor differs by 0.04
to 1, it divides by zero where the rise ends at step 0, and it raises past the end. timm's ``PolyLRScheduler`` and
``CosineLRScheduler`` are equal to 1e-16, but begin the warm-up of all parameter groups at one absolute rate (groups of
1e-4 and 1e-3 both at 1.7e-4), refuse a warm-up as long as the run and are no ``LRScheduler``. torch's ``SequentialLR``
of ``LinearLR`` and a decay adds up rounding errors (5e-15 after 8,000 steps: another run in the last bits), and
``CosineAnnealingLR`` rises again past the end.
"""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from hsl.config.ranges import Fraction, NonNegativeFloat, PositiveFloat
from hsl.errors import ConfigError


def onecycle(
    optimizer: Optimizer,
    total_steps: int,
    steps_per_epoch: int,
    pct_start: Fraction,
    div_factor: PositiveFloat = 25.0,
    final_div_factor: PositiveFloat = 1e4,
) -> LambdaLR:
    """One cycle with cosine flanks: up to the optimizer's learning rate, then down to almost nothing.

    Source: Smith & Topin 2018, "Super-Convergence", as ``torch.optim.lr_scheduler.OneCycleLR`` has it with
    ``anneal_strategy="cos"`` and ``cycle_momentum=False``. Unlike torch's, a run of so few steps that the
    rise would have no step begins at the top; torch divides by zero there.

    Args:
        optimizer: its learning rate is the top of the cycle.
        total_steps: optimizer steps of the run, at least 1.
        steps_per_epoch: is not looked at; the rise is a share of the run.
        pct_start: share of the steps spent rising, in [0, 1]; 0.3 in torch.
        div_factor: the first learning rate is the top over this; above 0.
        final_div_factor: the last learning rate is the first over this; above 0.

    Raises:
        ConfigError: an argument is out of range.
    """
    del steps_per_epoch
    _check_steps(total_steps)
    _check_share("pct_start", pct_start)
    if not (div_factor > 0 and final_div_factor > 0):
        raise ConfigError(
            "`scheduler.div_factor` and `scheduler.final_div_factor` should be above 0. "
            f"Found {div_factor} and {final_div_factor}."
        )
    first = 1 / div_factor
    last = first / final_div_factor
    top = max(pct_start * total_steps - 1, 0.0)

    def factor(step: int) -> float:
        step = min(step, total_steps - 1)
        if step < top:
            return _cosine(first, 1.0, step / top)
        return _cosine(1.0, last, (step - top) / max(total_steps - 1 - top, 1))

    return LambdaLR(optimizer, factor)


def poly(
    optimizer: Optimizer,
    total_steps: int,
    steps_per_epoch: int,
    power: PositiveFloat,
    warmup_epochs: NonNegativeFloat = 0.0,
    warmup_ratio: Fraction | None = None,
) -> LambdaLR:
    """Polynomial decay to 0 after a linear warm-up.

    ``(1 - t)^power`` with t from 0 to 1 over the steps after the warm-up. Source: Chen et al. 2018,
    "DeepLab" (v2).

    Args:
        optimizer: its learning rate is the top.
        total_steps: optimizer steps of the run, at least 1.
        steps_per_epoch: optimizer steps of an epoch.
        power: above 0; 0.9 in the paper.
        warmup_epochs: epochs spent rising, from 0 to those of the run; part of one, too.
        warmup_ratio: instead, the share of the run's steps spent rising, in [0, 1]; ``None``: `warmup_epochs` counts.

    Raises:
        ConfigError: an argument is out of range.
    """
    if not power > 0:
        raise ConfigError(f"`scheduler.power` should be above 0. Found `scheduler.power = {power}`.")
    warmup = _warmup_steps(total_steps, steps_per_epoch, warmup_epochs, warmup_ratio)
    return LambdaLR(optimizer, lambda step: _warm(step, warmup) * (1 - _progress(step, warmup, total_steps)) ** power)


def cosine(
    optimizer: Optimizer,
    total_steps: int,
    steps_per_epoch: int,
    final_factor: Fraction = 0.0,
    warmup_epochs: NonNegativeFloat = 0.0,
    warmup_ratio: Fraction | None = None,
) -> LambdaLR:
    """Half a cosine down to ``final_factor`` after a linear warm-up.

    Source: Loshchilov & Hutter 2017, "SGDR", equation 5, without restarts.

    Args:
        optimizer: its learning rate is the top.
        total_steps: optimizer steps of the run, at least 1.
        steps_per_epoch: optimizer steps of an epoch.
        final_factor: learning rate at the end over the top, in [0, 1].
        warmup_epochs: epochs spent rising, from 0 to those of the run; part of one, too.
        warmup_ratio: instead, the share of the run's steps spent rising, in [0, 1]; ``None``: `warmup_epochs` counts.

    Raises:
        ConfigError: an argument is out of range.
    """
    _check_share("final_factor", final_factor)
    warmup = _warmup_steps(total_steps, steps_per_epoch, warmup_epochs, warmup_ratio)
    return LambdaLR(
        optimizer,
        lambda step: _warm(step, warmup) * _cosine(1.0, final_factor, _progress(step, warmup, total_steps)),
    )


def constant(
    optimizer: Optimizer,
    total_steps: int,
    steps_per_epoch: int,
    warmup_epochs: NonNegativeFloat = 0.0,
    warmup_ratio: Fraction | None = None,
) -> LambdaLR:
    """The optimizer's learning rate, after a linear warm-up if wanted.

    Args:
        optimizer: its learning rate is kept.
        total_steps: optimizer steps of the run, at least 1.
        steps_per_epoch: optimizer steps of an epoch.
        warmup_epochs: epochs spent rising, from 0 to those of the run; part of one, too.
        warmup_ratio: instead, the share of the run's steps spent rising, in [0, 1]; ``None``: `warmup_epochs` counts.

    Raises:
        ConfigError: an argument is out of range.
    """
    warmup = _warmup_steps(total_steps, steps_per_epoch, warmup_epochs, warmup_ratio)
    return LambdaLR(optimizer, lambda step: _warm(step, warmup))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _warm(step: int, warmup: int) -> float:
    return min(1.0, (step + 1) / (warmup + 1))


def _progress(step: int, warmup: int, total_steps: int) -> float:
    return min(max(step - warmup, 0) / max(total_steps - warmup, 1), 1.0)


def _warmup_steps(total_steps: int, steps_per_epoch: int, warmup_epochs: float, warmup_ratio: float | None) -> int:
    _check_steps(total_steps)
    if warmup_ratio is not None:
        _check_share("warmup_ratio", warmup_ratio)
        return round(warmup_ratio * total_steps)
    steps = round(warmup_epochs * steps_per_epoch)
    if not 0 <= steps <= total_steps:
        raise ConfigError(
            f"`scheduler.warmup_epochs` should be in [0, {total_steps / steps_per_epoch:g}], the epochs of the run. "
            f"Found `scheduler.warmup_epochs = {warmup_epochs}`. Set it lower, or `trainer.max_epochs` higher."
        )
    return steps


def _check_steps(total_steps: int) -> None:
    if not (isinstance(total_steps, int) and total_steps >= 1):
        raise ConfigError(
            f"`total_steps` should be a whole number of at least 1. Found `total_steps = {total_steps}`. "
            "Set `trainer.max_epochs` or `trainer.max_steps`."
        )


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"`scheduler.{name}` should be in [0, 1]. Found `scheduler.{name} = {value}`.")
