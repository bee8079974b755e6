"""COCO: one JSON file, or one for each part, with the objects of all pictures; also its panoptic form."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from hsl.config.ranges import PositiveFloat
from hsl.data.annotations.catalogue import Annotated, collect, nothing_found, part_of, used_labels
from hsl.data.annotations.class_table import read_labels
from hsl.data.annotations.gatherer import Gatherer, kind_of, size_of, text_of
from hsl.data.annotations.json_items import read_items
from hsl.data.annotations.pictures import Pictures, files_below
from hsl.data.annotations.run_counts import coco_runs
from hsl.data.annotations.segments import Segment
from hsl.data.annotations.settings import Boxes, Classes, Settings, Unannotated
from hsl.data.annotations.shapes import Region, Shape
from hsl.data.files.headers import MAX_MEGAPIXELS
from hsl.data.files.records import Catalogue
from hsl.data.formats.findings import Findings, did_you_mean
from hsl.data.formats.picture_files import PICTURE_SUFFIXES, check_root
from hsl.errors import DataError

_KEYS = ("images", "annotations", "categories")
_SAME_NAME = "categories have a name that another has, and are one class with it"
_LEFT_OUT = "or read only some of the files: `data.reader.annotations='*val*.json'`"


@dataclass(slots=True)
class _Object:
    image: Any
    category: Any
    id: Any
    shape: Shape
    crowd: bool


@dataclass(slots=True)
class _File:
    """What is kept of a JSON file."""

    path: Path
    images: dict[Any, Mapping[str, Any]] = field(default_factory=dict)
    objects: list[_Object] = field(default_factory=list)
    panoptic: list[Mapping[str, Any]] = field(default_factory=list)
    categories: dict[Any, Mapping[str, Any]] = field(default_factory=dict)
    is_other: bool = False  # captions, or keypoints


def read_coco(
    root: str | Path,
    annotations: str | None = None,
    classes: Classes = None,
    background: str = "background",
    boxes: Boxes | None = None,
    unannotated: Unannotated = "skip",
    max_megapixels: PositiveFloat = MAX_MEGAPIXELS,
) -> Catalogue:
    """Read pictures with JSON files of COCO's form, at any depth. No picture is decoded.

    Polygons of one object are united; run lengths may be lists or text. Larger objects are drawn first, so that
    smaller ones lie on top. Crowds (``iscrowd``) do not count. A picture that is listed without an object is background
    alone. Each file may number its categories in its own way: classes are joined by name, in the order of their
    smallest id. The official part is told by a word in the path of the JSON file: ``instances_val2017.json``,
    ``train/_annotations.coco.json``. Of a panoptic file the PNGs are read, which lie in a folder of its name; 0 in them
    does not count.

    Args:
        root: The folder.
        annotations: Which JSON files, as a pattern of their names or paths below the root; ``None``: all of COCO's
            form, but captions and keypoints only if there are no others.
        classes: Names of the classes in their order, or name -> labels; ``None``: every category that has an object.
        background: Name of class 0.
        boxes: What an object with a box alone is: ``fill``, ``ignore`` (does not count), ``skip``; ``None``: an error.
        unannotated: What a picture that no file lists is: ``skip``, or ``background`` alone.
        max_megapixels: A larger picture is refused before anything is drawn.

    Returns:
        The catalogue, sorted by id.

    Raises:
        ConfigError: A setting is out of range.
        DataError: With everything that is wrong, the first few of each kind named.
    """
    settings = Settings(classes, background, boxes, None, unannotated, max_megapixels)
    root, findings = Path(root), Findings()
    check_root(root, "pictures and JSON files of COCO's form", findings)
    gatherer = Gatherer(settings)
    files = _read_files(root, annotations, gatherer, findings)
    annotated: list[Annotated] = []
    for file in files:
        annotated += _annotated(file, _categories(file, gatherer), root, gatherer)
    gatherer.report(root, findings)
    masks = {item.segments[0] for item in annotated if item.segments}
    paths = [path for path in files_below(root, PICTURE_SUFFIXES) if path not in masks]
    labels = read_labels(_ordered_names(files), settings, root, findings, used_labels(annotated))
    return collect(root, annotated, labels, Pictures(root, paths), settings, findings, f", {_LEFT_OUT}")


def _read_files(root: Path, pattern: str | None, gatherer: Gatherer, findings: Findings) -> list[_File]:
    paths = files_below(root, [".json"])
    names = {path: path.relative_to(root).as_posix() for path in paths}
    if pattern is not None:
        chosen = [path for path in paths if fnmatch(path.name, pattern) or fnmatch(names[path], pattern)]
        if not chosen:
            way = did_you_mean(
                pattern, [path.name for path in paths], f"Choose from {', '.join(names.values()) or '-'}."
            )
            findings.add(
                f"`data.reader.annotations = {pattern}` should name JSON files below `{root}`. Found none. {way}"
            )
        paths = chosen
    files = []
    for path in paths:
        try:
            file = _read(path, gatherer)
        except DataError as error:
            findings.add(str(error))
            continue
        if file is not None:
            files.append(file)
    wanted = [file for file in files if not file.is_other] or files
    others = [path for path in paths if path not in [file.path for file in wanted]]
    if not files and not findings.sentences:
        findings.add(nothing_found(root, "coco", "JSON files with `images` and `annotations`"))
    elif others and not findings.sentences:
        named = ", ".join(f"`{names[path]}`" for path in others[:3])
        findings.not_read.append(f"{len(others)} JSON files without outlines of objects are not read: {named}.")
    if not wanted:
        findings.raise_if_any(root)
    return wanted


def _read(path: Path, gatherer: Gatherer) -> _File | None:
    """A file; ``None`` if it has not COCO's form."""
    file = _File(path)
    keys: set[str] = set()
    for key, value in read_items(path):
        if key is None or key == "shapes":  # a list, or LabelMe's
            return None
        keys.add(key)
        if key in _KEYS and not isinstance(value, Mapping):
            gatherer.wrong(str(path), f"`{key}` should hold objects, found {kind_of(value)}")
        elif key == "images":
            _keep(file.images, value, path, "image", gatherer)
        elif key == "categories":
            file.is_other |= "keypoints" in value
            _keep(file.categories, value, path, "category", gatherer)
        elif key == "annotations" and "segments_info" in value:
            file.panoptic.append(value)
        elif key == "annotations":
            file.is_other |= "caption" in value
            if "caption" not in value:
                _add_object(file, value, gatherer)
    return file if "images" in keys else None


