"""One colour per class, the same in every picture, plot and page."""

import numpy as np
from numpy.typing import NDArray

from hsl.batch import IGNORE_INDEX
from hsl.channels import holds

# Background is near black, then the seven colours of Okabe and Ito (2008), then 32 found by farthest-point
# search in OKLab, where a distance is the smallest of those seen with normal vision, protanopia, deuteranopia
# and tritanopia (Machado 2009). Smallest such distance: 0.076 among the first 16, 0.047 among all 40.
_HEX = (
    "2B2B2B E69F00 56B4E9 009E73 F0E442 0072B2 D55E00 CC79A7 784B4B 3C00E1 "
    "A569FF A5C396 5A3C87 B40F00 A5FFA5 965A78 D200B4 78D2FF 872DFF E1C35A "
    "69B478 FF78D2 870F69 F01ED2 7800B4 96E196 3C5A0F B45A4B A587FF F0783C "
    "78F0FF FFA5C3 6978D2 A53C96 D296A5 A56996 69A54B C34B00 3C4BD2 C3B45A "
)
_IGNORED = "D9D9D9"

# Lines and bars of the models, on a light and on a dark page: hues of Okabe and Ito, made darker (lighter) until each
# stands out from the page by 3:1 at least. After the last the colours repeat with another marker and dash.
SERIES = ("#0072b2", "#d55e00", "#008f67", "#b0568c", "#a87400", "#2b86ba", "#444c56")
SERIES_DARK = ("#56a9e0", "#ff8a3d", "#2fcf9f", "#e59ac6", "#f0b429", "#9fd8ff", "#c3cad2")


def palette() -> NDArray[np.uint8]:
    """Colours ``uint8 (256, 3)`` of all indices; after 39 the hues repeat, `IGNORE_INDEX` is light grey.

    >>> palette()[1].tolist()
    [230, 159, 0]
    """
    colours = np.array([list(bytes.fromhex(code)) for code in _HEX.split()], dtype=np.uint8)
    index = np.arange(256)
    index[40:] = 1 + (index[40:] - 1) % 39  # never the background's colour again
    table: NDArray[np.uint8] = colours[index]
    table[IGNORE_INDEX] = list(bytes.fromhex(_IGNORED))
    return table


def code_palette(num_channels: int) -> NDArray[np.uint8]:
    """Colours ``uint8 (256, 3)`` of the codes of `hsl.channels`: those of a pixel's channels, mixed in equal parts.

    >>> code_palette(2)[[1, 2, 3]].tolist() == [*palette()[[1, 2]].tolist(), palette()[[1, 2]].mean(0).round().tolist()]
    True
    """
    colours, shown = palette(), holds(num_channels)
    several = shown.any(axis=1)
    mixed = shown[several] @ colours[1 : num_channels + 1].astype(float) / shown[several].sum(axis=1, keepdims=True)
    colours[several] = mixed.round()
    return colours


def hex_colour(index: int) -> str:
    """The colour of a class as ``#rrggbb``.

    >>> hex_colour(1)
    '#e69f00'
    """
    return "#" + bytes(palette()[index].tolist()).hex()
