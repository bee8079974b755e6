"""What is written for annotation tools, read back by code that shares nothing with the writers."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from hsl.data.files.polygons import fill_polygon
from hsl.data.writers.coco_json import CocoFile
from hsl.data.writers.cvat_xml import CvatFile
from hsl.data.writers.geotiff_masks import GeotiffFiles
from hsl.data.writers.label_studio_json import LabelStudioFile
from hsl.data.writers.labelme_json import LabelmeFiles
from hsl.data.writers.outlines import outlines_of
from hsl.data.writers.regions import Segmented
from hsl.data.writers.yolo_text import YoloFiles

CLASSES = ("background", "crack & <rust>", 'Größe "2"', "stain")
MASKS = arrays.arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.integers(0, 3))


def drawn(seed: int) -> np.ndarray:
    """Regions with holes in holes, single pixels, diagonals, all borders touched."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.random((50, 70)), 2)
    mask = np.digitize(smooth, np.quantile(smooth, [0.3, 0.55, 0.8])).astype(np.uint8)
    mask[3:20, 5:30] = 1
    mask[5:18, 7:28] = 0
    mask[8:14, 10:20] = 1
    mask[10:12, 12:15] = 0
    np.fill_diagonal(mask, 2)
    mask[0, -1] = 255
    return mask


MAPS = {"a b": drawn(0), "ü": drawn(1), "empty": np.zeros((4, 6), np.uint8), "full": np.full((3, 5), 3, np.uint8)}


def even_odd(ring: Sequence[Sequence[float]], height: int, width: int) -> np.ndarray:
    """Pixels whose centre lies inside, by the crossings to the left of it."""
    inside = np.zeros((height, width), dtype=bool)
    for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True):
        (xa, ya), (xb, yb) = ((x0, y0), (x1, y1)) if y0 < y1 else ((x1, y1), (x0, y0))
        for row in range(height):
            if ya <= row + 0.5 < yb:
                inside[row] ^= np.arange(width) + 0.5 > xa + (row + 0.5 - ya) / (yb - ya) * (xb - xa)
    return inside


def labelme(folder: Path, name: str, shape: tuple[int, int]) -> Iterator[tuple[int, np.ndarray]]:
    page = json.loads((folder / "labelme" / f"{name}.json").read_text(encoding="utf8"))
    assert (page["imageHeight"], page["imageWidth"]) == shape
    assert (folder / "labelme" / page["imagePath"]).resolve() == (folder / f"{name}.png").resolve()
    for each in page["shapes"]:
        assert each["shape_type"] == "polygon"
        yield CLASSES.index(each["label"]), even_odd(each["points"], *shape)


