"""Masks of overlapping channels in every form that is read, and what is said of those that are not."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
import yaml
from PIL import Image

from hsl.data.audit.audit import audit
from hsl.data.files.decoding import Decoding
from hsl.data.files.scan import scan
from hsl.data.formats.channels import read_channels
from hsl.data.loading.sampling import mask_presence
from hsl.data.loading.transforms import masks_by_head
from hsl.data.splits.folds import kfold
from hsl.data.splits.grouping import GroupedImages
from hsl.data.tasks import heads_of
from hsl.errors import ConfigError, DataError

CHANNELS = ["leaf", "symptom", "margin"]


@pytest.fixture
def truth() -> np.ndarray:
    """``bool (3, 12, 17)``, in which every combination occurs."""
    return np.random.default_rng(0).random((3, 12, 17)) < 0.5


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set of one picture, whose mask is still to be written."""
    root = tmp_path / "leaves"
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (12, 17, 3), np.uint8)).save(root / "images" / "a.png")
    describe(root, channels=CHANNELS)
    return root


def describe(root: Path, **content: object) -> None:
    (root / "dataset.yaml").write_text(yaml.safe_dump(content))


def write_separate(root: Path, masks: np.ndarray, name: str = "a.png") -> None:
    for channel, mask in zip(CHANNELS, masks, strict=True):
        (root / "masks" / channel).mkdir(exist_ok=True)
        Image.fromarray(mask).save(root / "masks" / channel / name)


def codes(root: Path) -> np.ndarray:
    catalogue = read_channels(root)
    return Decoding.of(catalogue)(catalogue.records[0]).mask


def message(root: Path) -> str:
    with pytest.raises(DataError) as error:
        codes(root)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def packed(truth: np.ndarray) -> np.ndarray:
    return truth[0] + 2 * truth[1] + 4 * truth[2]


@pytest.mark.parametrize(
    "form",
    ["png", "tiff of channels", "tiff of planes", "tiff of pages", "lzw", "npy first", "npy last", "separate", "0/1"],
)
def test_every_form_holds_the_same(root: Path, truth: np.ndarray, form: str) -> None:
    masks = truth.astype(np.uint8) * (1 if form == "0/1" else 255)
    path = root / "masks" / "a.tif"
    if form in ("separate", "0/1"):
        write_separate(root, masks)
    elif form == "png":
        Image.fromarray(np.moveaxis(masks, 0, -1)).save(root / "masks" / "a.png")
    elif form == "tiff of channels":
        tifffile.imwrite(path, np.moveaxis(masks, 0, -1), photometric="rgb", compression="zlib")
    elif form == "tiff of planes":
        tifffile.imwrite(path, masks, photometric="minisblack", planarconfig="separate")
    elif form == "tiff of pages":
        tifffile.imwrite(path, masks, photometric="minisblack")
    elif form == "lzw":
        cv2.imwritemulti(str(path), list(masks))
    else:
        np.save(root / "masks" / "a.npy", truth if form == "npy first" else np.moveaxis(masks, 0, -1).astype(float))
    assert np.array_equal(codes(root), packed(truth))


def test_four_channels_of_a_png_with_alpha_and_seven_pages(root: Path) -> None:
    rng = np.random.default_rng(2)
    four = rng.integers(0, 2, (12, 17, 4), np.uint8) * np.uint8(255)
    describe(root, channels=[*"abcd"])
    Image.fromarray(four).save(root / "masks" / "a.png")
    assert np.array_equal(codes(root), (four > 0) @ [1, 2, 4, 8])
    (root / "masks" / "a.png").unlink()
    seven = rng.integers(0, 2, (7, 12, 17), np.uint8)
    describe(root, channels=[*"abcdefg"])
    tifffile.imwrite(root / "masks" / "a.tif", seven, photometric="minisblack")
    assert np.array_equal(codes(root), np.tensordot(2 ** np.arange(7), seven, 1))


def test_a_pixel_that_a_channel_ignores_is_ignored(root: Path, truth: np.ndarray) -> None:
    masks = truth.astype(np.uint8) * 9
    masks[1, 3, 4] = 200
    write_separate(root, masks)
    assert "holds 1 numbers that `values` does not name, most often 9 " in message(root)
    describe(root, channels=CHANNELS, values={0: "absent", 9: "present", 200: "ignore"})
    expected = packed(truth)
    expected[3, 4] = 255
    assert np.array_equal(codes(root), expected)


