import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from hsl.data.files.decode import decode_image
from hsl.data.files.decode_masks import decode_mask
from hsl.data.files.decoding import Decoding
from hsl.errors import DataError

RNG = np.random.default_rng(0)
RGB = cv2.resize(RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8), (41, 30), interpolation=cv2.INTER_CUBIC)
GREY = RGB[..., 0].copy()
DEEP = RNG.integers(0, 65536, (30, 41), dtype=np.uint16)
DEEP_RGB = RNG.integers(0, 65536, (30, 41, 3), dtype=np.uint16)
INDICES = RNG.integers(0, 5, (30, 41), dtype=np.uint8)


def pillow(array, kind, **options):
    buffer = io.BytesIO()
    picture = array if isinstance(array, Image.Image) else Image.fromarray(array)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def small_png(values, bits):
    """A grey PNG of 1, 2 or 4 bits per pixel, which no library at hand writes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape
    rows = b""
    for row in values:
        digits = "".join(f"{value:0{bits}b}" for value in row)
        digits += "0" * (-len(digits) % 8)
        rows += b"\0" + int(digits, 2).to_bytes(len(digits) // 8, "big")
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


class TestPictures:
    @pytest.mark.parametrize(
        "data",
        [
            pillow(RGB, "PNG"),
            pillow(RGB, "BMP"),
            pillow(RGB, "WEBP", lossless=True),
            pillow(RGB, "TIFF"),
            pillow(RGB, "TIFF", compression="tiff_lzw"),
            pillow(RGB, "TIFF", compression="tiff_deflate"),
            tiff(np.moveaxis(RGB, -1, 0), photometric="rgb", planarconfig="separate"),
            tiff(RGB, photometric="rgb", bigtiff=True),
        ],
        ids=["png", "bmp", "webp", "tiff", "lzw", "deflate", "planar", "big"],
    )
    def test_a_lossless_picture_keeps_every_value(self, data):
        picture = decode_image(data, "a")
        assert picture.dtype == np.uint8
        assert picture.flags.c_contiguous
        np.testing.assert_array_equal(picture, RGB)

    @pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
    def test_a_lossy_picture_comes_out_as_pillow_sees_it(self, kind):
        data = pillow(RGB, kind, quality=95)
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=int)
        assert np.abs(decode_image(data, "a") - expected).max() <= 3

    @pytest.mark.parametrize(
        "data",
        [
            pillow(GREY, "PNG"),
            pillow(GREY, "TIFF"),
            pillow(GREY, "BMP"),
            pillow(Image.fromarray(np.dstack([GREY, 255 - GREY]), "LA"), "PNG"),
            tiff(np.dstack([GREY, 255 - GREY]), photometric="minisblack", planarconfig="contig"),
        ],
        ids=["png", "tiff", "bmp", "png with alpha", "tiff with two channels"],
    )
    def test_grey_becomes_three_equal_channels(self, data):
        np.testing.assert_array_equal(decode_image(data, "a"), np.dstack([GREY] * 3))

    @pytest.mark.parametrize("alpha", [0, 100, 255])
    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "LZW"])
    def test_alpha_is_dropped_and_not_multiplied(self, kind, alpha):
        rgba = np.dstack([RGB, np.full(RGB.shape[:2], alpha, np.uint8)])
        options = {"WEBP": {"lossless": True, "exact": True}, "LZW": {"compression": "tiff_lzw"}}
        data = pillow(rgba, "TIFF" if kind == "LZW" else kind, **options.get(kind, {}))
        np.testing.assert_array_equal(decode_image(data, "a"), RGB)

    def test_palette_pictures_show_their_colours(self):
        picture = Image.fromarray(RGB).quantize(16)
        np.testing.assert_array_equal(decode_image(pillow(picture, "PNG"), "a"), np.asarray(picture.convert("RGB")))

    def test_black_and_white(self):
        bits = GREY > 127
        expected = np.dstack([bits * np.uint8(255)] * 3)
        for data in (pillow(bits, "PNG"), pillow(bits, "TIFF"), small_png(bits.astype(int), 1)):
            np.testing.assert_array_equal(decode_image(data, "a"), expected)

    @pytest.mark.parametrize(
        ("data", "deep"),
        [
            (pillow(DEEP, "PNG"), np.dstack([DEEP] * 3)),
            (tiff(DEEP), np.dstack([DEEP] * 3)),
            (tiff(DEEP, compression="zlib"), np.dstack([DEEP] * 3)),
            (cv2.imencode(".png", DEEP_RGB[..., ::-1])[1].tobytes(), DEEP_RGB),
            (tiff(DEEP_RGB, photometric="rgb"), DEEP_RGB),
            (tiff(np.moveaxis(DEEP_RGB, -1, 0), photometric="rgb", planarconfig="separate"), DEEP_RGB),
        ],
        ids=["png", "tiff", "tiff packed", "png rgb", "tiff rgb", "tiff planar"],
    )
    def test_16_bits_are_divided_by_257(self, data, deep):
        np.testing.assert_array_equal(decode_image(data, "a"), np.rint(deep / 257))

    def test_the_value_range_says_what_is_black_and_white(self):
        row = np.array([[0, 1000, 2000, 3000, 65535]], np.uint16)
        data = pillow(np.repeat(row, 4, axis=0), "PNG")
        expected = [0, 0, 128, 255, 255]  # 127.5 to even
        assert decode_image(data, "a", (1000, 3000))[2, :, 1].tolist() == expected

    def test_the_value_range_leaves_8_bits_alone(self):
        np.testing.assert_array_equal(decode_image(pillow(RGB, "PNG"), "a", (0, 100)), RGB)

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16, np.int32, np.uint32])
    def test_other_numbers_need_a_value_range(self, dtype):
        data = tiff(np.array([[-4, 0, 4, 8]], np.int8).repeat(3, axis=0).clip(0).astype(dtype))
        assert decode_image(data, "a", (0, 8))[1, :, 2].tolist() == [0, 0, 128, 255]
        with pytest.raises(DataError, match=f"`a.tif` holds {np.dtype(dtype).name}.*value_range"):
            decode_image(data, "a.tif")

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_values_that_are_not_finite_are_refused(self, value):
        data = tiff(np.array([[0, value]], np.float32))
        with pytest.raises(DataError, match=r"`a\.tif` holds values that are not finite"):
            decode_image(data, "a.tif", (0, 1))

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation_turns_the_picture_upright(self, kind, orientation):
        picture = Image.fromarray(RGB)
        exif = picture.getexif()
        exif[0x0112] = orientation
        data = pillow(picture, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))), dtype=int)
        found = decode_image(data, "a")
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= (3 if kind == "JPEG" else 0)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_orientation_of_a_tiff_that_opencv_does_not_know(self, orientation):
        picture = Image.fromarray(RGB)
        exif = picture.getexif()
        exif[0x0112] = orientation
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(pillow(picture, "PNG", exif=exif)))))
        planar = np.moveaxis(RGB.astype(np.uint16) * 257, -1, 0)
        tag = [(274, "H", 1, orientation, False)]
        data = tiff(planar, photometric="rgb", planarconfig="separate", extratags=tag)
        np.testing.assert_array_equal(decode_image(data, "a"), expected)

    def test_of_several_pages_the_first_is_read(self):
        data = tiff(np.stack([GREY, 255 - GREY]), photometric="minisblack")
        np.testing.assert_array_equal(decode_image(data, "a")[..., 0], GREY)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_more_channels_than_colours_are_refused(self, dtype):
        data = tiff(np.zeros((8, 9, 6), dtype), photometric="minisblack", planarconfig="contig")
        with pytest.raises(DataError, match=r"`a\.tif` should have 1 to 4 channels.*6"):
            decode_image(data, "a.tif")

    @pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95, 0.999])
    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
    def test_a_file_that_is_cut_off_is_refused(self, kind, share, capfd):
        large = cv2.resize(RGB, (401, 300), interpolation=cv2.INTER_CUBIC)
        data = pillow(large, kind)
        with pytest.raises(DataError, match=r"`a\.x`"):
            decode_image(data[: int(len(data) * share)], "a.x")
        lines = capfd.readouterr().err.splitlines()
        assert [line for line in lines if not line.startswith("libpng error")] == []  # libpng cannot be hushed

    def test_a_progressive_jpeg_without_its_end_is_refused(self):
        large = cv2.resize(RGB, (401, 300), interpolation=cv2.INTER_CUBIC)
        data = pillow(large, "JPEG", progressive=True)
        with pytest.raises(DataError, match="cut off"):
            decode_image(data[: len(data) // 2], "a.jpg")

    def test_a_jpeg_with_something_after_its_end_is_read(self):
        data = pillow(RGB, "JPEG")
        np.testing.assert_array_equal(decode_image(data + b"\0" * 500, "a"), decode_image(data, "a"))

    def test_a_png_with_a_wrong_byte_is_refused(self):
        data = bytearray(pillow(RGB, "PNG"))
        data[len(data) // 2] ^= 0xFF
        with pytest.raises(DataError, match=r"`a\.png`"):
            decode_image(bytes(data), "a.png")

    def test_a_damaged_header_cannot_ask_for_memory(self):
        data = tiff(np.zeros((4, 4, 6), np.uint8), photometric="minisblack", planarconfig="contig")
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            tag = file.pages.first.tags["ImageWidth"]
        wide = data[: tag.valueoffset] + struct.pack("<I", 2**31 - 1) + data[tag.valueoffset + 4 :]
        with pytest.raises(DataError, match=r"`a\.tif`"):
            decode_image(wide, "a.tif")

    @pytest.mark.parametrize("data", [b"no picture", b"\x89PNG\r\n\x1a\n", b"II*\0", b"\xff\xd8\xff\xd9"])
    def test_what_is_no_picture_is_refused(self, data):
        with pytest.raises(DataError, match=r"`a\.png`"):
            decode_image(data, "a.png")

    def test_an_empty_file_is_called_empty(self):
        with pytest.raises(DataError, match=r"`a\.png` is empty"):
            decode_image(b"", "a.png")


class TestMasks:
    @pytest.mark.parametrize(
        "data",
        [
            pillow(INDICES, "PNG"),
            pillow(INDICES.astype(np.uint16), "PNG"),
            pillow(INDICES, "TIFF"),
            pillow(INDICES, "BMP"),
            pillow(np.dstack([INDICES] * 3), "PNG"),
            pillow(Image.fromarray(np.dstack([INDICES, INDICES * 9]), "LA"), "PNG"),
            small_png(INDICES, 4),
        ],
        ids=["png", "16 bits", "tiff", "bmp", "equal channels", "alpha", "4 bits"],
    )
    def test_values_are_indices(self, data):
        mask = decode_mask(data, "a")
        assert mask.dtype == np.uint8
        assert mask.flags.writeable
        np.testing.assert_array_equal(mask, INDICES)

    @pytest.mark.parametrize("bits", [1, 2, 4])
    def test_few_bits_are_not_stretched(self, bits):
        values = INDICES % 2**bits
        np.testing.assert_array_equal(decode_mask(small_png(values, bits), "a"), values)

    @pytest.mark.parametrize("bits", [1, 2, 4, 8])
    def test_a_palette_png_holds_indices_whatever_its_colours(self, bits):
        values = INDICES % 2 ** min(bits, 3)
        picture = Image.fromarray(values)
        picture.putpalette(RNG.integers(0, 256, 3 * 16).tolist())
        np.testing.assert_array_equal(decode_mask(pillow(picture, "PNG", bits=bits), "a"), values)

    def test_255_stays_what_is_ignored(self):
        mask = np.where(INDICES == 3, 255, INDICES).astype(np.uint8)
        np.testing.assert_array_equal(decode_mask(pillow(mask, "PNG"), "a"), mask)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_another_ignored_value_becomes_255(self, dtype):
        ignored = 200 if dtype == np.uint8 else 65535
        mask = np.where(INDICES == 3, ignored, INDICES.astype(int)).astype(dtype)
        expected = np.where(INDICES == 3, 255, INDICES)
        np.testing.assert_array_equal(decode_mask(pillow(mask, "PNG"), "a", ignore_index=ignored), expected)

    def test_255_beside_another_ignored_value_is_not_hidden(self):
        mask = np.where(INDICES == 3, 255, INDICES).astype(np.uint8)
        with pytest.raises(DataError, match=r"`a\.png` holds 255, neither a class nor `ignore_index = 4`"):
            decode_mask(pillow(mask, "PNG"), "a.png", ignore_index=4)

    def test_16_bits_above_255_are_refused(self):
        mask = INDICES.astype(np.uint16)
        mask[3, 4] = 256
        with pytest.raises(DataError, match=r"`a\.png` should hold class indices in \[0, 255\]. Found 256 \(in all 1"):
            decode_mask(pillow(mask, "PNG"), "a.png")

    def test_a_jpeg_is_refused(self):
        with pytest.raises(DataError, match=r"`a\.jpg` is a JPEG"):
            decode_mask(pillow(INDICES, "JPEG"), "a.jpg")

    @pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
    def test_a_file_that_is_cut_off_is_refused(self, share):
        data = pillow(INDICES, "PNG")
        with pytest.raises(DataError, match=r"`a\.png`"):
            decode_mask(data[: int(len(data) * share)], "a.png")

    def test_an_empty_file_is_refused(self):
        with pytest.raises(DataError, match=r"`a\.png` is empty"):
            decode_mask(b"", "a.png")

    @pytest.mark.parametrize("mode", ["L", "P"])
    def test_with_a_changed_byte_it_is_the_same_or_refused(self, mode):
        picture = Image.fromarray(INDICES)
        if mode == "P":
            picture.putpalette(list(range(15)))
        data, told = pillow(picture, "PNG"), 0
        for place in range(len(data)):
            changed = bytes([data[place] ^ RNG.integers(1, 256)])
            try:
                np.testing.assert_array_equal(decode_mask(data[:place] + changed + data[place + 1 :], "a.png"), INDICES)
            except DataError as error:
                told += str(error).startswith("`a.png` ")
        assert told > len(data) - 30

    def test_a_mask_larger_than_pillows_limit_is_read(self, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        np.testing.assert_array_equal(decode_mask(pillow(INDICES, "PNG"), "a"), INDICES)


COLOURS = ((0, 0, 0), (0, 176, 0), (255, 0, 0), (255, 255, 255), (1, 2, 3))
PALETTE = dict(zip(COLOURS, (0, 1, 2, 3, 255), strict=True))


class TestColourMasks:
    def test_colours_are_looked_up(self):
        colours = np.asarray(COLOURS, np.uint8)[INDICES]
        expected = np.where(INDICES == 4, 255, INDICES)
        for data in (
            pillow(colours, "PNG"),
            pillow(np.dstack([colours, colours[..., 0]]), "PNG"),
            pillow(colours, "BMP"),
        ):
            mask = decode_mask(data, "a", PALETTE)
            assert mask.dtype == np.uint8
            np.testing.assert_array_equal(mask, expected)

    def test_with_a_palette_grey_is_a_colour_and_no_index(self):
        grey = pillow(np.where(INDICES == 3, np.uint8(255), np.uint8(0)), "PNG")
        np.testing.assert_array_equal(decode_mask(grey, "a", PALETTE), np.where(INDICES == 3, 3, 0))
        with pytest.raises(DataError, match=r"`a\.png` is grey and holds 4 values.*Remove `palette` from dataset.yaml"):
            decode_mask(pillow(INDICES, "PNG"), "a.png", PALETTE)
        np.testing.assert_array_equal(decode_mask(pillow(INDICES, "PNG"), "a.png"), INDICES)  # the advice works

    def test_an_unknown_colour_is_named(self):
        colours = np.asarray(COLOURS, np.uint8)[INDICES]
        colours[2, 3:5] = (9, 8, 7)
        colours[5, 6] = (255, 1, 0)
        with pytest.raises(DataError, match=r"`a\.png` holds 2 colours.*\(9, 8, 7\) \(2 pixels\)"):
            decode_mask(pillow(colours, "PNG"), "a.png", PALETTE)

    def test_colours_without_a_palette_are_refused(self):
        colours = np.asarray(COLOURS, np.uint8)[INDICES]
        with pytest.raises(DataError, match=r"`a\.png` holds colours, not class indices.*`palette`"):
            decode_mask(pillow(colours, "PNG"), "a.png")

    def test_colours_of_16_bits_are_refused(self):
        data = cv2.imencode(".png", np.dstack([INDICES.astype(np.uint16)] * 3))[1].tobytes()
        with pytest.raises(DataError, match="16 bits"):
            decode_mask(data, "a.png")

    def test_a_palette_png_may_agree_with_the_palette(self):
        picture = Image.fromarray(INDICES % 3)
        picture.putpalette(np.asarray(COLOURS).ravel().tolist())
        np.testing.assert_array_equal(decode_mask(pillow(picture, "PNG"), "a", PALETTE), INDICES % 3)

    def test_a_palette_png_that_contradicts_the_palette_is_refused(self):
        picture = Image.fromarray(INDICES % 3)
        picture.putpalette([0, 0, 0, 255, 0, 0, 0, 176, 0])
        with pytest.raises(DataError, match=r"`a\.png` has index 1 in the colour \(255, 0, 0\).*class 2"):
            decode_mask(pillow(picture, "PNG"), "a.png", PALETTE)

    @pytest.mark.parametrize(("bits", "shown"), [(1, [0, 255]), (2, [0, 85, 170, 255]), (4, [0, 17, 34, 255])])
    def test_few_bits_may_be_named_as_they_are_shown(self, bits, shown):
        top = 2**bits - 1
        numbers = np.array([[round(each * top / 255) for each in shown]] * 2, np.uint8)
        expected = np.array([range(len(shown))] * 2)
        by_shown = {number: index for index, number in enumerate(shown)}
        by_number = {round(number * top / 255): index for number, index in by_shown.items()}
        for values in (by_shown, by_number, by_shown | by_number):
            assert (decode_mask(small_png(numbers, bits), "m", values=values) == expected).all()
        with pytest.raises(DataError, match="1 numbers that `values` does not name, most often 1 "):
            decode_mask(small_png(np.array([[0, 1]], np.uint8), bits), "m", values={0: 0, 99: 1})

    @pytest.mark.parametrize("dtype", ["int8", "int16", "int64", "float32"])
    def test_numbers_below_zero_may_be_classes(self, dtype):
        data = tiff(np.array([[-1, 1, 0]], dtype))
        with pytest.raises(DataError) as error:
            decode_mask(data, "m", classes=("a", "b", "c"))
        assert "set `ignore_index: -1`" in str(error.value)
        assert "write `values: {-1: a, 0: b, 1: c}`" in str(error.value)
        assert decode_mask(data, "m", values={-1: 0, 0: 1, 1: 2}).tolist() == [[0, 2, 1]]
        assert decode_mask(data, "m", ignore_index=-1).tolist() == [[255, 1, 0]]

    @pytest.mark.parametrize("top", [2**32 - 1, 2**63, 2**64 - 1])
    def test_the_largest_numbers_may_be_named(self, top):
        data = tiff(np.array([[0, 1, top]], np.uint64))
        with pytest.raises(DataError, match=f"write `values: {{0: a, 1: b, {top}: ignore}}`"):
            decode_mask(data, "m", classes=("a", "b"))
        values = {0: 0, 1: 1, top: 255, 2**70: 1, -5: 0}
        assert decode_mask(data, "m", values=values).tolist() == [[0, 1, 255]]
        assert decode_mask(pillow(np.array([[0, 1]], np.uint8), "PNG"), "m", values=values).tolist() == [[0, 1]]

    def test_the_pixels_of_a_gif_are_colours(self):
        indices = np.array([[0, 1, 3, 255]] * 3, np.uint8)
        assert (decode_mask(pillow(indices, "GIF"), "m") == indices).all()  # Pillow stores 0, 1, 2, 3 and a palette
        colours = np.array([[[0, 0, 0], [250, 0, 0]]] * 3, np.uint8)
        palette = {(0, 0, 0): 1, (250, 0, 0): 0}
        assert (decode_mask(pillow(colours, "GIF"), "m", palette) == [1, 0]).all()
        with pytest.raises(DataError, match="holds colours, not class indices"):
            decode_mask(pillow(colours, "GIF"), "m")


def test_the_key_that_an_error_names_sets_the_range():
    data = tiff(np.linspace(0, 1, 20, dtype=np.float32).reshape(4, 5))
    for key, way in (
        ("value_range", "known. Set `value_range=[black,white]`."),
        ("data.value_range", "Set `value_range: [black, white]` in dataset.yaml, or `data.value_range=[black,white]`."),
    ):
        with pytest.raises(DataError) as error:
            Decoding(range_key=key).image_of(data, "a")
        assert str(error.value).endswith(way)
    assert Decoding(value_range=(0.0, 1.0), range_key="value_range").image_of(data, "a").max() == 255


def test_complex_numbers_are_refused_for_what_they_are():
    with pytest.raises(DataError, match=r"should hold real numbers\. Found complex64"):
        decode_image(tiff(np.ones((4, 5), np.complex64)), "a")
