"""``bands`` and ``shown`` of ``dataset.yaml``: the channels of the pictures."""

from collections.abc import Mapping
from math import inf
from typing import Any

from hsl.data.bands.bands import FEWEST, MOST, Bands, Range
from hsl.data.formats.findings import Findings, did_you_mean, shown

_EXAMPLE = (
    "Write for example `bands: [red, green, blue, nir]`, or with ranges `bands: {red: [0, 3000], nir: [0, 6000]}`."
)


def read_bands_key(where: str, content: Mapping[str, Any], findings: Findings) -> Bands | None:
    """The channels that a description names; ``None`` where it names none, or with what is wrong in ``findings``.

    Args:
        where: what messages call the place.
        content: ``bands`` is a list of names in the order of the channels, or maps each to the numbers that become
            black and white, ``null`` for those of ``value_range``. ``shown`` lists the three that people see as red,
            green and blue.
        findings: gets what is wrong.
    """
    given, wanted = content.get("bands"), content.get("shown")
    if given is None:
        if wanted is not None:
            findings.add(
                f"`shown` in `{where}` should stand beside `bands`, whose channels it names. Found no `bands`."
            )
        return None
    ranges = given if isinstance(given, dict) else {}
    names = list(given) if isinstance(given, dict | list) else []
    words = all(isinstance(name, str) and name.strip() == name and name for name in names)
    if not words or not FEWEST <= len({*map(str, names)}) == len(names) <= MOST:
        findings.add(
            f"`bands` in `{where}` should name {FEWEST} to {MOST} different channels. Found `{shown(given)}`. "
            f"{_EXAMPLE}"
        )
        return None
    ends = [_range(where, name, ranges.get(name), findings) for name in names]
    if wanted is None:
        return Bands.of(names, ends)
    if not isinstance(wanted, list) or len(wanted) != 3:
        findings.add(f"`shown` in `{where}` should list three channels. Found `{shown(wanted)}`. Choose from {names}.")
        return None
    if strange := [name for name in wanted if name not in names]:
        way = did_you_mean(str(strange[0]), names, f"Choose from {names}.")
        findings.add(f"`shown` in `{where}` should name channels of `bands`. Found `{strange[0]}`. {way}")
        return None
    return Bands.of(names, ends, wanted)


def _range(where: str, name: str, ends: Any, findings: Findings) -> Range:
    if ends is None:
        return None
    numbers = isinstance(ends, list) and all(type(end) in (int, float) for end in ends)
    if not numbers or len(ends) != 2 or not -inf < ends[0] < ends[1] < inf:
        findings.add(
            f"The range of `{name}` in `{where}` should be [black, white] with black < white. Found `{shown(ends)}`."
        )
        return None
    return float(ends[0]), float(ends[1])
