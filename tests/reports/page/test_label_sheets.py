"""Sheets and charts of pseudo-labels, looked at by their pixels."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from hsl.reports.page.label_sheets import COLUMNS, SIDE, Labelled, drift_plot, label_sheet, tier_plot
from hsl.reports.plots.palette import palette
from hsl.reports.plots.run_plots import BLUE, GREEN, ORANGE

CLASSES = ("background", "leaf", "spot")


def labelled(height: int, width: int) -> Labelled:
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 2 :] = 1
    return Labelled(
        "p · rust · 0.90", np.full((height, width, 3), 255, np.uint8), mask, np.ones(mask.shape, np.float32)
    )


def drawn(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_a_sheet_shows_picture_and_label_side_by_side(tmp_path: Path) -> None:
    label_sheet(tmp_path / "audit" / "tier_A.png", "leaves, tier A", [labelled(32, 64)] * 4, CLASSES)
    sheet = drawn(tmp_path / "audit" / "tier_A.png")
    assert sheet.shape[1] > 2 * COLUMNS * SIDE
    assert sheet.shape[0] > 2 * SIDE // 2  # two rows of pictures twice as wide as high
    picture, overlay = sheet[180, 20 : SIDE - 20], sheet[180, SIDE + 20 : 2 * SIDE]
    assert (picture == 255).all()
    assert (overlay[:100] == 255).all()  # background stays clear
    leaf = palette()[1].astype(int)
    assert (np.abs(overlay[-80:-20].astype(int) - leaf).sum(1) < np.abs(255 - leaf).sum()).all()


def test_pictures_of_unlike_and_odd_sizes(tmp_path: Path) -> None:
    shown = [labelled(1, 7), labelled(90, 9), labelled(33, 61)]
    shown[0].mask[:] = 255
    label_sheet(tmp_path / "sheet.png", "odd", shown, CLASSES)
    assert drawn(tmp_path / "sheet.png").shape[0] < 4 * SIDE  # a thin picture does not take the whole page


def test_bars_of_the_tiers(tmp_path: Path) -> None:
    tier_plot(tmp_path / "few.png", {"rust": {"A": 3}})
    tier_plot(tmp_path / "many.png", {"rust": {"A": 3, "B": 40, "C": 1}, "healthy": {}, "phoma": {"C": 2}})
    assert drawn(tmp_path / "many.png").shape[0] > drawn(tmp_path / "few.png").shape[0]
    red = drawn(tmp_path / "many.png").reshape(-1, 3) == [0xD5, 0x5E, 0x00]
    assert red.all(1).sum() > 1000  # the bar of tier B


ROUNDS = pd.DataFrame(
    {
        "round": [0, 1, 2, 3],
        "drift": [None, 0.22, 0.09, 0.04],
        "miou": [None, 0.6, 0.8, 0.92],
        "agreement": [None, 0.6, 0.55, 0.5],
        "quality": [0.62, 0.75, 0.8, 0.81],
    }
)


def count(picture: NDArray[np.uint8], colour: str) -> int:
    return int((picture == tuple(bytes.fromhex(colour[1:]))).all(axis=-1).sum())


def test_every_line_is_drawn_and_the_same_rounds_give_the_same_picture(tmp_path: Path) -> None:
    for name, rounds in {"one": ROUNDS[:2], "three": ROUNDS, "again": ROUNDS}.items():
        drift_plot(tmp_path / f"{name}.png", rounds, title="Refinement")
    one, three, again = (drawn(tmp_path / f"{name}.png") for name in ("one", "three", "again"))
    assert (three == again).all()
    left, right = three[:, : three.shape[1] // 2], three[:, three.shape[1] // 2 :]
    assert count(left, BLUE) > count(one[:, : one.shape[1] // 2], BLUE) > 20
    assert min(count(right, colour) for colour in (BLUE, ORANGE, GREEN)) > 100
    assert count(left, ORANGE) == count(left, GREEN) == 0
