"""Label Studio: its JSON export, with polygons and brush strokes."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hsl.config.ranges import NonNegativeFloat, PositiveFloat
from hsl.data.annotations.catalogue import Annotated, collect, nothing_found, used_labels
from hsl.data.annotations.class_table import read_labels
from hsl.data.annotations.gatherer import Gatherer, Size, kind_of, size_of, text_of
from hsl.data.annotations.json_items import read_items
from hsl.data.annotations.pictures import Pictures, files_below
from hsl.data.annotations.run_counts import brush_mask
from hsl.data.annotations.settings import Boxes, Classes, Settings, Unannotated
from hsl.data.annotations.shapes import Region, Runs, corners
from hsl.data.files.headers import MAX_MEGAPIXELS
from hsl.data.files.polygons import ellipse, turned
from hsl.data.files.records import Catalogue
from hsl.data.formats.findings import Findings
from hsl.data.formats.picture_files import PICTURE_SUFFIXES, check_root
from hsl.errors import DataError

_BRUSH_FILE = "task-*-annotation-*"
_SEVERAL = "tasks have several annotations, of which the last counts"
_NO_ANNOTATION = "tasks have no annotation, or were skipped, and are left out"
_BACKGROUND = "tasks were submitted without a region, and are background alone"
_NO_AREA = ("keypoint", "choices", "textarea", "rating", "number", "taxonomy", "relation", "vector")


def read_label_studio(
    root: str | Path,
    classes: Classes = None,
    background: str = "background",
    boxes: Boxes | None = None,
    line_width: NonNegativeFloat | None = None,
    unannotated: Unannotated = "skip",
    max_megapixels: PositiveFloat = MAX_MEGAPIXELS,
) -> Catalogue:
    """Read pictures with an export of Label Studio (JSON or JSON-MIN), at any depth. No picture is decoded.

    Polygons, ellipses and brush strokes are read, in the order of the file: a later one covers an earlier one. Of
    several annotations of a task the last that was not skipped counts. A task without annotation is not labelled and is
    left out; one that was submitted empty is background alone. Predictions are no labels. Classes are the labels in the
    order of the alphabet. The PNGs of "Brush labels to PNG" name tasks, not pictures: they need the JSON beside them,
    which holds the same.

    Args:
        root: The folder.
        classes: Names of the classes in their order, or name -> labels; ``None``: every label is one.
        background: Name of class 0.
        boxes: What a rectangle is: ``fill`` (an object), ``ignore`` (does not count), ``skip``; ``None``: an error.
        line_width: Of lines in pixels; 0 leaves them out; ``None``: an error.
        unannotated: What a picture without a task is: ``skip``, or ``background`` alone.
        max_megapixels: A larger picture is refused before anything is drawn.

    Returns:
        The catalogue, sorted by id.

    Raises:
        ConfigError: A setting is out of range.
        DataError: With everything that is wrong, the first few of each kind named.
    """
    settings = Settings(classes, background, boxes, line_width, unannotated, max_megapixels)
    root, findings = Path(root), Findings()
    check_root(root, "pictures and the JSON export of Label Studio", findings)
    gatherer = Gatherer(settings)
    annotated: list[Annotated] = []
    for path in files_below(root, [".json"]):
        try:
            annotated += _read(path, gatherer)
        except DataError as error:
            findings.add(str(error))
    paths = files_below(root, PICTURE_SUFFIXES)
    brushes = [path for path in paths if path.match(_BRUSH_FILE)]
    gatherer.report(root, findings)
    if not annotated and not findings.sentences:
        there = f" (the {len(brushes)} PNGs such as `{brushes[0].name}` name tasks, not pictures)" if brushes else ""
        findings.add(nothing_found(root, "label_studio", f"the JSON export of Label Studio, a list of tasks{there}"))
    known = sorted({region.label for item in annotated for region in item.regions})
    labels = read_labels(known, settings, root, findings, used_labels(annotated))
    pictures = Pictures(root, [path for path in paths if path not in set(brushes)])
    return collect(root, annotated, labels, pictures, settings, findings)


def _read(path: Path, gatherer: Gatherer) -> Iterator[Annotated]:
    for number, (key, task) in enumerate(read_items(path), start=1):
        if key is not None:  # no list, so no export of Label Studio
            return
        where = f"{path}, task {task.get('id', number) if isinstance(task, Mapping) else number}"
        if not isinstance(task, Mapping):
            gatherer.wrong(where, f"a task should be an object, found {kind_of(task)}")
            continue
        data = task.get("data") if isinstance(task.get("data"), Mapping) else task
        picture = _picture(data)
        results = _results(task, where, gatherer)
        if picture is None:
            gatherer.wrong(where, "its data should name a picture, found none")
        elif results is not None:
            item = Annotated(where, picture, path.parent, _size(results, where, gatherer))
            for rank, result in enumerate(results):
                region = _region(result, f"{where}, region {rank + 1}", rank, item.size, gatherer)
                item.regions += [region] if region is not None else []
            if not item.regions:
                gatherer.remarks.add(_BACKGROUND, where)
            yield item


def _picture(data: Any) -> str | None:
    """What a task calls its picture: ``image``, or whatever ends like a picture."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    named = [value for value in texts.values() if value.partition("?")[0].lower().endswith(PICTURE_SUFFIXES)]
    local = [value for value in texts.values() if "?d=" in value]
    first = texts.get("image") or texts.get("img")
    return first or next(iter(named + local), None)


