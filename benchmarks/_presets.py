"""What `same_numbers` runs its presets on, small seeded data sets, and what it compares: files as flat dictionaries."""

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Values = dict[str, object]
OTHER_FILES = {"provenance.json", "results.json", "labels.json", "refinement_log.json"}
STARTED = re.compile(r"\d{4}-\d\d-\d\d\\?_\d\d-\d\d-\d\d(?:-\d+)?")
TIMES = {"created", "started", "time", "time (h:m:s)", "wall_time", "wall_time_s"}
COSTS = ("energy_j", "energy_note", "device_time_s")
COST = re.compile(r" Energy of the machine while they ran: .*? runs\)\.")


def save(path: Path, array: npt.NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_steel(root: Path, rng: np.random.Generator) -> None:
    """Sixty pictures of 32 x 64, one defect each but for every fifth, which has none."""
    rows = ["ImageId,ClassId,EncodedPixels"]
    for i in range(60):
        save(root / f"train_images/s{i:02d}.png", rng.integers(0, 255, (32, 64, 3), np.uint8))
        rows += [f"s{i:02d}.png,{i % 5},{32 * 10 + 5} 8 {32 * 12 + 5} 8"] if i % 5 else []
    (root / "train.csv").write_text("\n".join(rows) + "\n")


def write_reef(root: Path, rng: np.random.Generator) -> None:
    """Pictures of 64 x 96 and masks of blocks of 40 classes; a site each, in three parts."""
    for part, i in [(part, i) for part, number in (("train", 4), ("val", 7), ("test", 2)) for i in range(number)]:
        picture = rng.integers(0, 255, (64, 96, 3), np.uint8)
        save(root / f"leftImg8bit/{part}/site_{part}_{i}/{part}{i}_leftImg8bit.png", picture)
        blocks = rng.integers(0, 40, (8, 12), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        save(root / f"gtFine/{part}/site_{part}_{i}/{part}{i}_gtFine.png", blocks)


def write_leaves(root: Path, rng: np.random.Generator) -> None:
    """Green discs on white, with a brown spot where the leaf is ill: colours that GrabCut starts from."""
    y, x = np.mgrid[:64, :64]
    rows = ["id,group,label"]
    for i in range(30):
        label = ("healthy", "rust", "miner", "phoma", "cercospora", "mixed_or_undefined")[i % 6]
        mask = (np.hypot(y - 32, x - 32) < 20 + i % 4).astype(np.uint8)
        mask[np.hypot(y - 30, x - 26 - i % 6) < (7 + i % 3) * (label != "healthy")] = 2
        colours = np.array([(240, 240, 240), (60, 140, 40), (150, 90, 30)])[mask] + rng.integers(-9, 10, (64, 64, 3))
        save(root / f"images/l{i:02d}.png", colours.astype(np.uint8))
        save(root / f"masks/l{i:02d}.png", mask)
        rows.append(f"l{i:02d},l{i:02d},{label}")
    (root / "dataset.yaml").write_text("classes: [background, leaf, symptom]\n")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")


def write_nuclei(root: Path, rng: np.random.Generator) -> None:
    """Pictures of 32 x 32 with sixteen square objects, each brighter than the ground."""
    for i in range(24):
        ids = np.zeros((32, 32), np.uint16)
        for j in range(16):
            top, left, size = 8 * (j // 4) + 1, 8 * (j % 4) + 1, int(rng.integers(3, 6))
            ids[top : top + size, left : left + size] = j + 1
        noise = rng.integers(0, 155, (32, 32, 3))
        save(root / f"images/p{i:02d}.png", (noise + 100 * (ids > 0)[..., None]).astype(np.uint8))
        save(root / f"masks/p{i:02d}.png", (ids > 0).astype(np.uint8))
        save(root / f"instances/p{i:02d}.png", ids)
    (root / "dataset.yaml").write_text("classes: [background, nucleus]\n")


WRITERS: dict[str, Callable[[Path, np.random.Generator], None]] = {
    "leaf_dual_head": write_leaves, "histology": write_nuclei, "steel_cbam": write_steel, "coral_flat": write_reef,
}  # fmt: skip


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
    values = {
        key: value
        for key, value in everything.items()
        if key.rpartition(".")[2] not in TIMES and not key.startswith(COSTS)
    }
    for key, value in values.items():
        if isinstance(value, str):
            for place in map(str, places):
                value = value.replace(place, "OUT").replace(place.replace("_", r"\_"), "OUT")
            values[key] = COST.sub("", STARTED.sub("RUN", value))
    return values
