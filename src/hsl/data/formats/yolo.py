"""YOLO segmentation: a text file of polygons for each picture and ``data.yaml``; Roboflow's exports too."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hsl.config.ranges import PositiveFloat
from hsl.data.annotations.catalogue import Annotated, collect, nothing_found, used_labels
from hsl.data.annotations.class_table import read_labels
from hsl.data.annotations.gatherer import Gatherer, kind_of, text_of
from hsl.data.annotations.pictures import Pictures, files_below
from hsl.data.annotations.settings import Boxes, Classes, Settings, Unannotated
from hsl.data.annotations.shapes import Region
from hsl.data.files.headers import MAX_MEGAPIXELS
from hsl.data.files.records import Catalogue
from hsl.data.formats.description import UniqueKeyLoader
from hsl.data.formats.findings import Findings, shown
from hsl.data.formats.picture_files import check_root
from hsl.data.formats.tables import PARTS, official_part
from hsl.errors import DataError
from hsl.files.io import read_bytes

_BOX, _LEAST = 5, 7
"""Numbers in a row: class and box, class and three corners."""
_FARTHEST = 2.0
_NO_LABELS = ("classes", "notes", "license", "data", "labels", "train", "val", "valid", "test", "requirements")
"""Text files that hold no labels; nor does a README."""


def read_yolo(
    root: str | Path,
    classes: Classes = None,
    background: str = "background",
    boxes: Boxes | None = None,
    unannotated: Unannotated = "background",
    max_megapixels: PositiveFloat = MAX_MEGAPIXELS,
) -> Catalogue:
    """Read pictures with text files of polygons, in shares of width and height. No picture is decoded.

    ``data.yaml`` names the classes (``names``, a list or number: name) and the parts (``train``, ``val``, ``test``:
    folders, or lists of pictures). The text file of ``images/x/a.jpg`` is ``labels/x/a.txt``, or ``a.txt`` beside it.
    Larger objects are drawn first, so that smaller ones lie on top.

    Args:
        root: The folder.
        classes: Names of the classes in their order, or name -> labels; ``None``: all of ``data.yaml`` with an object.
        background: Name of class 0, which is none of YOLO's: its number 0 is class 1.
        boxes: What a row of a box is: ``fill``, ``ignore`` (does not count), ``skip``; ``None``: an error.
        unannotated: What a picture without a text file is: ``background`` alone, as YOLO has it, or ``skip``.
        max_megapixels: A larger picture is refused before anything is drawn.

    Returns:
        The catalogue, sorted by id.

    Raises:
        ConfigError: A setting is out of range.
        DataError: With everything that is wrong, the first few of each kind named.
    """
    settings = Settings(classes, background, boxes, None, unannotated, max_megapixels)
    root, findings = Path(root), Findings()
    check_root(root, "images/, labels/ and data.yaml", findings)
    gatherer = Gatherer(settings)
    names, parts = _read_description(root, findings)
    findings.raise_if_any(root)
    pictures = Pictures(root)
    splits = _splits(root, parts, pictures)
    texts = {path for path in files_below(root, [".txt"]) if not _is_for_people(path)}
    annotated = []
    for path in pictures.paths:
        text = next((text for text in _places(path, root) if text in texts), None)
        if text is not None:
            texts.discard(text)
            annotated.append(_read(text, path, names, splits.get(path), gatherer))
    lone = [str(path) for path in sorted(texts)]
    findings.add_names(
        lone, "Every text file of labels should have a picture. Without one are", "Add it, or remove the file."
    )
    gatherer.report(root, findings)
    if not annotated and not findings.sentences:
        findings.add(nothing_found(root, "yolo", "a text file of polygons for each picture"))
    labels = read_labels([names[number] for number in sorted(names)], settings, root, findings, used_labels(annotated))
    return collect(root, annotated, labels, pictures, settings, findings, splits=splits)


def _is_for_people(path: Path) -> bool:
    stem = path.stem.casefold()
    return stem.startswith("readme") or stem in _NO_LABELS


def _read_description(root: Path, findings: Findings) -> tuple[dict[int, str], Mapping[str, Any]]:
    """Names of the classes by number, and what is said of the parts."""
    for path in files_below(root, [".yaml", ".yml"]):
        try:
            content = yaml.load(read_bytes(path), UniqueKeyLoader)  # a safe one
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            findings.add(f"`{path}` cannot be read as YAML: {' '.join(str(error).split())}. Correct it.")
            continue
        if isinstance(content, Mapping) and "names" in content:
            return _names(path, content["names"], findings), content
    for path in files_below(root, [".txt", ".names"]):
        if path.name in ("classes.txt", "obj.names"):
            lines = read_bytes(path).decode("utf-8-sig", "replace").split("\n")
            return _names(path, [line.strip() for line in lines if line.strip()], findings), {}
    if not findings.sentences:
        what = "data.yaml with the names of the classes, such as `names: [crack, hole]`"
        findings.add(nothing_found(root, "yolo", what))
    return {}, {}


def _names(path: Path, names: Any, findings: Findings) -> dict[int, str]:
    pairs = list(enumerate(names)) if isinstance(names, list) else [*names.items()] if isinstance(names, dict) else []
    table, wrong = {}, []
    for number, name in pairs:
        text = text_of(name)
        whole = type(number) is int or (isinstance(number, str) and number.isdecimal())
        if text is None or not whole:
            wrong.append(f"`{shown(number)}: {shown(name)}`")
        else:
            table[int(number)] = text
    findings.add_places(
        wrong,
        f"`names` in `{path}` should be texts, by whole numbers. Not so are",
        "Put names such as `yes` into quotes.",
    )
    if not pairs:
        findings.add(
            f"`names` in `{path}` should be a list of names, or number: name. Found {shown(names)}. Correct it."
        )
    return table


def _splits(root: Path, content: Mapping[str, Any], pictures: Pictures) -> dict[Path, str]:
    """The part of each picture that the description gives to one part alone."""
    of_picture: dict[Path, set[str]] = {}
    for key, entries in content.items():
        part = official_part(key) if isinstance(key, str) else None
        if part not in PARTS:
            continue
        for entry in entries if isinstance(entries, list) else [entries]:
            if isinstance(entry, str):
                for path in _of_entry(root, content.get("path"), entry, pictures):
                    of_picture.setdefault(path, set()).add(part)
    return {path: min(parts) for path, parts in of_picture.items() if len(parts) == 1}


def _of_entry(root: Path, base: Any, entry: str, pictures: Pictures) -> Sequence[Path]:
    """The pictures of a folder, or of a list of pictures."""
    entry = entry.replace("\\", "/")
    bases = [root / base, root] if isinstance(base, str) else [root]
    for folder in bases:
        for place in (folder / entry, folder / entry.lstrip("./"), folder / Path(entry).parent.name / Path(entry).name):
            if place.is_dir():
                return [path for path in pictures.paths if path.is_relative_to(place)]
            if place.is_file():
                lines = read_bytes(place).decode("utf-8-sig", "replace").split("\n")
                return [path for line in lines for path in pictures.find(line.strip(), place.parent)[:1]]
    return []


def _places(picture: Path, root: Path) -> list[Path]:
    """Where the text file of a picture may lie."""
    parts = picture.relative_to(root).parts
    found = []
    for i in reversed(range(len(parts) - 1)):
        if parts[i].casefold() == "images":
            found.append(root.joinpath(*parts[:i], "labels", *parts[i + 1 :]).with_suffix(".txt"))
    return [*found, picture.with_suffix(".txt")]


def _read(path: Path, picture: Path, names: Mapping[int, str], split: str | None, gatherer: Gatherer) -> Annotated:
    item = Annotated(str(path), str(picture), picture.parent, None, split=split, shares=True, exact=picture)
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except (UnicodeDecodeError, DataError) as error:
        gatherer.wrong(str(path), f"it cannot be read as text: {error}")
        return item
    for line, row in enumerate(text.splitlines(), start=1):
        words = row.split()
        if words:
            region = _region(words, f"{path}, line {line}", names, gatherer)
            item.regions += [region] if region is not None else []
    item.regions.sort(key=lambda region: (region.rank, region.label, repr(region.shape)))
    return item


def _region(words: Sequence[str], where: str, names: Mapping[int, str], gatherer: Gatherer) -> Region | None:
    try:
        numbers = np.array(words, np.float64)
    except ValueError:
        gatherer.wrong(where, f"it should hold numbers, found {shown(' '.join(words))}")
        return None
    label = names.get(int(numbers[0])) if np.isfinite(numbers[0]) and numbers[0] == int(numbers[0]) else None
    places = numbers[1:]
    if label is None:
        gatherer.wrong(where, f"its class {words[0]} is not in `names`, {min(names)} to {max(names)}")
    elif not (np.abs(places) <= _FARTHEST).all():
        odd = places[~(np.abs(places) <= _FARTHEST)][0]
        gatherer.wrong(where, f"coordinates should be shares of the picture in [0, 1], found {odd:g}")
    elif len(words) == _BOX:
        x, y, width, height = places
        ends = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        region = gatherer.box(where, label, [float(end) for end in ends], (1, 1))
        return region and Region(region.label, region.shape, -region.shape.area(), region.crowd)
    elif len(words) < _LEAST or len(places) % 2:
        gatherer.wrong(
            where, f"it should be a class and pairs of x and y, at least 3, found {kind_of(len(words))} numbers"
        )
    else:
        region = gatherer.polygon(where, label, places.tolist(), (1, 1))
        return region and Region(region.label, region.shape, -region.shape.area())
    return None
