"""Supervisely: a project of data sets, each with a JSON file per picture (``ann/``) beside its pictures (``img/``)."""

import base64
import binascii
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hsl.config.ranges import NonNegativeFloat, PositiveFloat
from hsl.data.annotations.catalogue import Annotated, collect, nothing_found, part_of, used_labels
from hsl.data.annotations.class_table import read_labels
from hsl.data.annotations.gatherer import Gatherer, Size, kind_of, size_of, text_of
from hsl.data.annotations.json_items import read_items
from hsl.data.annotations.pictures import Pictures, files_below
from hsl.data.annotations.settings import Boxes, Classes, Settings, Unannotated
from hsl.data.annotations.shapes import Region, Runs, corners
from hsl.data.files.headers import MAX_MEGAPIXELS, check_size, read_header
from hsl.data.files.records import Catalogue
from hsl.data.files.tiff_pages import decode_with_opencv
from hsl.data.formats.findings import Findings
from hsl.data.formats.picture_files import check_root
from hsl.errors import DataError

ANNOTATIONS, IMAGES, META = "ann", "img", "meta.json"
_BITMAPS = ("bitmap", "alpha_mask")
_LINES = ("line", "polyline")
_LARGEST_PNG = 2**28  # bytes of one bitmap, unpacked


def read_supervisely(
    root: str | Path,
    classes: Classes = None,
    background: str = "background",
    boxes: Boxes | None = None,
    line_width: NonNegativeFloat | None = None,
    unannotated: Unannotated = "skip",
    max_megapixels: PositiveFloat = MAX_MEGAPIXELS,
) -> Catalogue:
    """Read the projects of Supervisely below a folder. No picture is decoded.

    ``ann/NAME.json`` is the annotation of ``img/NAME``. Objects are drawn in the order of the file, so that a later one
    covers an earlier one: polygons with their holes, and bitmaps; see the arguments for rectangles and lines. Classes
    have the order of ``meta.json``. A data set called ``train``, ``val`` or ``test`` is the official part.

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
    check_root(root, "projects of Supervisely", findings)
    gatherer, annotated, order = Gatherer(settings), list[Annotated](), list[str]()
    for path in files_below(root, [".json"]):
        try:
            if path.name == META:
                order += _classes_of(path, findings)
            elif path.parent.name == ANNOTATIONS:
                annotated.append(_read(path, root, gatherer))
        except DataError as error:
            findings.add(str(error))
    if not annotated and not findings.sentences:
        findings.add(nothing_found(root, "supervisely", f"`{ANNOTATIONS}/*.json` beside `{IMAGES}/`"))
    findings.raise_if_any(root) if not annotated else gatherer.report(root, findings)
    known = [*order, *sorted({region.label for item in annotated for region in item.regions})]
    labels = read_labels(known, settings, root, findings, used_labels(annotated))
    return collect(root, annotated, labels, Pictures(root), settings, findings)


def _classes_of(path: Path, findings: Findings) -> list[str]:
    """The labels of a project, in its order."""
    names: list[str] = []
    for key, value in read_items(path):
        if key == "classes" and isinstance(value, Mapping) and (name := text_of(value.get("title"))):
            names.append(name)
        if key == "projectType" and value != "images":
            findings.add(f"`{path}` should be of a project of images. Found {kind_of(value)}. Export its images.")
    return names


def _read(path: Path, root: Path, gatherer: Gatherer) -> Annotated:
    size, objects = None, list[Any]()
    for key, value in read_items(path):
        if key == "size" and isinstance(value, Mapping):
            size = size_of(value.get("height"), value.get("width"))
        elif key == "objects":
            objects.append(value)
    near = path.parent.parent
    item = Annotated(str(path), f"{IMAGES}/{path.stem}", near, size, split=part_of(near, root), otherwise=path.stem)
    regions = (_region(each, f"{path}, object {i + 1}", i, size, gatherer) for i, each in enumerate(objects))
    item.regions = [region for region in regions if region is not None]
    return item


def _region(entry: Any, where: str, rank: int, size: Size | None, gatherer: Gatherer) -> Region | None:
    if not isinstance(entry, Mapping):
        gatherer.wrong(where, f"an object should be a map, found {kind_of(entry)}")
        return None
    label, bitmap, points = text_of(entry.get("classTitle")), entry.get("bitmap"), entry.get("points")
    if label is None:
        gatherer.wrong(where, f"its `classTitle` should be a name, found {kind_of(entry.get('classTitle'))}")
        return None
    kind = entry.get("geometryType") or ("bitmap" if bitmap else "polygon")
    if kind == "point":
        gatherer.point(where)
        return None
    try:
        if kind in _BITMAPS:
            runs = _runs(entry.get(kind) if entry.get(kind) is not None else bitmap, where, gatherer.settings)
            return gatherer.region(where, label, runs, size, rank)
    except (ValueError, DataError) as error:
        gatherer.wrong(where, str(error))
        return None
    outline, holes = (points.get("exterior"), points.get("interior")) if isinstance(points, Mapping) else (None, None)
    if kind == "polygon":
        return gatherer.polygon(where, label, outline, size, rank, holes if isinstance(holes, list) else [])
    if kind == "rectangle":
        return gatherer.box(where, label, outline, size, rank)
    if kind in _LINES:
        return gatherer.line(where, label, outline, rank)
    gatherer.wrong(where, f"its `geometryType` should be polygon, bitmap, rectangle, line or point, found "
                          f"{kind_of(kind)}")  # fmt: skip
    return None


def _runs(bitmap: Any, where: str, settings: Settings) -> Runs:
    """The pixels of a bitmap at its place: a PNG of one channel or with alpha, packed and in base64.

    Raises:
        ValueError: It is none.
        DataError: The PNG is damaged or too large.
    """
    if not isinstance(bitmap, Mapping) or not isinstance(bitmap.get("data"), str):
        raise ValueError(f"its bitmap should have `data` and `origin`, found {kind_of(bitmap)}")
    ((left, top),) = np.rint(corners([bitmap.get("origin")])).astype(int).tolist()
    try:
        unpacking = zlib.decompressobj()
        data = unpacking.decompress(base64.b64decode(bitmap["data"], validate=True), _LARGEST_PNG)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"the `data` of its bitmap should be base64 of packed bytes, found others: {error}") from None
    check_size(read_header(data, where), where, settings.max_megapixels)
    pixels = decode_with_opencv(data, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("the `data` of its bitmap should be a PNG, found other bytes")
    return Runs.of(_shown(pixels), top, left)


def _shown(pixels: NDArray[Any]) -> NDArray[np.bool_]:
    """What a bitmap covers: where its alpha, or its one channel, is not 0."""
    plane = pixels if pixels.ndim == 2 else pixels[..., -1] if pixels.shape[2] in (2, 4) else pixels.any(axis=2)
    return np.asarray(plane > 0)
