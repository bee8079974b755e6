"""CVAT: XML of "CVAT for images 1.1", or the masks of "Segmentation mask 1.1" with labelmap.txt."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hsl.config.ranges import NonNegativeFloat, PositiveFloat
from hsl.data.annotations.catalogue import Annotated, collect, nothing_found, used_labels
from hsl.data.annotations.class_table import read_labels
from hsl.data.annotations.gatherer import Gatherer, Size, size_of
from hsl.data.annotations.pictures import Pictures, files_below
from hsl.data.annotations.run_counts import counts_of
from hsl.data.annotations.settings import Boxes, Classes, Settings, Unannotated
from hsl.data.annotations.shapes import Region, Runs
from hsl.data.annotations.xml_items import Element, read_elements
from hsl.data.files.headers import MAX_MEGAPIXELS
from hsl.data.files.polygons import FARTHEST, ellipse, turned
from hsl.data.files.records import Catalogue
from hsl.data.formats.findings import Findings, shown
from hsl.data.formats.picture_files import check_root
from hsl.data.formats.tables import official_part
from hsl.data.formats.voc import LABELMAP, MASKS, read_voc
from hsl.errors import DataError

_IMAGE = "annotations/image"
_AREAS = ("polygon", "polyline", "box", "ellipse", "mask", "points", "cuboid", "skeleton")
_BACKGROUND = "pictures are listed without a shape, and are background alone"
_NO_AREA = "cuboids and skeletons have no area in the picture and are left out"


@dataclass(slots=True)
class _File:
    path: Path
    labels: list[str] = field(default_factory=list)
    items: list[Annotated] = field(default_factory=list)


def read_cvat(
    root: str | Path,
    classes: Classes = None,
    background: str = "background",
    boxes: Boxes | None = None,
    line_width: NonNegativeFloat | None = None,
    unannotated: Unannotated = "skip",
    max_megapixels: PositiveFloat = MAX_MEGAPIXELS,
) -> Catalogue:
    """Read pictures with an export of CVAT, at any depth. No picture is decoded.

    With ``labelmap.txt`` and ``SegmentationClass/`` it is a mask export, see `hsl.data.formats.voc`. Else all XML files
    of "CVAT for images" are read. Shapes are drawn by ``z_order``, then in the order of the file, so that a later one
    covers an earlier one. Those of one label and ``group_id`` are one object. The official part is ``subset``. Classes
    have the order of the labels in the file. A picture that is listed without a shape is background alone.

    Args:
        root: The folder.
        classes: Names of the classes in their order, or name -> labels; ``None``: every label that has a shape.
        background: Name of class 0.
        boxes: What a box is: ``fill`` (an object), ``ignore`` (does not count), ``skip``; ``None``: an error.
        line_width: Of polylines in pixels; 0 leaves them out; ``None``: an error.
        unannotated: What a picture that no file lists is: ``skip``, or ``background`` alone.
        max_megapixels: A larger picture is refused before anything is drawn.

    Returns:
        The catalogue, sorted by id.

    Raises:
        ConfigError: A setting is out of range.
        DataError: With everything that is wrong, the first few of each kind named.
    """
    settings = Settings(classes, background, boxes, line_width, unannotated, max_megapixels)
    root, findings = Path(root), Findings()
    check_root(root, "pictures and an export of CVAT", findings)
    if (root / LABELMAP).is_file() and (root / MASKS).is_dir():
        return read_voc(root, classes, background, max_megapixels)
    gatherer, files = Gatherer(settings), []
    for path in files_below(root, [".xml"]):
        try:
            file = _read(path, gatherer)
        except DataError as error:
            findings.add(str(error))
            continue
        files += [file] if file is not None else []
    if not files and not findings.sentences:
        what = f'XML of "CVAT for images 1.1", or {LABELMAP} and {MASKS}/'
        findings.add(nothing_found(root, "cvat", what))
    gatherer.report(root, findings)
    annotated = [item for file in files for item in file.items]
    met = sorted({region.label for item in annotated for region in item.regions})
    in_order = [*(label for file in files for label in file.labels), *met]
    labels = read_labels(in_order, settings, root, findings, used_labels(annotated))
    return collect(root, annotated, labels, Pictures(root), settings, findings)


def _read(path: Path, gatherer: Gatherer) -> _File | None:
    """A file; ``None`` if it is not CVAT's."""
    file, item, size = _File(path), None, None
    for begins, element in read_elements(path):
        name = element.path.rpartition("/")[2]
        if "/" not in element.path and name != "annotations":
            return None
        if begins and element.path == "annotations/track":
            raise DataError(
                f"`{path}`, line {element.line}, is of a video, whose shapes lie between frames. Export it as "
                '"CVAT for images 1.1".'
            )
        if begins and element.path == _IMAGE:
            size = size_of(*(_number(element, key) for key in ("height", "width")))
            item = _item(element, path, size, gatherer)
        elif (
            not begins and element.path.startswith("annotations/meta/") and element.path.endswith("/labels/label/name")
        ):
            file.labels.append(element.text.strip())
        elif begins and item is not None and element.path.startswith(f"{_IMAGE}/") and name in _AREAS:
            region = _region(name, element, f"{path}, line {element.line}", size, gatherer)
            item.regions += [region] if region is not None else []
        elif not begins and element.path == _IMAGE and item is not None:
            file.items.append(item)
            if not item.regions:
                gatherer.remarks.add(_BACKGROUND, item.where)
            item = None
    return file


