"""The rules about size: what the network sees, which network it is, and how many pictures a step takes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hsl.errors import ConfigError
from hsl.verbs.plan.fingerprint import TENTH, Fingerprint

KEPT_PIXELS = 3.0
MULTIPLE = 32
LEAST_SIDE, MOST_PATCH = 128, 512
MANY_PASSES, FEW_PASSES = 40, 10
SPARE_AREA, PATCH_SHARE = 1.25, 0.75
MEMORY_SHARE = 0.85
BATCHES = (16, 8, 4, 2)
MOST_MEGAPIXELS = 1.0
ENOUGH_STEPS, LEAST_BATCH = 1000, 4
LABEL_SIDE = 224
MEGA, MIB = 1e6, 2**20


@dataclass(frozen=True)
class Setting:
    """What a rule comes to: values by dotted key, the name of what it chose, and why; ``open`` is a question."""

    values: Mapping[str, Any]
    reason: str
    choice: str | None = None
    open: bool = False


@dataclass(frozen=True)
class Cost:
    """What training an encoder and decoder takes here, measured: per megapixel of a batch, and in any case."""

    encoder: str
    decoder: str
    seconds: float
    memory: float
    resident: float
    has_weights: bool


@dataclass(frozen=True)
class View:
    """What the network sees: height and width in pixels, of whole pictures or of patches at their own scale."""

    height: int
    width: int
    patches: bool = False
    reason: str = ""

    @property
    def megapixels(self) -> float:
        """Of one picture or patch."""
        return self.height * self.width / MEGA


@dataclass(frozen=True)
class Budget:
    """Seconds of training in one fold, and bytes of memory."""

    seconds: float
    memory: float


def smallest_kept(facts: Fingerprint, height: int, width: int) -> dict[str, float]:
    """By class, the pixels across that the smallest tenth of its objects has at most, once pictures have this size."""
    kept = {}
    for name, table in facts.objects.items():
        if len(table):
            scale = np.minimum(height / table[:, 1], width / table[:, 2])
            kept[name] = float(np.quantile(table[:, 0] * scale, TENTH, method="lower"))
    return kept


def choose_view(facts: Fingerprint, cost: Cost, budget: Budget) -> View:
    """The size of pictures, or patches and a sliding window.

    At least so large that the smallest tenth of the objects of every class keeps 3 pixels across, or what it has: below
    that a mask at the network's stride can no longer draw them (our runs on magnetic tiles at 96 px lost their cracks,
    docs/results/magnetic_tile.md). Where the time allows 40 passes, larger, up to the source. Where even the least size
    has pictures enlarged, does not fit, is above a megapixel, or leaves fewer than 10 passes: patches of the source
    (nnU-Net, Isensee 2021, trains on patches for the same reasons).
    """
    long, short = max(facts.heights[1], facts.widths[1]), min(facts.heights[1], facts.widths[1])
    if not any(map(len, facts.objects.values())):
        scale = min(1.0, LABEL_SIDE / short)
        height, width = (_multiple(side * scale) for side in (facts.heights[1], facts.widths[1]))
        return View(height, width, reason="no object to go by: pictures are seen whole")
    sizes = list(_whole_sizes(facts, long, short))
    fit = [size for size in sizes if _keeps(facts, *size)] or sizes[-1:]
    least = View(*fit[0])
    affordable = [
        view
        for view in (View(*size) for size in fit)
        if num_passes(facts, view, cost, budget) >= MANY_PASSES and view.megapixels <= MOST_MEGAPIXELS
    ]
    too_large = least.megapixels > SPARE_AREA * long * short / MEGA or not _keeps(facts, least.height, least.width)
    too_heavy = _memory(cost, least, LEAST_BATCH) > MEMORY_SHARE * budget.memory or least.megapixels > MOST_MEGAPIXELS
    side = _patch_side(facts, short)
    smaller = max(side, LEAST_SIDE) ** 2 < PATCH_SHARE * least.height * least.width
    if smaller and (too_large or too_heavy or num_passes(facts, least, cost, budget) < FEW_PASSES):
        why = "whole pictures would have to be enlarged" if too_large else "whole pictures are too large for a batch"
        why = why if too_large or too_heavy else "the time allows too few passes over whole pictures"
        return View(side, side, patches=True, reason=f"{_told(facts)}; {why}, so patches at the scale of the source")
    chosen = affordable[-1] if affordable else least
    more = "as large as the time allows" if chosen != least else "the least size that does"
    size = f"{chosen.height} x {chosen.width}"
    return replace(chosen, reason=f"{_told(facts)}, which is kept at {size}: {more}")


def _whole_sizes(facts: Fingerprint, long: int, short: int) -> Iterator[tuple[int, int]]:
    """From small to large in the shape of the median picture, up to the largest of the source."""
    most = _multiple(max(facts.heights[2], facts.widths[2]))
    for side in range(min(LEAST_SIDE, most), most + 1, MULTIPLE):
        other = _multiple(side * short / long)
        yield (side, other) if facts.heights[1] >= facts.widths[1] else (other, side)


def _keeps(facts: Fingerprint, height: int, width: int) -> bool:
    kept = smallest_kept(facts, height, width)
    own = {one.name: one.smallest_tenth for one in facts.classes}
    return all(kept[name] >= min(KEPT_PIXELS, own[name]) - 1e-9 for name in kept)


def _patch_side(facts: Fingerprint, short: int) -> int:
    """Twice the median object of the class with the largest ones, so that most are seen with what is around them."""
    largest = max((one.median for one in facts.classes if one.num_objects), default=0.0)
    most = max(MULTIPLE, min(MOST_PATCH, short // MULTIPLE * MULTIPLE))
    return min(max(LEAST_SIDE, _multiple(2 * largest)), most)


def _told(facts: Fingerprint) -> str:
    smallest = min((one for one in facts.classes if one.num_objects), key=lambda one: one.smallest_tenth)
    return f"the smallest tenth of `{smallest.name}` is {smallest.smallest_tenth:.1f} px across"


def num_passes(facts: Fingerprint, view: View, cost: Cost, budget: Budget) -> float:
    """How often a training sees every picture, or a patch of it."""
    return budget.seconds / (facts.num_images * cost.seconds * view.megapixels)


def _multiple(length: float) -> int:
    return max(MULTIPLE, math.ceil(length / MULTIPLE - 1e-9) * MULTIPLE)


def choose_network(facts: Fingerprint, view: View, costs: Sequence[Cost], budget: Budget) -> tuple[Cost, str]:
    """Encoder and decoder: the slowest that still allows 40 passes over the training part, else the fastest.

    Those whose ImageNet weights are to be had here come before all others: on sets of hundreds of pictures they decide
    more than the architecture does (docs/results/magnetic_tile.md: 6.6 points).

    Raises:
        ConfigError: None fits the memory with two pictures.
    """
    fit = [cost for cost in costs if _memory(cost, view, BATCHES[-1]) <= MEMORY_SHARE * budget.memory]
    if not fit:
        least = min(_memory(cost, view, BATCHES[-1]) for cost in costs) / MEMORY_SHARE
        raise ConfigError(
            f"`memory` should be at least {math.ceil(least / MIB)}MiB for the lightest of `encoders` with two pictures "
            f"of {view.height} x {view.width}. Found {budget.memory / MIB:.0f} MiB. Free some, or name a lighter one."
        )
    fit = [cost for cost in fit if cost.has_weights] or fit
    fit = sorted(fit, key=lambda cost: cost.seconds)
    slow_first = reversed(fit)
    chosen = next((cost for cost in slow_first if num_passes(facts, view, cost, budget) >= MANY_PASSES), fit[0])
    passes = num_passes(facts, view, chosen, budget)
    weights = (
        "ImageNet weights are at hand" if chosen.has_weights else "no ImageNet weights are at hand: it starts random"
    )
    which = "the slowest that allows" if passes >= MANY_PASSES else "the fastest, though it allows fewer than"
    return chosen, f"{weights}; {which} {MANY_PASSES} passes over the training part in this time ({passes:.0f})"


def _memory(cost: Cost, view: View, number: int) -> float:
    return cost.resident + number * cost.memory * view.megapixels


def batch_size(facts: Fingerprint, view: View, cost: Cost, budget: Budget) -> Setting:
    """The largest of 16, 8, 4 and 2 that fits the memory and leaves 1000 steps of the optimizer.

    Small batches take more steps in the same time, which a short training needs more than quiet gradients (Masters &
    Luschi 2018, "Revisiting Small Batch Training": 2 to 32 do best). Below 4 batch norm is noisy, so only memory, or
    a handful of pictures, asks for 2.
    """
    room = [n for n in BATCHES if _memory(cost, view, n) <= MEMORY_SHARE * budget.memory and 4 * n <= facts.num_images]
    room = [n for n in room if n >= LEAST_BATCH] or [BATCHES[-1]]
    steps = {n: budget.seconds / (n * cost.seconds * view.megapixels) for n in room}
    chosen = next((n for n in room if steps[n] >= ENOUGH_STEPS), room[-1])
    reason = f"about {steps[chosen]:.0f} steps in this time, {_memory(cost, view, chosen) / MIB:.0f} MiB"
    return Setting({"data.batch_size": chosen}, reason)
