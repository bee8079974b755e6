"""Pictures unlike the others, against a median and deviation written out here."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from tests.data.audit._inputs import DataSet, picture

from hsl.data.audit.unusual import FEWEST, Unusual, listed, unusual_pictures
from hsl.data.bands.bands import Bands


def by_kind(found: list[Unusual]) -> dict[str, Unusual]:
    return {each.kind: each for each in found}


def test_what_lies_beyond_the_median_is_listed_by_kind_the_farthest_first(tmp_path: Path) -> None:
    data = DataSet(tmp_path)
    for i in range(FEWEST):
        data.add(f"p{i}", "train", picture(i))
    catalogue, scan, _ = data.take()
    assert sum(listed(unusual_pictures(catalogue, scan)).values()) == 0  # all were drawn alike
    sharpness = np.array([100.0, 90, 110, 95, 105, 100, 20, 2])
    brightness = np.array([100.0, 101, 99, 100, 100, 131, 68, 71])
    sizes = np.array([[60, 80]] * 5 + [[80, 60], [29, 40], [60, 400]])
    contrast = np.array([50.0, 50, 50, 50, 50, 0, 26, 24])
    measured = replace(scan, sharpness=sharpness, brightness=brightness, image_sizes=sizes, contrast=contrast)
    kinds = by_kind(unusual_pictures(catalogue, measured))
    assert kinds["blurred"].ids == ("p7", "p6")
    assert kinds["blurred"].values == (2.0, 20.0)
    assert kinds["dark"].ids == ("p6",)  # 71 is 29 levels below the median
    assert kinds["bright"].ids == ("p5",)
    assert kinds["little contrast"].ids == ("p5", "p7")  # 26 is not half of 50
    assert (kinds["small"].ids, kinds["large"].ids, kinds["long"].ids) == (("p6",), (), ("p7",))
    logs = np.log(sharpness)
    spread = 3 * 1.4826 * np.median(np.abs(logs - np.median(logs)))
    limit = np.exp(np.median(logs) - max(spread, np.log(2)))
    assert f"below {limit:.3g}, where the median is {np.exp(np.median(logs)):.3g}" in kinds["blurred"].rule


def test_what_cannot_be_looked_at_is_said(tmp_path: Path) -> None:
    data = DataSet(tmp_path)
    for i in range(FEWEST + 1):
        data.add(f"p{i}", "train", picture(i))
    catalogue, scan, _ = data.take()
    sizes = scan.image_sizes.copy()
    sizes[0] = 0
    one_unread = unusual_pictures(catalogue, replace(scan, image_sizes=sizes))
    assert {each.unchecked for each in one_unread} == {"1 picture that cannot be read"}
    sizes[1] = 0
    few = unusual_pictures(catalogue, replace(scan, image_sizes=sizes))
    assert {each.unchecked for each in few} == {"a median needs 8 pictures that can be read; there are 7"}
    assert listed(few) == {}
    named = replace(catalogue, bands=Bands.of(["red", "nir"]))
    banded = by_kind(unusual_pictures(named, scan))
    assert {name for name, each in banded.items() if not each.rule} == {"blurred", "dark", "bright"}