def _item(element: Element, path: Path, size: Size | None, gatherer: Gatherer) -> Annotated | None:
    where, name = f"{path}, line {element.line}", element.attributes.get("name", "")
    if not name:
        gatherer.wrong(where, "an image should have a `name`, found none")
        return None
    part = official_part(element.attributes.get("subset", ""))
    return Annotated(f"{path}, image {name}", name, path.parent, size, split=part)


def _region(kind: str, element: Element, where: str, size: Size | None, gatherer: Gatherer) -> Region | None:
    values = element.attributes
    label = values.get("label", "").strip()
    if not label:
        gatherer.wrong(where, "its label should be a name, found none")
        return None
    if kind in ("cuboid", "skeleton"):
        gatherer.remarks.add(_NO_AREA, where)
        return None
    if kind == "points":
        gatherer.point(where)
        return None
    try:
        region = _drawn(kind, values, where, label, size, gatherer)
    except ValueError as error:
        gatherer.wrong(where, str(error))
        return None
    if region is None:
        return None
    return Region(region.label, region.shape, region.rank, region.crowd, values.get("group_id", ""))


def _drawn(
    kind: str, values: Mapping[str, str], where: str, label: str, size: Size | None, gatherer: Gatherer
) -> Region | None:
    rank = _float(values, "z_order", 0.0)
    if kind == "polygon":
        return gatherer.polygon(where, label, _points(values), size, rank)
    if kind == "polyline":
        return gatherer.line(where, label, _points(values), rank)
    degrees = _float(values, "rotation", 0.0)
    if kind == "box":
        ends = [_float(values, key) for key in ("xtl", "ytl", "xbr", "ybr")]
        return gatherer.box(where, label, ends, size, rank, degrees)
    if kind == "ellipse":
        x, y, radius_x, radius_y = (_float(values, key) for key in ("cx", "cy", "rx", "ry"))
        return gatherer.ring(where, label, turned(ellipse(x, y, radius_x, radius_y), (x, y), degrees), size, rank)
    top, left, height, width = (int(_float(values, key)) for key in ("top", "left", "height", "width"))
    words = values.get("rle", "").replace(",", " ").split()
    if not all(word.isdecimal() for word in words):
        raise ValueError(f"`rle` should be whole numbers, found {shown(values.get('rle', ''))!r:.60}")
    counts = counts_of([int(word[:18]) for word in words])
    if min(height, width) < 1 or counts.sum() != height * width:
        raise ValueError(f"`rle` should fill {height} x {width} pixels, found {counts.sum()}")
    return gatherer.region(where, label, Runs(counts.tobytes(), height, width, top, left), size, rank)


def _points(values: Mapping[str, str]) -> list[list[float]]:
    pairs = [pair.split(",") for pair in values.get("points", "").split(";") if pair.strip()]
    try:
        return [[float(x), float(y)] for x, y in pairs]
    except ValueError:
        raise ValueError(f"`points` should be pairs `x,y;x,y`, found {shown(values.get('points', ''))}") from None


def _float(values: Mapping[str, str], key: str, otherwise: float | None = None) -> float:
    text = values.get(key)
    if text is None and otherwise is not None:
        return otherwise
    try:
        number = float(text or "")
    except ValueError:
        number = np.nan
    if not abs(number) <= FARTHEST:
        raise ValueError(f"`{key}` should be a number, found {shown(text)}")
    return number


def _number(element: Element, key: str) -> int | None:
    text = element.attributes.get(key, "")
    return int(text[:9]) if text.isdecimal() else None
