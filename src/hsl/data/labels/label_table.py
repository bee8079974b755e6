"""The table of a folder of pseudo-labels: one row per labelled picture."""

import csv
import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hsl.data.splits.grouping import name_some
from hsl.errors import DataError
from hsl.files.cells import original
from hsl.files.io import read_regular
from hsl.files.split_file import Split

FORMAT = 1
PAGE = "labels.json"
TIERS = ("A", "B", "C")
SHARES = ("quality", "uncertain", "foreground")
COLUMNS = ("id", "label", "tier", *SHARES, "rule_passed", "sources", "image")
_ANEW = "Make the labels anew with `hsl label`."


@dataclass(frozen=True)
class LabelRow:
    """One labelled picture: a row of ``labels.csv``.

    Attributes:
        id: Of the picture.
        label: Its class as a whole.
        tier: A, B or C.
        quality: Score in [0, 1].
        uncertain: Share of the pixels that are 255.
        foreground: Share of the pixels that are neither background nor 255.
        rule_passed: Whether every rule for the label holds.
        sources: Names of those that had a say, separated by blanks.
        image: Where the picture itself lies.
    """

    id: str
    label: str
    tier: str
    quality: float
    uncertain: float
    foreground: float
    rule_passed: bool
    sources: str
    image: str


@dataclass(frozen=True)
class LabelTable:
    """``labels.csv`` with its hash, and of ``labels.json`` what the spot check needs.

    Attributes:
        first: Folder of the labels before any refinement; ``None`` where these are they.
    """

    folder: Path
    data: str
    classes: tuple[str, ...]
    rows: tuple[LabelRow, ...]
    sha256: str
    first: Path | None = None


def read_labels(folder: Path) -> LabelTable:
    """Read the table of a folder that `hsl label` wrote.

    Raises:
        DataError: A file is missing or damaged, a column is missing, or a row contradicts itself.
    """
    content = _read(folder / "labels.csv")
    facts = read_labels_json(folder / PAGE)
    if not isinstance(facts, dict) or not {"data", "classes"} <= facts.keys():
        raise DataError(f"`{folder / PAGE}` should hold data and classes. {_ANEW}")
    was = facts.get("folder")
    rows = _rows(folder / "labels.csv", content)
    rows = tuple(replace(row, image=row.image and str(place_of(row.image, folder, was))) for row in rows)
    first = place_of(facts["first"], folder, was) if "first" in facts else None
    return LabelTable(folder, facts["data"], tuple(facts["classes"]), rows, hashlib.sha256(content).hexdigest(), first)


def place_of(path: str, folder: Path, was: str | None) -> Path:
    """Where something lies that a folder of labels names.

    Args:
        path: As it is named: from the folder on, or absolute.
        folder: Where the labels are now.
        was: Where they were when they were made, if that is known.

    Returns:
        The named place; if nothing is there, the one that was moved together with the folder.
    """
    place = folder.absolute() / path
    if was is None or place.exists():
        return place
    moved = Path(os.path.normpath(folder.absolute() / os.path.relpath(path, was)))
    return moved if moved.exists() else place


def read_labels_page(folder: Path) -> dict[str, Any]:
    """``labels.json`` of a finished folder.

    Raises:
        DataError: It is missing, damaged, or of another format.
    """
    page: dict[str, Any] = read_labels_json(folder / PAGE, _ANEW)
    if page.get("format") != FORMAT:
        raise DataError(f"`{folder / PAGE}` should have format {FORMAT}. Found {page.get('format')}. {_ANEW}")
    return page


def check_origin(
    folder: Path, page: Mapping[str, Any], ids: Iterable[str], classes: Sequence[str], split: Split, fold: int
) -> None:
    """Refuse labels of other data, or of pictures that do not train here.

    Args:
        folder: Of the labels.
        page: Its ``labels.json``.
        ids: The labelled pictures.
        classes: Those of the data set.
        split: Its fold assignment.
        fold: The one that is trained.

    Raises:
        DataError: Classes, split or fold are others, or a picture is outside the training part.
    """
    wanted = {"classes": list(classes), "split_sha256": split.sha256, "fold": fold}
    for key, value in wanted.items():
        if page[key] != value:
            raise DataError(
                f"`{folder}` should belong to these data, {key} = {value}. Found {key} = {page[key]}: a picture held "
                "out here may have been labelled there. Run `hsl label` for this data set, split and fold."
            )
    if outside := sorted(set(ids) - set(split.parts(fold)["train"])):
        raise DataError(
            f"`{folder}` should hold training pictures only. Found {name_some(outside)} of another part. {_ANEW}"
        )


def _rows(path: Path, content: bytes) -> tuple[LabelRow, ...]:
    table = csv.DictReader(io.StringIO(content.decode("utf8", errors="replace"), newline=""))
    if missing := [name for name in COLUMNS if name not in (table.fieldnames or ())]:
        raise DataError(f"`{path}` should have the columns {missing}. {_ANEW}")
    rows: dict[str, LabelRow] = {}
    for number, cells in enumerate(table, start=2):
        row = _row(f"`{path}`, line {number}", {name: original(cells[name] or "") for name in COLUMNS})
        if row.id in rows:
            raise DataError(f"`{path}` should name each picture once. Found `{row.id}` twice. {_ANEW}")
        rows[row.id] = row
    if not rows:
        raise DataError(f"`{path}` should hold a labelled picture. Found none. Run `hsl label` on more pictures.")
    return tuple(rows.values())


def _row(place: str, cells: dict[str, str]) -> LabelRow:
    if cells["id"] in ("", ".", "..") or set(cells["id"]) & set("/\\\0"):
        raise DataError(f"{place}: an id should be part of a file name. Found `{cells['id']}`. {_ANEW}")
    if cells["tier"] not in TIERS:
        raise DataError(f"{place}: `tier` should be A, B or C. Found `{cells['tier']}`. {_ANEW}")
    quality, uncertain, foreground = (_share(place, cells, name) for name in SHARES)
    passed = cells["rule_passed"] == "1"
    return LabelRow(
        cells["id"],
        cells["label"],
        cells["tier"],
        quality,
        uncertain,
        foreground,
        passed,
        cells["sources"],
        cells["image"],
    )


def _share(place: str, cells: dict[str, str], name: str) -> float:
    try:
        value = float(cells[name])
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise DataError(f"{place}: `{name}` should be in [0, 1]. Found `{cells[name]}`. {_ANEW}")
    return value


def _read(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise DataError(f"`{path}` cannot be read: {error.strerror}. Make it with `hsl label`.") from error


def read_labels_json(path: Path, way_out: str = "Move it away and make it anew.") -> Any:
    """The content of a JSON file.

    Raises:
        DataError: It is missing or damaged.
    """
    try:
        return json.loads(_read(path))
    except ValueError as error:
        raise DataError(f"`{path}` is damaged: {error}. {way_out}") from error
