"""Heat maps and sheets, looked at by their pixels."""

from pathlib import Path

import numpy as np
from PIL import Image

from hsl.reports.analysis.heat_maps import GAP, LEFT, SIDE, Tile, heat_map, heat_overlay, thumbnail, tile_sheet


def drawn(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_heat_covers_the_picture_where_the_model_looks() -> None:
    image = np.full((40, 60, 3), 100, np.uint8)
    cam = np.zeros((4, 6))
    cam[:, 3:] = 1
    shown = heat_overlay(image, cam).astype(int)
    assert shown.shape == image.shape
    assert (shown[:, :20] == 100).all()  # grey stays grey, and clear where the heat is 0
    assert (np.abs(shown[:, 40:] - 100).sum(-1) > 100).all()


def test_a_heat_map_gets_brighter_and_keeps_its_shape() -> None:
    ramp = heat_map(np.linspace(0, 1, 12)[None].repeat(6, 0))
    assert ramp.shape == (SIDE // 2, SIDE, 3)
    light = ramp[SIDE // 4].astype(int).sum(1)
    assert light[0] < 30
    assert light[-1] > 500
    assert np.all(np.diff(light[:: SIDE // 6]) > 0)


def test_a_sheet_has_a_place_for_each_tile(tmp_path: Path) -> None:
    red, wide = np.zeros((9, 9, 3), np.uint8), np.zeros((5, 50, 3), np.uint8)
    red[..., 0], wide[..., 1] = 255, 255
    rows = [("rust", [Tile(red, ["p1", "0.90"]), Tile(thumbnail(wide))]), ("a very long name " * 5, [Tile(None)])]
    tile_sheet(tmp_path / "new" / "sheet.png", "title", ["mean", "example"], rows)
    sheet = drawn(tmp_path / "new" / "sheet.png")
    left = GAP + LEFT
    assert ((sheet[:, left : left + SIDE] == [255, 0, 0]).all(-1)).sum() == SIDE * SIDE
    assert ((sheet[:, left + SIDE + GAP :] == [0, 255, 0]).all(-1)).sum() >= SIDE * (SIDE // 10)
    tile_sheet(tmp_path / "plain.png", "title", [""], [("", [Tile(red)])], heat_scale=False)
    assert (drawn(tmp_path / "plain.png")[100:, GAP : GAP + SIDE] == [255, 0, 0]).all(-1).any()
