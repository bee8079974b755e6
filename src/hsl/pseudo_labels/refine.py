"""When refining pseudo-labels goes on and when it stops, and a plot of its drift."""

import io
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from hsl.files import write_atomically

SETTLED_ROUND = 3  # from here on labels that still change much are taken to oscillate


class Decision(StrEnum):
    """What a round of refinement leads to."""

    AGAIN = "again"
    """Refine once more."""
    CONVERGED = "converged"
    """Keep this round: it changed little."""
    DIVERGED = "diverged"
    """Keep the round before: this one changed more than it did."""
    OSCILLATING = "oscillating"
    """Stop with an error: the labels do not settle."""
    EXHAUSTED = "exhausted"
    """Keep this round: it was the last one allowed."""


def drift(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> tuple[int, int]:
    """Changed pixels and pixels of one picture. From a class to uncertain and back is a change.

    Raises:
        ValueError: the masks differ in size.

    Example:
        >>> drift(np.array([[0, 1, 255]], np.uint8), np.array([[0, 2, 1]], np.uint8))
        (2, 3)
    """
    if before.shape != after.shape:
        raise ValueError(f"`after` should have the size of `before`, {before.shape}. Found {after.shape}.")
    return int((before != after).sum()), before.size


def decide(drifts: Sequence[float], max_rounds: int = 3, converged_below: float = 0.15) -> Decision:
    """What follows from the drift of the rounds so far.

    The last round decides; the first of these that holds: its drift is below ``converged_below``: converged; it is
    round 3 or later and the drift above: oscillating, whether it grows or not; the drift grew: diverged; it was round
    ``max_rounds``: exhausted; else again.

    Args:
        drifts: changed pixels / pixels of each round, the first round first.
        max_rounds: rounds at most.
        converged_below: share of the pixels.

    Raises:
        ValueError: there is no round, or a drift is no share.

    Example:
        >>> [str(decide(drifts)) for drifts in ([0.4], [0.4, 0.1], [0.4, 0.5], [0.4, 0.3, 0.2])]
        ['again', 'converged', 'diverged', 'oscillating']
    """
    if not drifts or not all(0 <= value <= 1 for value in drifts):
        raise ValueError(f"`drifts` should hold a share in [0, 1] for each round. Found `drifts = {list(drifts)}`.")
    number, last = len(drifts), drifts[-1]
    if last < converged_below:
        return Decision.CONVERGED
    if number >= SETTLED_ROUND and last > converged_below:
        return Decision.OSCILLATING
    if number > 1 and last > drifts[-2]:
        return Decision.DIVERGED
    return Decision.EXHAUSTED if number >= max_rounds else Decision.AGAIN


def drift_plot(path: Path, drifts: Sequence[float], converged_below: float = 0.15, title: str = "") -> None:
    """Draw the drift of each round and the share below which it has converged, as PNG.

    Args:
        path: the file.
        drifts: changed pixels / pixels of each round.
        converged_below: share of the pixels.
        title: above the plot.
    """
    rounds, percent = range(1, len(drifts) + 1), [100 * value for value in drifts]
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(4.6, 3.0), layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(100 * converged_below, color="#D55E00", linestyle=(0, (4, 3)), linewidth=1)
        axes.text(
            0.45, 100 * converged_below, f"converged below {100 * converged_below:g} %", va="bottom", color="#D55E00"
        )
        axes.plot(rounds, percent, "o-", color="#0072B2")
        for number, value in zip(rounds, percent, strict=True):
            axes.annotate(f"{value:.1f}", (number, value), (0, 6), textcoords="offset points", ha="center")
        axes.set(xlim=(0.4, len(drifts) + 0.6), ylim=(0, 1.2 * max([100 * converged_below, *percent])), title=title)
        axes.set(xlabel="round of refinement", ylabel="changed pixels (%)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=160)
    write_atomically(path, buffer.getvalue())
