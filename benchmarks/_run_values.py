"""What the files of runs and reports say, as flat dictionaries that can be compared key by key."""

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Values = dict[str, object]

OTHER_FILES = {"provenance.json", "results.json", "labels.json", "refinement_log.json"}
STARTED = re.compile(r"\d{4}-\d\d-\d\d\\?_\d\d-\d\d-\d\d(?:-\d+)?")
TIMES = {"created", "started", "time", "time (h:m:s)", "wall_time", "wall_time_s"}


def from_json(path: Path) -> Values:
    """Every leaf by its path of keys; rows of JSON lines by what they are of, since workers write them in any order."""
    text = path.read_text(encoding="utf8")
    if path.suffix == ".json":
        return dict(leaves(json.loads(text)))
    rows = [json.loads(line) for line in text.splitlines()]
    return {f"{row['part']} {row['id']}.{key}": value for row in rows for key, value in leaves(row)}


def leaves(tree: object, key: str = "") -> Iterator[tuple[str, object]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, branch in items:
        yield from leaves(branch, f"{key}.{name}".removeprefix("."))
    if not isinstance(tree, dict | list) or not tree:
        yield key, tree


def from_csv(path: Path) -> Values:
    with path.open(newline="", encoding="utf8") as file:
        return {f"{i}.{column}": cell for i, row in enumerate(csv.DictReader(file)) for column, cell in row.items()}


def from_text(path: Path) -> Values:
    """Cells of the tables of Markdown or LaTeX by row and column, and each other line."""
    between = {".md": r"(?<!\\)\|", ".tex": r"(?<!\\)&"}[path.suffix]
    values: Values = {}
    header: list[str] = []
    alignment = ""
    for i, line in enumerate(path.read_text(encoding="utf8").splitlines()):
        if line.startswith(r"\begin{tabular}"):
            alignment = line[len(r"\begin{tabular}{") : -1]
            continue
        cells = [cell.strip() for cell in re.split(between, line.strip("|").removesuffix(r"\\"))]
        if len(cells) > 1 and len(cells) != len(header):
            header = cells
            values |= {f"alignment.{column}": letter for column, letter in zip(cells, alignment, strict=False)}
        elif not line or line.startswith(r"\end{tabular}"):
            header = []
        columns = header if len(cells) > 1 else [""]
        values |= {f"{i}.{column}": cell for column, cell in zip(columns, cells, strict=True)}
    return values


def from_arrays(path: Path) -> Values:
    """The rows of each array of an .npz, or of a picture."""
    arrays = dict(np.load(path)) if path.suffix == ".npz" else {"picture": np.asarray(Image.open(path))}
    values: Values = {}
    for name, array in arrays.items():
        values[f"{name}.shape"] = f"{array.dtype} {array.shape}"
        rows = array.reshape(-1, array.shape[-1] if array.ndim else 1)
        values |= {f"{name}.{i}": row.tolist() for i, row in enumerate(rows)}
    return values


READERS: dict[str, Callable[[Path], Values]] = {
    ".json": from_json, ".jsonl": from_json, ".csv": from_csv, ".md": from_text, ".tex": from_text,
    ".npz": from_arrays, ".png": from_arrays,
}  # fmt: skip


def files_of(out: Path, rooms: Sequence[str]) -> dict[str, Path]:
    """The files to compare by their name, in which the n-th run folder beside others is called `run<n>`."""
    found = {}
    for path in sorted(out.rglob("*")):
        parts = list(path.relative_to(out).parts)
        is_picture = path.suffix == ".png" and not {"masks", "classes", "confidence"} & set(parts)
        hidden = any(part[0] == "." for part in parts)
        if parts[0] not in rooms or path.suffix not in READERS or path.name in OTHER_FILES or is_picture or hidden:
            continue
        for i, part in enumerate(parts):
            if STARTED.fullmatch(part):
                beside = sorted(p.name for p in out.joinpath(*path.relative_to(out).parts[:i]).iterdir())
                parts[i] = f"run{beside.index(part)}"
        found["/".join(parts)] = path
    return found


def values_of(path: Path, places: Sequence[Path]) -> Values:
    """What a file says, without what differs from run to run."""
    everything = READERS[path.suffix](path)
    values = {key: value for key, value in everything.items() if key.rpartition(".")[2] not in TIMES}
    for key, value in values.items():
        if isinstance(value, str):
            for place in map(str, places):
                value = value.replace(place, "OUT").replace(place.replace("_", r"\_"), "OUT")
            values[key] = STARTED.sub("RUN", value)
    return values
