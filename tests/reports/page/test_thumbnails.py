import base64
import io

import numpy as np
import pytest
from PIL import Image

from hsl.reports.page import thumbnails
from hsl.reports.plots.palette import palette


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
