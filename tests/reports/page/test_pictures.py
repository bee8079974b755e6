"""Pictures of predictions, thumbnails and pseudo-labels, looked at by their pixels."""

import base64
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from hsl.reports.page import thumbnails
from hsl.reports.page.label_sheets import COLUMNS, SIDE, Labelled, drift_plot, label_sheet, tier_plot
from hsl.reports.page.pictures import (
    STRONGEST,
    mask_picture,
    overlay,
    write_examples,
    write_views,
)
from hsl.reports.plots.palette import palette
from hsl.reports.plots.run_plots import BLUE, GREEN, ORANGE
from hsl.run_folder.pictures import Example, read_examples

CLASSES = ["background", "crack", "stain"]
GREY = np.full((400, 500, 3), 100, dtype=np.uint8)
SHEET_CLASSES = ("background", "leaf", "spot")
ROUNDS = pd.DataFrame(
    {
        "round": [0, 1, 2, 3],
        "drift": [None, 0.22, 0.09, 0.04],
        "miou": [None, 0.6, 0.8, 0.92],
        "agreement": [None, 0.6, 0.55, 0.5],
        "quality": [0.62, 0.75, 0.8, 0.81],
    }
)


def flat(value, dtype=np.uint8):
    return np.full((400, 500), value, dtype=dtype)


def test_a_mask_picture_keeps_indices_and_shows_colours(tmp_path):
    mask = np.array([[0, 1, 2, 255]], dtype=np.uint8)
    mask_picture(mask).save(tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), mask)
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), palette()[mask])


def test_background_stays_as_it_is_whatever_the_confidence():
    shown = overlay(GREY, flat(0), flat(0.99, np.float32), CLASSES)
    np.testing.assert_array_equal(shown[:400], GREY)
    assert shown.shape[0] > 400  # the legend
    assert shown.shape[1] == 500


def test_several_channels_of_a_pixel_are_seen_at_once(tmp_path):
    codes = flat(3)  # crack and stain
    mixed = palette()[[1, 2]].mean(0).round()
    shown = overlay(GREY, codes, flat(1.0, np.float32), CLASSES, overlapping=True)
    np.testing.assert_allclose(shown[200, 250], 100 * (1 - STRONGEST) + mixed * STRONGEST, atol=1)
    clear = overlay(GREY, codes, flat(0.5, np.float32), CLASSES, overlapping=True)  # a guess between two
    np.testing.assert_array_equal(clear[200, 250], [100, 100, 100])
    write_views(tmp_path, "a", GREY, codes, flat(2), flat(1.0, np.float32), CLASSES, overlapping=True)
    with Image.open(tmp_path / "a_truth.png") as picture:
        assert np.unique(np.asarray(picture)).tolist() == [3]
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB"))[0, 0], mixed)
    with Image.open(tmp_path / "a_prediction.png") as picture:  # one channel has the colour of its class
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB"))[0, 0], palette()[2])


@pytest.mark.parametrize(("confidence", "alpha"), [(1.0, STRONGEST), (1 / 3, 0.0), (2 / 3, STRONGEST / 2)])
def test_opacity_grows_with_the_confidence_above_a_guess(confidence, alpha):
    shown = overlay(GREY, flat(1), flat(confidence, np.float32), CLASSES)
    expected = 100 * (1 - alpha) + palette()[1] * alpha
    np.testing.assert_allclose(shown[200, 250], expected, atol=1)


def test_the_truth_is_an_outline_in_its_own_colour():
    truth = flat(0)
    truth[100:200, 100:200] = 2
    shown = overlay(GREY, flat(0), flat(0.9, np.float32), CLASSES, truth)
    np.testing.assert_array_equal(shown[100, 150], palette()[2])
    np.testing.assert_array_equal(shown[101, 150], palette()[2])
    np.testing.assert_array_equal(shown[150, 150], [100, 100, 100])
    np.testing.assert_array_equal(shown[99, 150], [100, 100, 100])


def test_ignored_truth_has_no_outline():
    truth = flat(0)
    truth[:50] = 255
    shown = overlay(GREY, flat(0), flat(0.9, np.float32), CLASSES, truth)
    np.testing.assert_array_equal(shown[:400], GREY)


def test_colour_pictures_are_half_faded():
    red = np.zeros((400, 500, 3), dtype=np.uint8)
    red[..., 0] = 200
    shown = overlay(red, flat(0), flat(1, np.float32), CLASSES)
    np.testing.assert_allclose(shown[10, 10], [100 + 0.299 * 100, 29.9, 29.9], atol=1)


@pytest.mark.parametrize(("shape", "width"), [((1000, 3000), 1024), ((20, 30), 390), ((1, 1), 384), ((500, 383), 383)])
def test_large_pictures_shrink_and_small_ones_grow(shape, width):
    image = np.zeros((*shape, 3), dtype=np.uint8)
    shown = overlay(image, np.ones(shape, np.uint8), np.ones(shape, np.float32), CLASSES, np.zeros(shape, np.uint8))
    assert shown.shape[1] == width


class Predicted:
    def __init__(self, name, miou):
        self.id, self.miou = name, miou
        self.prediction, self.confidence = flat(1), flat(0.75, np.float32)


