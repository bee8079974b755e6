"""A data set of any reader written as a folder that ``data=folder`` reads: links where they can be, not copies."""

import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import yaml

from hsl.data.files.decoding import Decoding
from hsl.data.files.records import Catalogue, FileSource, Record, Source
from hsl.data.formats.description import IGNORE
from hsl.data.formats.picture_files import MASK_SUFFIXES
from hsl.data.importing.candidates import shared_prefixes, taken
from hsl.errors import ConfigError
from hsl.files.cells import csv_text
from hsl.files.io import write_atomically


@dataclass(frozen=True)
class Written:
    """What was written: how many files by how (link, symbolic link, copy, drawn), and the columns of labels.csv."""

    by_how: dict[str, int]
    columns: tuple[str, ...]


def write_ready_folder(catalogue: Catalogue, folder: Path, root: Path) -> Written:
    """Write ``images/``, ``masks/``, ``instances/``, ``dataset.yaml``, ``labels.csv`` and ``splits.csv``.

    Masks that are files of class indices, or that ``values`` or ``palette`` name, are linked; others are drawn as PNG.
    ``labels.csv`` has the attributes of the pictures, and what may group them: ``folder``, ``prefix`` (of the name,
    where pictures share one), ``date`` and ``camera`` (EXIF).

    Args:
        catalogue: The data set.
        folder: An empty folder.
        root: Where the data set lies.

    Raises:
        ConfigError: Its classes overlap, which a folder of class indices cannot hold.
        DataError: A picture or mask cannot be read.
        OSError: The folder cannot be written, or its disk is full.
    """
    if catalogue.overlapping:
        raise ConfigError(
            "A folder of class indices has one class a pixel. Found overlapping channels. Use it as it is."
        )
    decoding, how = Decoding.of(catalogue), Counter[str]()
    drawn = any(not _is_plain(record.mask) for record in catalogue.records if record.mask) or catalogue.nearest
    for record in catalogue.records:
        how[_placed(record.image, folder / "images", record.id)] += 1
        if record.mask is not None and drawn:
            _draw(decoding.mask(record.mask), folder / "masks" / f"{record.id}.png")
            how["drawn"] += 1
        elif record.mask is not None:
            how[_placed(record.mask, folder / "masks", record.id)] += 1
        if record.instances is not None:
            _draw(decoding.instances(record.instances).astype(np.uint16), folder / "instances" / f"{record.id}.png")
    write_atomically(folder / "dataset.yaml", _description(catalogue, drawn).encode())
    rows = _labels(catalogue, root)
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    if columns != ("id",):
        cells = [[row.get(name, "") for name in columns] for row in rows]
        write_atomically(folder / "labels.csv", csv_text(columns, cells))
    splits = [[record.id, record.split] for record in catalogue.records if record.split]
    if splits:
        write_atomically(folder / "splits.csv", csv_text(("id", "split"), splits))
    return Written(dict(how), columns)


def _is_plain(mask: Source) -> bool:
    return isinstance(mask, FileSource) and mask.path.suffix.lower() in MASK_SUFFIXES


def _placed(source: Source, folder: Path, id_: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    if not isinstance(source, FileSource):
        write_atomically(folder / f"{id_}.png", source.read())
        return "copy"
    target, real = folder / f"{id_}{source.path.suffix}", source.path.resolve()
    try:
        os.link(real, target)
        return "link"
    except OSError:  # another disk, or one without links
        pass
    try:
        target.symlink_to(real)
        return "symbolic link"
    except OSError:
        shutil.copyfile(real, target)
        return "copy"


def _draw(mask: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, cv2.imencode(".png", mask)[1].tobytes())


def _description(catalogue: Catalogue, drawn: bool) -> str:
    content: dict[str, object] = {"classes": list(catalogue.classes)}
    names = [*catalogue.classes]

    def name(index: int) -> str:
        return names[index] if index < len(names) else IGNORE

    if not drawn and catalogue.values is not None:
        content["values"] = {number: name(index) for number, index in catalogue.values.items()}
    elif not drawn and catalogue.palette is not None:
        palette: dict[str, list[list[int]]] = {}
        for colour, index in catalogue.palette.items():
            palette.setdefault(name(index), []).append(list(colour))
        content["palette"] = palette
    if not drawn and catalogue.ignore_index != 255:
        content["ignore_index"] = catalogue.ignore_index
    if catalogue.value_range is not None:
        content["value_range"] = list(catalogue.value_range)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _labels(catalogue: Catalogue, root: Path) -> list[dict[str, str]]:
    prefixes = shared_prefixes(record.id for record in catalogue.records)
    folders = {record.id: _folder(record, root) for record in catalogue.records}
    several = len(set(folders.values())) > 1
    rows = []
    for record in catalogue.records:
        moment = taken(record.image)
        candidates = {"folder": folders[record.id] if several else "", "prefix": prefixes.get(record.id, ""),
                      "date": moment.date, "camera": moment.camera}  # fmt: skip
        row = {"id": record.id, **record.attributes}
        rows.append(row | {name: value for name, value in candidates.items() if value and name not in row})
    return rows


def _folder(record: Record, root: Path) -> str:
    if not isinstance(record.image, FileSource) or not record.image.path.is_relative_to(root):
        return ""
    return record.image.path.parent.relative_to(root).as_posix().removeprefix(".")