def coco(folder: Path, name: str, shape: tuple[int, int]) -> Iterator[tuple[int, np.ndarray]]:
    page = json.loads((folder / "coco.json").read_text(encoding="utf8"))
    assert [(each["id"], each["name"]) for each in page["categories"]] == [*enumerate(CLASSES)][1:]
    image = next(each for each in page["images"] if each["file_name"] == f"{name}.png")
    for each in page["annotations"]:
        if each["image_id"] == image["id"]:
            values = np.arange(len(each["segmentation"]["counts"])) % 2
            mask = np.repeat(values, each["segmentation"]["counts"]).reshape(shape[::-1]).T > 0
            ys, xs = np.nonzero(mask)
            assert each["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            assert each["area"] == mask.sum()
            yield each["category_id"], mask


def cvat(folder: Path, name: str, shape: tuple[int, int]) -> Iterator[tuple[int, np.ndarray]]:
    tree = ElementTree.parse(folder / "annotations.xml")
    assert tuple(each.text for each in tree.iterfind(".//label/name")) == CLASSES[1:]
    (image,) = (each for each in tree.iterfind("image") if each.get("name") == f"{name}.png")
    assert (int(image.attrib["height"]), int(image.attrib["width"])) == shape
    for each in image:
        counts = [int(word) for word in each.attrib["rle"].split(",")]
        left, top, width, height = (int(each.attrib[key]) for key in ("left", "top", "width", "height"))
        mask = np.zeros(shape, bool)
        values = np.repeat(np.arange(len(counts)) % 2, counts) > 0
        mask[top : top + height, left : left + width] = values.reshape(height, width)
        yield CLASSES.index(each.attrib["label"]), mask


def label_studio(folder: Path, name: str, shape: tuple[int, int]) -> Iterator[tuple[int, np.ndarray]]:
    labels = ElementTree.parse(folder / "label_studio.xml").iterfind(".//Label")
    assert tuple(each.attrib["value"] for each in labels) == CLASSES[1:]
    tasks = json.loads((folder / "label_studio.json").read_text(encoding="utf8"))
    (task,) = (each for each in tasks if each["data"]["image"].endswith(f"={name}.png"))
    for each in task["predictions"][0]["result"]:
        bits = "".join(f"{byte:08b}" for byte in each["value"]["rle"])
        (label,) = each["value"]["brushlabels"]
        yield CLASSES.index(label), unpacked(bits).reshape(*shape, 4)[..., 3] > 0


def unpacked(bits: str) -> np.ndarray:
    place = 0

    def take(number: int) -> int:
        nonlocal place
        place += number
        return int(bits[place - number : place], 2)

    number, word = take(32), take(5) + 1
    sizes, values = [take(4) + 1 for _ in range(4)], list[int]()
    while len(values) < number:
        is_run, length = take(1), take(sizes[take(2)]) + 1
        values += [take(word)] * length if is_run else [take(word) for _ in range(length)]
    return np.array(values)


def yolo(folder: Path, name: str, shape: tuple[int, int]) -> Iterator[tuple[int, np.ndarray]]:
    names = yaml.safe_load((folder / "data.yaml").read_text(encoding="utf8"))["names"]
    assert tuple(names[i] for i in range(3)) == CLASSES[1:]
    for line in (folder / "labels" / f"{name}.txt").read_text().splitlines():
        number, *words = line.split()
        points = np.array(words, float).reshape(-1, 2) * shape[::-1]
        yield int(number) + 1, even_odd(points.tolist(), *shape)


def geotiff(folder: Path, name: str, shape: tuple[int, int]) -> Iterator[tuple[int, np.ndarray]]:
    mask = tifffile.imread(folder / "masks" / f"{name}.tif")
    assert mask.shape == shape
    yield from ((label, mask == label) for label in (1, 2, 3))


TOOLS: list[tuple[Callable[[Path], Any], Callable[..., Any]]] = [
    (lambda folder: LabelmeFiles(folder, CLASSES, folder), labelme), (lambda folder: CocoFile(folder, CLASSES), coco),
    (lambda folder: CvatFile(folder, CLASSES), cvat), (lambda folder: LabelStudioFile(folder, CLASSES), label_studio),
    (lambda folder: YoloFiles(folder, CLASSES), yolo), (lambda folder: GeotiffFiles(folder, CLASSES), geotiff),
]  # fmt: skip


@pytest.mark.parametrize(("writer", "read"), TOOLS, ids=lambda each: each.__name__)
def test_every_pixel_comes_back(writer: Callable[[Path], Any], read: Callable[..., Any], tmp_path: Path) -> None:
    tool = writer(tmp_path)
    for name, mask in MAPS.items():
        (tmp_path / f"{name}.png").touch()
        tool.add(Segmented(name, tmp_path / f"{name}.png", [mask]))
    tool.close()
    for name, mask in MAPS.items():
        again = np.zeros_like(mask)
        for label, there in read(tmp_path, name, mask.shape):
            assert not again[there].any(), "regions do not overlap"
            again[there] = label
        np.testing.assert_array_equal(again, np.where(mask == 255, 0, mask))


def test_without_a_picture_the_files_are_whole(tmp_path: Path) -> None:
    for writer in (CocoFile(tmp_path, CLASSES), CvatFile(tmp_path, CLASSES), LabelStudioFile(tmp_path, CLASSES)):
        writer.close()
    assert json.loads((tmp_path / "coco.json").read_text(encoding="utf8"))["annotations"] == []
    assert json.loads((tmp_path / "label_studio.json").read_text()) == []
    assert ElementTree.parse(tmp_path / "annotations.xml").find("image") is None


@settings(deadline=None, max_examples=60)
@given(MASKS)
def test_any_mask_is_its_outlines(mask: np.ndarray) -> None:
    """With holes as rings of their own and with bridges; by the rasteriser of the readers."""
    plain, bridged = np.zeros_like(mask), np.zeros_like(mask)
    for region in Segmented("a", Path("a"), [mask]).regions():
        (outline,) = outlines_of(region)
        plain[fill_polygon([outline.outer, *outline.holes], *mask.shape)] = region.label
        bridged[fill_polygon([outline.bridged()], *mask.shape)] = region.label
    np.testing.assert_array_equal(plain, mask)
    np.testing.assert_array_equal(bridged, mask)


def test_objects_stay_apart_and_classes_may_overlap(tmp_path: Path) -> None:
    """Two objects that touch, one of them in two parts, and pixels that belong to none; two layers over each other."""
    mask = np.zeros((6, 9), np.uint8)
    mask[1:5, 1:8] = 1
    objects = np.where(mask > 0, 1, 0)
    objects[:, 4:] *= 7
    objects[2] = 0
    regions = [*Segmented("a", Path("a"), [mask], objects).regions()]
    assert [(region.mask.sum(), region.label) for region in regions] == [(9, 1), (12, 1), (7, 1)]
    assert [len(outlines_of(region)) for region in regions] == [2, 2, 1]
    tool = LabelmeFiles(tmp_path, CLASSES, tmp_path)
    tool.add(Segmented("a", tmp_path / "a.png", [mask], objects))
    groups = [each["group_id"] for each in json.loads((tmp_path / "labelme" / "a.json").read_text())["shapes"]]
    assert groups == [1, 1, 2, 2, None]
    layers = [mask, mask[::-1, ::-1].copy() * np.uint8(2)]
    assert sorted(region.label for region in Segmented("a", Path("a"), layers).regions(connected=False)) == [1, 2]


def test_a_smooth_outline_has_few_points() -> None:
    """Of a disc with 628 pixels around one for each 2.5; of a rectangle eight at most."""
    y, x = np.mgrid[:220, :220]
    (outline,) = (o for region in Segmented("a", Path("a"), [((x - 110) ** 2 + (y - 110) ** 2 < 1e4).astype(np.uint8)])
                  .regions() for o in outlines_of(region))  # fmt: skip
    assert 30 < len(outline.outer) < 628 / 2.5
    box = np.zeros((50, 50), np.uint8)
    box[10:30, 5:45] = 1
    (region,) = Segmented("a", Path("a"), [box]).regions()
    assert len(outlines_of(region)[0].outer) <= 8


GEO = [
    (33550, 12, 3, (0.5, 0.5, 0.0), True), (33922, 12, 6, (0.0, 0.0, 0.0, 420000.25, 5600000.5, 0.0), True),
    (34735, 3, 8, (1, 1, 0, 1, 3072, 0, 1, 25832), True), (34736, 12, 2, (6378137.0, 1 / 298.257223563), True),
    (34737, 2, 22, "ETRS89 / UTM zone 32|", True),
]  # fmt: skip


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_map_lies_where_its_picture_lies(order: str, tmp_path: Path) -> None:
    picture = np.zeros((300, 290, 3), np.uint8)
    tifffile.imwrite(tmp_path / "scene.tif", picture, photometric="rgb", extratags=GEO, byteorder=order)
    tool = GeotiffFiles(tmp_path / "out", CLASSES)
    mask = np.random.default_rng(0).integers(0, 4, (300, 290)).astype(np.uint8)
    tool.add(Segmented("scene", tmp_path / "scene.tif", [mask]))
    with tifffile.TiffFile(tmp_path / "out" / "masks" / "scene.tif") as file, \
         tifffile.TiffFile(tmp_path / "scene.tif") as source:  # fmt: skip
        page, before = file.pages.first, source.pages.first
        for code, *_ in GEO:
            mine, theirs = page.tags[code], before.tags[code]
            assert (mine.value, mine.dtype, mine.count) == (theirs.value, theirs.dtype, theirs.count)
        assert (page.is_tiled, int(page.compression), page.tags[42113].value) == (True, 8, "255")
        np.testing.assert_array_equal(page.asarray(), mask)
    assert not tool.without
    (tmp_path / "plain.png").write_bytes(b"\x89PNG")
    tool.add(Segmented("plain", tmp_path / "plain.png", [mask]))
    assert tool.without == ["plain"]
