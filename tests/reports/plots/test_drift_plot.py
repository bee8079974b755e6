"""The chart of refinement, looked at by its pixels."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from hsl.reports.plots.drift_plot import drift_plot
from hsl.reports.plots.run_plots import BLUE, GREEN, ORANGE

ROUNDS = pd.DataFrame(
    {
        "round": [0, 1, 2, 3],
        "drift": [None, 0.22, 0.09, 0.04],
        "miou": [None, 0.6, 0.8, 0.92],
        "agreement": [None, 0.6, 0.55, 0.5],
        "quality": [0.62, 0.75, 0.8, 0.81],
    }
)


def drawn(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


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
