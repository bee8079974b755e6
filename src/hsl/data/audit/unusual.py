"""Pictures unlike most others of their data set: blurred, dark, bright, without contrast, of odd size. Worth a look."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hsl.data.files.records import Catalogue
from hsl.data.files.scan import Scan

DEVIATIONS = 3.0
"""So many robust standard deviations from the median (1.4826 x the median absolute deviation)."""
FACTOR = 2.0
"""And at least by this factor, of what is compared as a ratio: where all are nearly equal, a little less is nothing."""
GREY_LEVELS = 30.0
"""And at least so many of 255, of the brightness."""
FEWEST = 8
"""Pictures that a median is taken of."""
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Unusual:
    """Pictures of one kind.

    Attributes:
        kind: ``"blurred"``, ``"dark"``, ``"bright"``, ``"little contrast"``, ``"small"``, ``"large"`` or ``"long"``.
        rule: Which pictures are listed, with the numbers of this data set; empty where it was not looked at.
        ids: The pictures, the farthest from the median first.
        values: What was measured of each.
        unchecked: Why it was not looked at, or which pictures were not; empty if all were.
    """

    kind: str
    rule: str
    ids: tuple[str, ...]
    values: tuple[float, ...]
    unchecked: str = ""


@dataclass(frozen=True)
class _Kind:
    """A measure and the end at which a picture stands out; ``ratio``: on a logarithmic scale."""

    name: str
    what: str
    sign: int
    ratio: bool = True


_KINDS = (
    _Kind("blurred", "sharpness (variance of the Laplacian)", -1),
    _Kind("dark", "mean brightness (of 255)", -1, ratio=False),
    _Kind("bright", "mean brightness (of 255)", 1, ratio=False),
    _Kind("little contrast", "contrast (standard deviation, of 255)", -1),
    _Kind("small", "shorter side in pixels", -1),
    _Kind("large", "shorter side in pixels", 1),
    _Kind("long", "longer side over shorter side", 1),
)


def unusual_pictures(catalogue: Catalogue, scan: Scan) -> list[Unusual]:
    r"""The pictures of each kind, by what the scan has measured; no picture is read.

    A picture is listed where its value :math:`x` is beyond :math:`m \mp \max(3 s, f)`, with the median :math:`m` of the
    data set and :math:`s` = 1.4826 times the median absolute deviation (Iglewicz and Hoaglin 1993); :math:`x` is the
    logarithm of sharpness, contrast, side or ratio of sides and f = log 2, or the brightness and f = 30 of 255.

    Args:
        catalogue: The data set.
        scan: Its scan.
    """
    read = scan.image_sizes[:, 0] > 0
    return [_unusual(kind, catalogue, scan, read) for kind in _KINDS]


def _unusual(kind: _Kind, catalogue: Catalogue, scan: Scan, read: NDArray[np.bool_]) -> Unusual:
    if catalogue.bands is not None and kind.name in ("blurred", "dark", "bright"):
        return Unusual(kind.name, "", (), (), "the pictures have named channels, whose values need not be of light")
    if read.sum() < FEWEST:
        why = f"a median needs {FEWEST} pictures that can be read; there are {int(read.sum())}"
        return Unusual(kind.name, "", (), (), why)
    rows = np.flatnonzero(read)
    values = _measured(kind, scan)[rows]
    scaled = np.log(np.maximum(values, 1e-3)) if kind.ratio else values
    median = float(np.median(scaled))
    spread = DEVIATIONS * 1.4826 * float(np.median(np.abs(scaled - median)))
    limit = median + kind.sign * max(spread, np.log(FACTOR) if kind.ratio else GREY_LEVELS)
    beyond = np.flatnonzero(kind.sign * (scaled - limit) > 0)
    order = beyond[np.argsort(-kind.sign * scaled[beyond], kind="stable")]
    middle, end = (float(np.exp(each)) if kind.ratio else each for each in (median, limit))
    rule = f"{kind.what} {'below' if kind.sign < 0 else 'above'} {end:.3g}, where the median is {middle:.3g}"
    unread = int((~read).sum())
    return Unusual(
        kind.name, rule, tuple(scan.ids[row] for row in rows[order].tolist()), tuple(values[order].tolist()),
        f"{unread} picture{'s' * (unread != 1)} that cannot be read" if unread else "",
    )  # fmt: skip


def _measured(kind: _Kind, scan: Scan) -> Values:
    sides = np.sort(scan.image_sizes, axis=1).astype(np.float64)
    if kind.name in ("small", "large"):
        return np.asarray(sides[:, 0])
    if kind.name == "long":
        return np.asarray(sides[:, 1] / np.maximum(sides[:, 0], 1))
    return {"blurred": scan.sharpness, "little contrast": scan.contrast}.get(kind.name, scan.brightness)


def listed(unusual: Sequence[Unusual]) -> dict[str, int]:
    """By kind, how many pictures are listed; of what was not looked at there is no number."""
    return {each.kind: len(each.ids) for each in unusual if each.rule}
