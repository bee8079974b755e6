"""LabelMe: a JSON file of shapes for each picture, usually beside it."""

import base64
import binascii
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.config.ranges import NonNegativeFloat, PositiveFloat
from hsl.data.annotations.catalogue import Annotated, collect, nothing_found, part_of, used_labels
from hsl.data.annotations.class_table import read_labels
from hsl.data.annotations.gatherer import Gatherer, kind_of, size_of, text_of
from hsl.data.annotations.json_items import read_items
from hsl.data.annotations.pictures import Pictures, files_below
from hsl.data.annotations.settings import Boxes, Classes, Settings, Unannotated
from hsl.data.annotations.shapes import Region, Runs, corners
from hsl.data.files.decode_masks import decode_instances
from hsl.data.files.headers import MAX_MEGAPIXELS
from hsl.data.files.polygons import ellipse
from hsl.data.files.records import Catalogue
from hsl.data.formats.findings import Findings
from hsl.data.formats.picture_files import check_root
from hsl.errors import DataError

_OTHERS = ("images", "annotations", "categories")  # of COCO
_LINES = ("line", "linestrip")
_POINTS = ("point", "points")


def read_labelme(
    root: str | Path,
    classes: Classes = None,
    background: str = "background",
    boxes: Boxes | None = None,
    line_width: NonNegativeFloat | None = None,
    unannotated: Unannotated = "skip",
    max_megapixels: PositiveFloat = MAX_MEGAPIXELS,
) -> Catalogue:
    """Read pictures with LabelMe's JSON files, at any depth. No picture is decoded.

    ``imagePath`` names the picture, from the folder of its file; one that is gone from there is looked for by its name.
    Shapes are drawn in the order of the file, so that a later one covers an earlier one. Those of one label and
    ``group_id`` are one object. Polygons, circles and masks are read; see the arguments for rectangles and lines.
    Classes are the labels in the order of the alphabet. A folder ``train``, ``val`` or ``test`` in the path is the
    official part.

    Args:
        root: The folder.
        classes: Names of the classes in their order, or name -> labels; ``None``: every label is one.
        background: Name of class 0.
        boxes: What a rectangle is: ``fill`` (an object), ``ignore`` (does not count), ``skip``; ``None``: an error.
        line_width: Of lines in pixels; 0 leaves them out; ``None``: an error.
        unannotated: What a picture without a file is: ``skip``, or ``background`` alone.
        max_megapixels: A larger picture is refused before anything is drawn.

    Returns:
        The catalogue, sorted by id.

    Raises:
        ConfigError: A setting is out of range.
        DataError: With everything that is wrong, the first few of each kind named.
    """
    settings = Settings(classes, background, boxes, line_width, unannotated, max_megapixels)
    root, findings = Path(root), Findings()
    check_root(root, "pictures and LabelMe's JSON files", findings)
    gatherer, annotated, others = Gatherer(settings), [], []
    for path in files_below(root, [".json"]):
        try:
            item = _read(path, root, gatherer)
        except DataError as error:
            findings.add(str(error))
            continue
        if item is None:
            others.append(path)
        else:
            annotated.append(item)
    if others and annotated:
        findings.not_read.append(f"`{root}`: {len(others)} JSON files are not LabelMe's, such as `{others[0]}`.")
    if not annotated and not findings.sentences:
        findings.add(nothing_found(root, "labelme", "LabelMe's JSON files, with a key `shapes`"))
    findings.raise_if_any(root) if not annotated else gatherer.report(root, findings)
    known = sorted({region.label for item in annotated for region in item.regions})
    labels = read_labels(known, settings, root, findings, used_labels(annotated))
    return collect(root, annotated, labels, Pictures(root), settings, findings)


def _read(path: Path, root: Path, gatherer: Gatherer) -> Annotated | None:
    """A file; ``None`` if it is not LabelMe's."""
    values: dict[str, Any] = {}
    shapes: list[Any] = []
    has_shapes = False
    for key, value in read_items(path):
        if key is None or key in _OTHERS:
            return None
        has_shapes |= key == "shapes"
        if key == "shapes":
            shapes.append(value)
        elif key != "imageData":
            values[key] = value
    if not has_shapes and "imagePath" not in values:
        return None
    size = size_of(values.get("imageHeight"), values.get("imageWidth"))
    picture = text_of(values.get("imagePath")) or path.stem
    item = Annotated(str(path), picture, path.parent, size, split=part_of(path.parent, root), otherwise=path.stem)
    item.regions = [
        region
        for i, shape in enumerate(shapes)
        for region in _regions(shape, f"{path}, shape {i + 1}", i, size, gatherer)
    ]
    return item


def _regions(shape: Any, where: str, rank: int, size: tuple[int, int] | None, gatherer: Gatherer) -> Iterator[Region]:
    if not isinstance(shape, Mapping):
        gatherer.wrong(where, f"a shape should be an object, found {kind_of(shape)}")
        return
    label, points = text_of(shape.get("label")), shape.get("points")
    if label is None:
        gatherer.wrong(where, f"its label should be a name, found {kind_of(shape.get('label'))}")
        return
    region = _region(shape.get("shape_type") or "polygon", shape, where, label, points, rank, size, gatherer)
    if region is not None:
        group = shape.get("group_id")
        yield Region(region.label, region.shape, region.rank, region.crowd, "" if group is None else str(group))


def _region(
    kind: Any, shape: Mapping[str, Any], where: str, label: str, points: Any, rank: int, size: tuple[int, int] | None,
    gatherer: Gatherer,
) -> Region | None:  # fmt: skip
    if kind == "polygon":
        return gatherer.polygon(where, label, points, size, rank)
    if kind == "rectangle":
        return gatherer.box(where, label, points, size, rank)
    if kind in _LINES:
        return gatherer.line(where, label, points, rank)
    if kind in _POINTS:
        gatherer.point(where)
        return None
    try:
        if kind == "circle":
            (x, y), (edge_x, edge_y) = corners(points).tolist()
            radius = float(np.hypot(edge_x - x, edge_y - y))
            return gatherer.ring(where, label, ellipse(x, y, radius, radius), size, rank)
        if kind == "mask":
            (left, top), _ = np.rint(corners(points)).astype(int).tolist()
            return gatherer.region(where, label, Runs.of(_bitmap(shape.get("mask"), where), top, left), size, rank)
    except (ValueError, DataError) as error:
        gatherer.wrong(where, str(error))
        return None
    gatherer.wrong(where, f"its `shape_type` should be one of LabelMe, found {kind_of(kind)}")
    return None


def _bitmap(text: Any, where: str) -> NDArray[np.bool_]:
    """A mask as LabelMe keeps it: a PNG in base64."""
    if not isinstance(text, str):
        raise ValueError(f"its `mask` should be text, found {kind_of(text)}")
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("its `mask` should be base64") from None
    return decode_instances(data, where) > 0