def test_write_examples(tmp_path):
    def original(name):
        return GREY, flat(2 if name == "bad/one: ä" else 1)

    write_examples(tmp_path, [Predicted("good", 0.9)], [Predicted("bad/one: ä", 0.05)], original, CLASSES)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *sorted(f"best_01_good_{view}.png" for view in ("input", "overlay", "prediction", "truth")),
        "index.csv",
        *sorted(f"worst_01_bad-one-_{view}.png" for view in ("input", "overlay", "prediction", "truth")),
    ]
    assert read_examples(tmp_path) == [
        Example("best", 1, "good", 0.9, 0.75),
        Example("worst", 1, "bad/one: ä", 0.05, 0.75),
    ]
    with Image.open(tmp_path / "worst_01_bad-one-_truth.png") as truth:
        assert np.unique(np.asarray(truth)).tolist() == [2]


def test_large_views_shrink_without_mixing_classes(tmp_path):
    mask = np.zeros((100, 2000), dtype=np.uint8)
    mask[:, ::3] = 2
    image = np.zeros((100, 2000, 3), dtype=np.uint8)
    write_views(tmp_path, "x", image, None, mask, np.ones(mask.shape, np.float32), CLASSES)
    assert not (tmp_path / "x_truth.png").exists()
    with Image.open(tmp_path / "x_prediction.png") as picture:
        assert picture.size == (1024, 51)
        assert set(np.unique(np.asarray(picture))) <= {0, 2}


def test_no_index(tmp_path):
    assert read_examples(tmp_path) == []


def opened(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


def masks():
    truth = np.zeros((60, 80), dtype=np.uint8)
    truth[10:20, 10:30] = 1
    prediction = truth.copy()
    prediction[40:50, 60:70] = 1
    return prediction, truth


def test_thin_lines_stay_visible_in_a_small_picture():
    truth = np.zeros((1000, 2000), dtype=np.uint8)
    truth[500, 500:1500] = 1
    picture = np.asarray(opened(thumbnails.boundary_errors(truth, truth, 2, None)))
    assert picture.shape == (160, 320, 3)
    assert (picture[78:82, 100:220].max(axis=0)[:, 2] > 180).all()  # the blue of a contour that was found


def test_a_class_map_keeps_its_indices_and_an_input_its_shape():
    _, truth = masks()
    small = opened(thumbnails.class_map(truth))
    assert small.size == (320, 240)
    assert set(np.unique(np.asarray(small))) == {0, 1}
    assert opened(thumbnails.photo(np.zeros((500, 10, 3), dtype=np.uint8))).size == (6, 320)


def test_boxes_lie_where_they_belong():
    _, truth = masks()
    picture = np.asarray(opened(thumbnails.boxed(truth, (120, 160), [(20, 20, 40, 60)])).convert("RGB")).astype(int)
    pink = (np.abs(picture - [255, 79, 216]).sum(axis=2) < 30).nonzero()  # 120 x 160 is drawn at 240 x 320
    assert (pink[0].min(), pink[1].min()) == pytest.approx((38, 38), abs=2)
    assert (pink[0].max(), pink[1].max()) == pytest.approx((81, 121), abs=2)
    dashed = np.asarray(opened(thumbnails.boxed(truth, (60, 80), [], [(10, 10, 20, 30)])).convert("RGB")).astype(int)
    number = (np.abs(dashed - [255, 79, 216]).sum(axis=2) < 30).sum()
    assert 0 < number < len(pink[0])


def test_what_cannot_be_read_is_a_gap(tmp_path):
    assert thumbnails.read_classes(tmp_path / "absent.png") is None
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert thumbnails.read_photo(tmp_path / "broken.png") is None
    Image.fromarray(np.full((4, 4, 3), (1, 2, 3), dtype=np.uint8)).save(tmp_path / "rgb.png")
    assert thumbnails.read_classes(tmp_path / "rgb.png") is None
    Image.fromarray(masks()[1]).save(tmp_path / "mask.png")
    assert (thumbnails.read_classes(tmp_path / "mask.png") == masks()[1]).all()
    content = bytearray((tmp_path / "mask.png").read_bytes())
    content[-17] ^= 1  # in the checksum of its pixels, at which Pillow does not look
    (tmp_path / "mask.png").write_bytes(content)
    assert thumbnails.read_classes(tmp_path / "mask.png") is None


def test_classes_without_the_ignored():
    assert thumbnails.classes_in(np.array([[0, 2], [255, 7]], dtype=np.uint8), 3) == [0, 2]
    assert (palette()[255] == 217).all()


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
    label_sheet(tmp_path / "audit" / "tier_A.png", "leaves, tier A", [labelled(32, 64)] * 4, SHEET_CLASSES)
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
    label_sheet(tmp_path / "sheet.png", "odd", shown, SHEET_CLASSES)
    assert drawn(tmp_path / "sheet.png").shape[0] < 4 * SIDE  # a thin picture does not take the whole page


def test_bars_of_the_tiers(tmp_path: Path) -> None:
    tier_plot(tmp_path / "few.png", {"rust": {"A": 3}})
    tier_plot(tmp_path / "many.png", {"rust": {"A": 3, "B": 40, "C": 1}, "healthy": {}, "phoma": {"C": 2}})
    assert drawn(tmp_path / "many.png").shape[0] > drawn(tmp_path / "few.png").shape[0]
    red = drawn(tmp_path / "many.png").reshape(-1, 3) == [0xD5, 0x5E, 0x00]
    assert red.all(1).sum() > 1000  # the bar of tier B


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