def _keep(
    table: dict[Any, Mapping[str, Any]], value: Mapping[str, Any], path: Path, what: str, gatherer: Gatherer
) -> None:
    id_ = value.get("id")
    if not isinstance(id_, int | str):
        gatherer.wrong(f"{path}, {what} {len(table) + 1}", f"its id should be a number or text, found {kind_of(id_)}")
    elif id_ in table:
        gatherer.wrong(f"{path}, {what} {id_}", "another one has its id")
    else:
        table[id_] = value


def _add_object(file: _File, value: Mapping[str, Any], gatherer: Gatherer) -> None:
    where = f"{file.path}, annotation {value.get('id')}"
    segmentation, box = value.get("segmentation"), value.get("bbox")
    region: Region | None = None
    if isinstance(segmentation, Mapping):
        try:
            region = Region("", coco_runs(segmentation))
        except ValueError as error:
            gatherer.wrong(where, str(error))
    elif isinstance(segmentation, list) and segmentation:
        nested = isinstance(segmentation[0], list)
        region = gatherer.polygons(where, "", [[ring] for ring in (segmentation if nested else [segmentation])], None)
    elif segmentation not in (None, []):
        gatherer.wrong(where, f"`segmentation` should be polygons or run lengths, found {kind_of(segmentation)}")
    elif isinstance(box, list) and len(box) == 4 and all(isinstance(end, int | float) for end in box):
        left, top, width, height = box
        region = gatherer.box(where, "", [left, top, left + width, top + height], None)
    else:
        gatherer.wrong(where, "it has neither `segmentation` nor `bbox`")
    if region is not None:
        crowd = region.crowd or value.get("iscrowd") in (1, True)
        file.objects.append(
            _Object(value.get("image_id"), value.get("category_id"), value.get("id"), region.shape, crowd)
        )