class TestFaults:
    def test_another_number_of_channels(self, root: Path, truth: np.ndarray) -> None:
        Image.fromarray(truth[0].astype(np.uint8)).save(root / "masks" / "a.png")
        assert "should have 3 channels (leaf, symptom, margin). Found 1. Export all of them" in message(root)
        describe(root, channels=CHANNELS[:2])
        Image.fromarray(np.moveaxis(truth[:2], 0, -1).astype(np.uint8), "LA").save(root / "masks" / "a.png")
        assert np.array_equal(codes(root), truth[0] + 2 * truth[1])  # the way out

    def test_a_channel_without_a_file(self, root: Path, truth: np.ndarray) -> None:
        write_separate(root, truth.astype(np.uint8))
        (root / "masks" / "margin" / "a.png").rename(root / "margin.png")
        assert "masks/margin` holds no picture. Put some there" in message(root)
        Image.fromarray(truth[0].astype(np.uint8)).save(root / "masks" / "margin" / "b.png")
        with pytest.raises(DataError, match=r"Every picture should have a mask in .*margin`. Without one are .*a.png"):
            read_channels(root)
        (root / "masks" / "margin" / "b.png").unlink()
        Image.fromarray(np.zeros((12, 17), np.uint8)).save(root / "masks" / "margin" / "a.png")
        assert np.array_equal(codes(root), truth[0] + 2 * truth[1])  # the way out: 0 everywhere

    def test_a_folder_that_is_no_channel(self, root: Path, truth: np.ndarray) -> None:
        write_separate(root, truth.astype(np.uint8))
        (root / "masks" / "hole").mkdir()
        assert "Not so are `hole`. Move them away, or name them in `channels`" in message(root)

    def test_unlike_sizes(self, root: Path, truth: np.ndarray) -> None:
        write_separate(root, truth.astype(np.uint8))
        Image.fromarray(truth[0, :5].astype(np.uint8)).save(root / "masks" / "symptom" / "a.png")
        assert "12 x 17 (height x width). Found 5 x 17. Export all channels of a picture at one size." in message(root)

    @pytest.mark.parametrize("names", [[*"abcdefgh"], ["leaf"], ["leaf", "leaf"], "leaf", [1, 2]])
    def test_number_of_names(self, root: Path, names: object) -> None:
        describe(root, channels=names)
        assert "should be a list of 2 to 7 different names" in message(root)

    def test_names_that_no_head_can_have(self, root: Path) -> None:
        describe(root, channels=["leaf", "leaf spot"])
        assert "letters, digits and `_`, and not `absent`. Found `leaf spot`. Rename it." in message(root)
        describe(root, channels=["leaf", "absent"])
        assert "Found `absent`. Rename it." in message(root)

    def test_keys_of_another_format(self, root: Path) -> None:
        describe(root, classes=["background", "leaf"])
        assert "should name the channels" in message(root)
        describe(root, channels=CHANNELS, palette={"leaf": [0, 255, 0]})
        assert "`palette` in" in (told := message(root))
        assert "`values: {0: absent, 128: ignore, 255: present}`" in told

    def test_a_palette(self, root: Path, truth: np.ndarray) -> None:
        Image.fromarray(truth[0].astype(np.uint8) * 255).convert("P").save(root / "masks" / "a.png")
        assert "has a palette, so each of its pixels has one colour only. Store one grey PNG for each" in message(root)
        (root / "masks" / "a.png").unlink()
        table = np.zeros((3, 256), np.uint16)
        tifffile.imwrite(root / "masks" / "a.tif", truth[0].astype(np.uint8), photometric="palette", colormap=table)
        assert "has a palette" in message(root)

    def test_codings_that_lose(self, root: Path, truth: np.ndarray) -> None:
        masks = truth.astype(np.uint8) * 255
        Image.fromarray(np.moveaxis(masks, 0, -1)).save(root / "masks" / "a.jpg")
        assert "should be PNG, TIFF or NPY. Not so are `a.jpg`. Convert them without loss." in message(root)
        (root / "masks" / "a.jpg").rename(root / "masks" / "a.png")
        assert "should be PNG, TIFF or NPY, which keep every number. Found JPEG." in message(root)
        (root / "masks" / "a.png").unlink()
        Image.fromarray(np.moveaxis(masks, 0, -1)).save(root / "masks" / "a.tif", compression="jpeg")
        assert "JPEG, which may change numbers. Store it with deflate or LZW." in message(root)
        (root / "masks" / "a.tif").unlink()
        write_separate(root, masks)
        Image.fromarray(masks[0]).save(root / "masks" / "leaf" / "a.png", "JPEG")
        assert "is a JPEG, which blurs class indices. Store masks as PNG." in message(root)

    def test_arrays(self, root: Path, truth: np.ndarray) -> None:
        np.save(root / "masks" / "a.npy", truth[:, :, :3])
        assert "can be read in two ways" in message(root)
        np.save(root / "masks" / "a.npy", truth[:2])
        assert (
            "should be an array 3 x H x W or H x W x 3 (leaf, symptom, margin). Found the shape (2, 12, 17)"
            in message(root)
        )
        np.save(root / "masks" / "a.npy", truth + 0.5)
        assert "should hold whole numbers" in message(root)
        (root / "masks" / "a.npy").write_bytes(b"\x93NUMPY")
        assert "cannot be read as a NumPy array" in message(root)