def _results(task: Mapping[str, Any], where: str, gatherer: Gatherer) -> list[Any] | None:
    """The regions of a task; ``None`` if it was not annotated."""
    annotations = task.get("annotations", task.get("completions"))
    if not isinstance(annotations, list) or not annotations:
        if "data" in task or annotations is not None:
            gatherer.remarks.add(_NO_ANNOTATION, where)
            return None
        lists = [value for value in task.values() if isinstance(value, list)]  # JSON-MIN
        return [{**each, "value": each} if isinstance(each, Mapping) else each for values in lists for each in values]
    kept = [each for each in annotations if isinstance(each, Mapping) and each.get("was_cancelled") is not True]
    if not kept:
        gatherer.remarks.add(_NO_ANNOTATION, where)
        return None
    if len(kept) > 1:
        gatherer.remarks.add(_SEVERAL, where)
    last = max(kept, key=lambda each: str(each.get("updated_at") or each.get("created_at") or ""))
    result = (last if last.get("updated_at") or last.get("created_at") else kept[-1]).get("result")
    if isinstance(result, list):
        return result
    gatherer.wrong(where, f"its `result` should be a list, found {kind_of(result)}")
    return None


def _size(results: list[Any], where: str, gatherer: Gatherer) -> Size | None:
    sizes = {
        size
        for result in results
        if isinstance(result, Mapping)
        and (size := size_of(result.get("original_height"), result.get("original_width")))
    }
    if len(sizes) > 1:
        gatherer.wrong(where, f"its regions should be of one picture, found the sizes {sorted(sizes)}")
    return min(sizes, default=None)


def _region(result: Any, where: str, rank: int, size: Size | None, gatherer: Gatherer) -> Region | None:
    value = result.get("value") if isinstance(result, Mapping) else None
    if not isinstance(value, Mapping):
        gatherer.wrong(where, f"a region should have a `value`, found {kind_of(value)}")
        return None
    kind = next((key.removesuffix("labels") for key in value if key.endswith("labels")), str(result.get("type")))
    names = value.get(f"{kind}labels") or value.get("labels")
    if kind in _NO_AREA:
        gatherer.point(where)
        return None
    label = text_of(names[0]) if isinstance(names, list) and len(names) == 1 else None
    if label is None or size is None or result.get("image_rotation") not in (None, 0):
        gatherer.wrong(
            where,
            "a region should have one label, `original_width`, `original_height` and no `image_rotation`, found "
            f"{kind_of([names, size, result.get('image_rotation')])}",
        )
        return None
    try:
        return _drawn(kind, value, where, label, rank, size, gatherer)
    except (ValueError, TypeError) as error:
        gatherer.wrong(where, str(error))
        return None


def _drawn(
    kind: str, value: Mapping[str, Any], where: str, label: str, rank: int, size: Size, gatherer: Gatherer
) -> Region | None:
    scale = (size[1] / 100, size[0] / 100)
    if "rle" in value:
        return gatherer.region(where, label, Runs.of(brush_mask(value["rle"], *size)), size, rank)
    if "points" in value or "vertices" in value:
        points = (corners(value.get("points")) * scale).tolist()
        polygon = kind == "polygon" or value.get("closed") is True
        return (
            gatherer.polygon(where, label, points, size, rank) if polygon else gatherer.line(where, label, points, rank)
        )
    degrees = value.get("rotation") or 0
    if "radiusX" in value:
        (x, y), (radius_x, radius_y) = corners([value.get(key) for key in ("x", "y", "radiusX", "radiusY")]) * scale
        return gatherer.ring(where, label, turned(ellipse(x, y, radius_x, radius_y), (x, y), degrees), size, rank)
    if "width" in value:
        (x, y), (width, height) = corners([value.get(key) for key in ("x", "y", "width", "height")]) * scale
        return gatherer.box(where, label, [x, y, x + width, y + height], size, rank, degrees, about_centre=False)
    raise ValueError(f"its kind should be polygon, brush, ellipse or rectangle, found {kind}")