def _categories(file: _File, gatherer: Gatherer) -> dict[Any, str]:
    """The name of each category."""
    names: dict[Any, str] = {}
    for id_, category in file.categories.items():
        name = text_of(category.get("name"))
        if name is None:
            gatherer.wrong(
                f"{file.path}, category {id_}", f"its name should be text, found {kind_of(category.get('name'))}"
            )
        elif name in names.values():
            gatherer.remarks.add(_SAME_NAME, f"{name} ({file.path}, category {id_})")
        names[id_] = name or ""
    return names


def _annotated(file: _File, names: Mapping[Any, str], root: Path, gatherer: Gatherer) -> list[Annotated]:
    split = part_of(file.path, root)
    items: dict[Any, Annotated] = {}
    for id_, image in file.images.items():
        where, name = f"{file.path}, image {id_}", text_of(image.get("file_name"))
        if name is None:
            gatherer.wrong(where, f"its `file_name` should be text, found {kind_of(image.get('file_name'))}")
            continue
        size = size_of(image.get("height"), image.get("width"))
        items[id_] = Annotated(where, name, file.path.parent, size, split=split)
    for each in sorted(
        file.objects, key=lambda each: (isinstance(each.id, str), each.id if each.id is not None else 0)
    ):
        where = f"{file.path}, annotation {each.id}"
        item = _item(file, items, each.image, where, gatherer)
        if each.category not in names or not isinstance(each.category, int | str):
            gatherer.wrong(where, f"its category {kind_of(each.category)} is not in `categories`")
        elif item is not None:
            region = gatherer.region(where, names[each.category], each.shape, item.size, -each.shape.area())
            item.regions.append(replace(region, crowd=each.crowd))
    _add_panoptic(file, items, names, gatherer)
    bare = [item for item in items.values() if not item.regions and item.segments is None]
    for item in bare:
        gatherer.remarks.add("pictures are listed without an object, and are background alone", item.where)
    return [*items.values()]


def _item(file: _File, items: Mapping[Any, Annotated], image: Any, where: str, gatherer: Gatherer) -> Annotated | None:
    item = items.get(image) if isinstance(image, int | str) else None
    if item is None and not (isinstance(image, int | str) and image in file.images):
        gatherer.wrong(where, f"its image {kind_of(image)} is not in `images`")
    return item


def _add_panoptic(file: _File, items: Mapping[Any, Annotated], names: Mapping[Any, str], gatherer: Gatherer) -> None:
    folder = _panoptic_folder(file.path)
    things = {id_: category.get("isthing", 1) in (1, True) for id_, category in file.categories.items()}
    for value in file.panoptic:
        where = f"{file.path}, annotation of image {value.get('image_id')}"
        item, name = _item(file, items, value.get("image_id"), where, gatherer), text_of(value.get("file_name"))
        infos = value["segments_info"] if isinstance(value["segments_info"], list) else []
        segments = []
        for info in infos:
            id_, category = (info.get("id"), info.get("category_id")) if isinstance(info, Mapping) else (None, None)
            if (
                type(id_) is not int
                or not 0 < id_ < 2**24
                or not isinstance(category, int | str)
                or category not in names
            ):
                gatherer.wrong(
                    where, f"a segment should have an id in [1, 2^24) and a known category, found {kind_of(info)}"
                )
            else:
                crowd = info.get("iscrowd") in (1, True)
                segments.append(Segment(id_, names[category], crowd, things[category] and not crowd))
        if name is None or not (folder / name).is_file():
            gatherer.wrong(where, f"its PNG `{folder / (name or '?')}` is missing")
        elif item is not None:
            item.segments = folder / name, tuple(segments)


def _panoptic_folder(path: Path) -> Path:
    """Where the PNGs of a panoptic file lie: in a folder of its name, or else beside it."""
    folder = path.with_suffix("")
    return folder if folder.is_dir() else path.parent


def _ordered_names(files: list[_File]) -> list[str]:
    """Names of all categories, by the smallest id that any file gives them."""
    smallest: dict[str, tuple[bool, Any]] = {}
    for file in files:
        for id_, category in file.categories.items():
            name, key = text_of(category.get("name")), (isinstance(id_, str), id_)
            if name is not None:
                smallest[name] = min(smallest.get(name, key), key)
    return sorted(smallest, key=lambda name: (smallest[name], name))
