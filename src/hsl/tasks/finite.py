"""The check that everything of a training step is a number: the outputs of the network, then the objectives."""

import math
from collections.abc import Sequence

import torch

from hsl.batch import Objectives, Outputs
from hsl.errors import NonFiniteLogitsError, UserError
from hsl.metrics.finite import broken_images, refuse


class NonFiniteLossError(UserError, ArithmeticError):
    """An objective became NaN or infinite. The message names it, the step and the batch's ids."""


def check_finite(outputs: Outputs, objectives: Objectives, ids: Sequence[str], place: str) -> None:
    """Stop at an output or a loss that is NaN or infinite; it is never replaced by a constant.

    All of them travel to the host in one transfer, so on an accelerator this costs one synchronisation a step.

    Args:
        outputs: of the network, by head.
        objectives: scalars by name.
        ids: ids of the images in the batch.
        place: epoch and step.

    Raises:
        NonFiniteLogitsError: an output is not finite; it is told before a loss that was made from it.
        NonFiniteLossError: an objective is not finite.

    Example:
        >>> check_finite({}, {"dice": torch.tensor(float("nan"))}, ["a"], "epoch 1, step 7")
        Traceback (most recent call last):
        ...
        hsl.tasks.finite.NonFiniteLossError: ...
    """
    flags = [broken_images(output).float() for output in outputs.values()]
    losses = [objective.detach().float().reshape(1) for objective in objectives.values()]
    values = torch.cat([*flags, *losses]).tolist()
    count = len(outputs) * len(ids)
    rows = [values[start : start + len(ids)] for start in range(0, count, len(ids))]
    refuse(outputs, [[flag == 1 for flag in row] for row in rows], ids, place)
    broken = {name: value for name, value in zip(objectives, values[count:], strict=True) if not math.isfinite(value)}
    if broken:
        found = ", ".join(f"`{name} = {value}`" for name, value in broken.items())
        raise NonFiniteLossError(
            f"Every objective should be finite. Found {found} for {', '.join(ids)} ({place}). "
            f"{NonFiniteLogitsError.ADVICE}"
        )