def many(root: Path, number: int) -> list[np.ndarray]:
    """Pictures of which every third shows only the first channel, the others the first two; one shows the third."""
    (root / "images" / "a.png").unlink()
    rng, found = np.random.default_rng(3), []
    for i in range(number):
        Image.fromarray(rng.integers(0, 255, (12, 17, 3), np.uint8)).save(root / "images" / f"p{i:02}.png")
        masks = np.zeros((3, 12, 17), np.uint8)
        masks[0, :6] = masks[1, 3 : 3 + 6 * (i % 3 > 0)] = masks[2, :2] = 1
        masks[2] *= i == 0
        write_separate(root, masks, f"p{i:02}.png")
        found.append(masks)
    return found


def test_split_audit_and_counts_are_by_channel(root: Path) -> None:
    masks = many(root, 9)
    catalogue = read_channels(root)
    found = scan(catalogue, None, 1)
    units = GroupedImages.of(catalogue, found, None)
    assert units.classes == ("absent", *CHANNELS)
    assert units.present.tolist() == [[True, *(bool(plane.any()) for plane in planes)] for planes in masks]
    heads = heads_of(catalogue, None, "segmentation")
    counts = heads.count(found.class_counts)
    for k, channel in enumerate(CHANNELS):
        assert heads.classes[channel] == ("absent", channel)
        assert counts[channel][:, 1].tolist() == [int(planes[k].sum()) for planes in masks]
        assert counts[channel].sum(1).tolist() == [204] * 9
    assert counts["segmentation"].sum(1).tolist() == [3 * 204] * 9
    how = {"groups": None, "stratify": "rarest_class", "test_from": "fraction", "test_fraction": 0.0, "seed": 0}
    seen = mask_presence(heads, found, [record.id for record in catalogue.records])
    assert seen.tolist() == units.present.tolist()
    split = kfold(catalogue, found, num_folds=3, **how)
    for fold in range(3):
        parts = split.parts(fold)
        rules = audit(catalogue, found, split, fold, near_duplicates="off")
        messages = [finding.message for finding in rules.findings if finding.rule in "df"]
        if "p00" in parts["val"]:
            assert messages == [messages[0]]
            assert messages[0].startswith("1 classes are in no training picture: margin (1 in val)")
        else:
            assert not messages


def test_heads_of_channels(root: Path, truth: np.ndarray) -> None:
    write_separate(root, truth.astype(np.uint8))
    catalogue = read_channels(root)
    heads = heads_of(catalogue, None, "segmentation")
    masks = masks_by_head(heads, torch.from_numpy(codes(root).astype(np.int64))[None])
    for k, channel in enumerate(CHANNELS):
        assert np.array_equal(masks[channel][0].numpy(), truth[k])
    assert np.array_equal(masks["segmentation"][0].numpy(), packed(truth))
    with pytest.raises(ConfigError, match=r"`data.tasks` should be null .* Leave it away"):
        heads_of(catalogue, "demo", "segmentation")
    with pytest.raises(ConfigError, match="and not `leaf` or a word"):
        heads_of(catalogue, None, "leaf")
