"""The check that every objective is a number."""

import math
from collections.abc import Sequence

import torch

from hsl.batch import Objectives


class NonFiniteLossError(ArithmeticError):
    """An objective became NaN or infinite. The message names it, the step and the batch's ids."""


def check_finite(objectives: Objectives, ids: Sequence[str], step: int) -> None:
    """Stop at a loss that is NaN or infinite; it is never replaced by a constant.

    All objectives travel to the host in one transfer, so on an accelerator this costs one synchronisation a
    step.

    Args:
        objectives: scalars by name.
        ids: ids of the pictures in the batch.
        step: the optimizer step.

    Raises:
        NonFiniteLossError: one of them is not finite.

    Example:
        >>> check_finite({"dice": torch.tensor(float("nan"))}, ["a"], 7)
        Traceback (most recent call last):
        ...
        hsl.losses.finite.NonFiniteLossError: ...
    """
    values = torch.stack([objective.detach().float() for objective in objectives.values()]).tolist()
    broken = {name: value for name, value in zip(objectives, values, strict=True) if not math.isfinite(value)}
    if broken:
        found = ", ".join(f"`{name} = {value}`" for name, value in broken.items())
        raise NonFiniteLossError(
            f"Every objective should be finite. Found {found} at step {step} for the pictures "
            f"{', '.join(ids)}. Look at these pictures, lower `optimizer.lr`, or set `trainer.precision=32`."
        )
