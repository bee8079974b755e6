"""The scores of overlapping channels together: pixels of all channels as one problem."""

from collections.abc import Sequence

import numpy as np

from hsl.metrics.pixels.formulas import States, add_states


def pool_channels(channels: Sequence[States]) -> States:
    """What K metrics of two classes counted, as counts of the classes ``absent`` and the K channels.

    Every pixel counts once in each channel: as that channel's class where it shows it, as class 0 where it does not.
    So the IoU, Dice, precision and recall of class k + 1 are those of channel k alone, class 0 is the absence in all
    channels, a pixel of one channel is never taken for another, and shares are of valid pixels times channels. The
    macro mean of the IoU over the channels is ``foreground_iou``.

    Args:
        channels: of each channel the sums of a ``Pixelwise(2)``.

    Returns:
        As of a ``Pixelwise(K + 1)``.

    Example:
        >>> two = {"matrices": np.array([[[5, 1], [2, 4]], [[0, 0], [0, 0]]]), "boundaries": np.zeros((7, 2), int)}
        >>> rest = dict.fromkeys(("pixels", "confidence", "nll", "brier"), np.zeros(1))
        >>> pool_channels([{**two, **rest}, {**two, **rest}])["matrices"][0].tolist()
        [[10, 1, 1], [2, 4, 0], [2, 0, 4]]
    """
    number = len(channels)
    placed = []
    for index, counted in enumerate(channels, start=1):
        matrices = np.zeros((2, number + 1, number + 1), np.int64)
        matrices[np.ix_((0, 1), (0, index), (0, index))] = counted["matrices"]
        boundaries = np.zeros((len(counted["boundaries"]), number + 1), np.int64)
        boundaries[:, (0, index)] = counted["boundaries"]
        placed.append({**counted, "matrices": matrices, "boundaries": boundaries})
    return add_states(placed)
