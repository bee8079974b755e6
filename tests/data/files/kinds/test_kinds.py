import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from hsl.data.files.decode import decode_image, read_stored
from hsl.data.files.decode_masks import decode_mask
from hsl.data.files.kinds.arrays import ArraySource
from hsl.data.files.kinds.heif import is_readable
from hsl.data.files.kinds.layers import LayeredMask
from hsl.data.files.reading import sharpness
from hsl.errors import DataError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (21, 33, 3), dtype=np.uint8)
MASK = RNG.integers(0, 4, (21, 33), dtype=np.uint8)


def encoded(array: np.ndarray, kind: str, **how: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **how)
    return buffer.getvalue()


@pytest.mark.parametrize("array", [RGB, RGB[..., 0], np.dstack([RGB, RGB[..., :1]]), RGB[..., 0] > 99])
def test_pictures_equal_pillow(array: np.ndarray) -> None:
    expected = np.asarray(Image.fromarray(array).convert("RGB"))
    kinds = [("PPM", {})] if array.ndim == 2 or array.shape[2] == 3 else []
    kinds += [("JPEG2000", {"no_jp2": bare}) for bare in (False, True)] if array.dtype == np.uint8 else []
    for kind, how in kinds:
        data = encoded(array, kind, **how)
        np.testing.assert_array_equal(decode_image(data, "a"), expected)
        for end in (len(data) // 2, len(data) - 3):
            with pytest.raises(DataError, match=r"cut off"):
                decode_image(data[:end], "a")
        with pytest.raises(DataError, match=r"at most 0\.0001 megapixels"):
            decode_image(data, "a", max_megapixels=0.0001)


def test_netpbm_keeps_its_numbers_in_a_mask() -> None:
    plain = b"P2 # grey\n3 2\n5\n0 1 2\n3 4 5\n"
    assert decode_mask(plain, "m").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert decode_image(plain, "a")[..., 0].tolist() == [[0, 51, 102], [153, 204, 255]]
    assert decode_mask(b"P1\n3 1\n1 01\n", "m").tolist() == [[1, 0, 1]]
    deep = b"P5 33 21 4095\n" + (MASK.astype(np.uint16) * 1000).astype(">u2").tobytes()
    stored = read_stored(deep, "a")
    assert (stored.header.depth, stored.largest) == (12, 0)
    np.testing.assert_array_equal(stored.to_rgb("a")[..., 0], np.rint(MASK * (1000 / 4095 * 255)))
    for wrong in (b"P2\n3 2\n5\n0 1 2 3 4 6\n", b"P2\n3 2\n5\n0 1 2 3 4 x\n", b"P5\n0 2\n5\n", b"P5 3 3"):
        with pytest.raises(DataError):
            decode_image(wrong, "a")


def test_heic_says_what_to_install() -> None:
    if not is_readable():
        with pytest.raises(DataError, match=r"is a HEIC picture.*`pip install pillow-heif`"):
            decode_image(b"\0\0\0\x18ftypheic" + bytes(99), "a.heic")


class TestArrays:
    @pytest.mark.parametrize("name", ["m.npy", "m.npz", "m.mat"])
    def test_one_mask(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        save = {"m.npy": lambda array: np.save(path, array), "m.npz": lambda array: np.savez(path, array),
                "m.mat": lambda array: savemat(path, {"mask": array}, do_compression=True)}[name]  # fmt: skip
        for array in (MASK, MASK.astype(float), MASK[None].astype(np.int32)):
            save(array)
            np.testing.assert_array_equal(decode_mask(path.read_bytes(), name), MASK)
        with pytest.raises(DataError, match=r"at most 0\.0001 megapixels"):
            decode_mask(path.read_bytes(), name, max_megapixels=0.0001)
        with pytest.raises(DataError, match=r"cannot be read as an array|cut off"):
            decode_mask(path.read_bytes()[:150], name)
        save(RGB)
        palette = {
            tuple(colour): index % 4 for index, colour in enumerate(np.unique(RGB.reshape(-1, 3), axis=0).tolist())
        }
        np.testing.assert_array_equal(
            decode_mask(path.read_bytes(), name, palette), decode_mask(encoded(RGB, "PNG"), "m", palette)
        )
        save(np.zeros((4, 5, 7)))
        with pytest.raises(DataError, match=r"scores.argmax"):
            decode_mask(path.read_bytes(), name)
        save(MASK + 0.5)
        with pytest.raises(DataError, match=r"whole numbers"):
            decode_mask(path.read_bytes(), name)

    def test_several_arrays_are_named(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", inst=MASK * 9, kind=MASK, count=3)
        savemat(tmp_path / "a.mat", {"truth": {"seg": MASK, "edge": MASK > 1}})
        with pytest.raises(DataError, match=r"Found inst \(21, 33\), kind \(21, 33\).*masks/\{id\}.npz#inst"):
            decode_mask((tmp_path / "a.npz").read_bytes(), "a.npz")
        for path, key in ((tmp_path / "a.npz", "kind"), (tmp_path / "a.mat", "truth.seg")):
            np.testing.assert_array_equal(decode_mask(ArraySource(path, key).read(), "m"), MASK)
        for path, key in ((tmp_path / "a.npz", "no"), (tmp_path / "a.mat", "truth.no"), (tmp_path / "a.mat", "no.x")):
            with pytest.raises(DataError, match=r"should hold"):
                ArraySource(path, key).read()
        np.save(tmp_path / "o.npy", np.array([[{}]]))
        with pytest.raises(DataError, match=r"cannot be read as an array"):
            decode_mask((tmp_path / "o.npy").read_bytes(), "o.npy")
        with pytest.raises(DataError, match=r"save\(..., '-v7'\)"):
            decode_mask(b"MATLAB 7.3 MAT-file" + bytes(600), "a.mat")


def test_layers_are_painted_in_order_and_overlap_is_counted(tmp_path: Path) -> None:
    low, high = np.zeros((4, 6), np.uint8), np.zeros((4, 6), np.uint8)
    low[:2], high[1:3] = 255, 1
    for name, array in (("low", low), ("high", high)):
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    mask = LayeredMask(((tmp_path / "low.png", 2), (tmp_path / "high.png", 3)))
    expected = np.where(high > 0, 3, np.where(low > 0, 2, 0))
    np.testing.assert_array_equal(decode_mask(mask.read(), "m"), expected)
    assert mask.overlap() == ((low > 0) & (high > 0)).sum() == 6
    same = LayeredMask(((tmp_path / "low.png", 1), (tmp_path / "high.png", 1)))
    assert (same.overlap(), decode_mask(same.read(), "m").sum()) == (0, 18)
    Image.fromarray(high[:3]).save(tmp_path / "high.png")
    with pytest.raises(DataError, match=r"should be as large as"):
        mask.read()


def test_a_blurred_mask_is_read_by_the_nearest(tmp_path: Path) -> None:
    blocks = np.kron(np.array([[0, 1], [1, 0]]), np.ones((16, 16))).astype(np.uint8)
    grey = encoded(blocks * 255, "JPEG", quality=70)
    with pytest.raises(DataError, match=r"`data.reader.nearest=true`"):
        decode_mask(grey, "m", values={0: 0, 255: 1})
    np.testing.assert_array_equal(decode_mask(grey, "m", values={0: 0, 255: 1}, nearest=True), blocks)
    colours = np.array([[200, 30, 30], [20, 180, 220]], np.uint8)[blocks]
    palette = {(200, 30, 30): 0, (20, 180, 220): 1}
    found = decode_mask(encoded(colours, "JPEG", quality=90, subsampling=0), "m", palette, nearest=True)
    np.testing.assert_array_equal(found, blocks)
    (tmp_path / "m.jpg").write_bytes(grey)
    assert (
        LayeredMask(((tmp_path / "m.jpg", 1),), nearest=True).read()
        == LayeredMask(((tmp_path / "m.jpg", 1),), nearest=True).read()
    )


def test_a_blurred_picture_is_less_sharp() -> None:
    blurred = np.asarray(Image.fromarray(RGB).resize((8, 5)).resize((33, 21)))
    assert sharpness(RGB) > 20 * sharpness(blurred)
    assert sharpness(np.full((900, 1300, 3), 7, np.uint8)) == 0
