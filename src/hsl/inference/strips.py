"""A sliding window over a scene that is never in memory as a whole, neither as picture nor as logits."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hsl.batch import Outputs
from hsl.inference.geometry import starts
from hsl.inference.predictor import Network, reflected_to
from hsl.inference.sliding_window import Place, SlidingWindow, gaussian

Read = Callable[[int, int, int, int], Tensor]
"""``read(y, x, height, width)``: that part of the scene, normalised, ``(C, h, w)``; smaller where the scene ends."""


@dataclass(frozen=True, eq=False)
class Strip:
    """Some rows of some columns of a scene.

    Attributes:
        rows: of the scene.
        columns: the same.
        outputs: logits ``float32 (C, rows, columns)`` of every head, where the network is.
    """

    rows: slice
    columns: slice
    outputs: Outputs


def predicted_strips(
    predictor: SlidingWindow, network: Network, read: Read, size: tuple[int, int], columns: int
) -> Iterator[Strip]:
    """What ``predictor`` says of a scene, piece by piece, each pixel once.

    The windows are those of the whole picture. Columns of the scene are done one after the other, from top to bottom:
    of each head lie in memory logits as high as a window and as wide as the columns with the windows that reach over
    their edges, which are the only ones that are looked at twice.

    Args:
        predictor: window, stride, and number of windows at once.
        network: see `SlidingWindow`.
        read: reads the scene.
        size: its height and width.
        columns: how many are done at once, >= 1.

    Raises:
        ConfigError: see `SlidingWindow`.
    """
    (height, width), window = size, predictor.window
    lefts = starts(max(width, window), window, predictor.stride)
    for start in range(0, width, columns):
        stop = min(width, start + columns)
        touching = [left for left in lefts if left < stop and left + window > start]
        for rows, outputs in _downwards(predictor, network, read, height, touching):
            cut = slice(start - touching[0], stop - touching[0])
            yield Strip(rows, slice(start, stop), {head: logits[..., cut] for head, logits in outputs.items()})


def columns_within(network: Network, window: int, num_bytes: int) -> int:
    """How many columns may be done at once so that the logits under way take about ``num_bytes``."""
    numbers = sum(max(1, len(head.classes)) for head in network.known_heads.values()) + 1
    return max(window, num_bytes // (4 * numbers * window))


def num_strips(predictor: SlidingWindow, size: tuple[int, int], columns: int) -> int:
    """How many pieces `predicted_strips` gives."""
    tops = starts(max(size[0], predictor.window), predictor.window, predictor.stride)
    return len(tops) * len(range(0, size[1], columns))


def _downwards(
    predictor: SlidingWindow, network: Network, read: Read, height: int, lefts: Sequence[int]
) -> Iterator[tuple[slice, Outputs]]:
    """Rows that no later window reaches, with their logits from the first window's left to the last one's right."""
    window, first = predictor.window, lefts[0]
    width, end = lefts[-1] + window - first, max(height, window)
    tops = starts(end, window, predictor.stride)
    sums: dict[str, Tensor] = {}
    weights: Any = None
    for top, following in zip(tops, [*tops[1:], end], strict=True):
        image = reflected_to(read(top, first, window, width), window, width)[None]
        if weights is None:
            weights = gaussian(window, image.device)
            total = weights.new_zeros(window, width)
        for begin in range(0, len(lefts), predictor.windows_per_batch):
            places = [Place(0, 0, left - first) for left in lefts[begin : begin + predictor.windows_per_batch]]
            for head, logits in predictor.answers(network, image, places).items():
                if head not in sums:
                    sums[head] = logits.new_zeros((logits.shape[1], window, width), dtype=torch.float32)
                for place, one in zip(places, logits, strict=True):
                    predictor.cut(sums[head], 0, place.left).addcmul_(one.float(), weights)
            for place in places:
                predictor.cut(total, 0, place.left).add_(weights)
        done = following - top
        rows = slice(top, min(height, following))
        yield rows, {head: (each[:, :done] / total[:done])[:, : rows.stop - top] for head, each in sums.items()}
        for each in (total, *sums.values()):
            _move_up(each, done)


def _move_up(sums: Tensor, rows: int) -> None:
    """Let what is not done take the place of what is, ``(..., H, W)``."""
    left = sums.shape[-2] - rows
    sums[..., :left, :] = sums[..., rows:, :].clone()
    sums[..., left:, :] = 0
