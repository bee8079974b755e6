"""Where a run folder lies and how its files are called: names alone, so that every room may know them."""

import re
from pathlib import Path

from hsl.errors import ConfigError

CONFIG = "config.yaml"
PROVENANCE = "provenance.json"
METRICS = "metrics.json"
RESULTS = "results.json"
HISTORY = "history.csv"
WEIGHTING = "weighting.jsonl"
PHASES = "phases.json"
ROLLBACK = "rollback.json"
OOM = "oom.json"
SPLITS = "splits.json"
AUDIT = "audit.json"
PARTS = "parts.json"
PER_IMAGE = "per_image.csv"
PIXEL_COUNTS = "pixel_counts.npz"
IMAGE_PREDICTIONS = "image_predictions.csv"
OBJECTS = "objects.jsonl"
OBJECTS_VALIDATION = "objects_validation.jsonl"
EXAMPLES = "index.csv"
MEMBER_ROWS = "rows.json"
BEST = "best.ckpt"
LAST = "last.ckpt"
START = "start.ckpt"
ENSEMBLE = "ensemble.json"
ENSEMBLE_ROWS = "rows.npz"
STAGE = "stage.json"
ISOLATION = "isolation.json"

CHECKPOINTS = Path("checkpoints")
PREDICTIONS = Path("predictions")
"""The pictures that are shown, and ``EXAMPLES``, which tells what they show."""
ROWS = Path("rows")
"""What an ensemble keeps of a run, and ``MEMBER_ROWS``, which tells what it was made with."""
TIME = "%Y-%m-%d_%H-%M-%S"
"""What a run folder is called, by when it began; above it lies that of its fold, see ``run_dir`` in conf/."""
_TIME = r"\d{4}-\d\d-\d\d_[^/\"]*"


def best_checkpoint(folder: Path) -> Path:
    """The weights of the best epoch."""
    return folder / CHECKPOINTS / BEST


def last_checkpoint(folder: Path) -> Path:
    """What a training goes on from."""
    return folder / CHECKPOINTS / LAST


def phase_folder(folder: Path, name: str) -> Path:
    """Of a phase of a run, which is a run folder of its own but for the scores."""
    return folder / "phases" / name


def task_counts(task: str) -> str:
    """The ``PIXEL_COUNTS`` of one task of several."""
    stem, dot, suffix = PIXEL_COUNTS.partition(".")
    return f"{stem}_{task}{dot}{suffix}"


def part_features(part: str) -> Path:
    """Below a run folder: the pooled features of the pictures of one part."""
    return ROWS / f"features_{part}.npz"


def picture_map(part: str, stem: str) -> Path:
    """Below a run folder: the probability map of one picture; `hsl.files.names.file_name` makes the stem of its id."""
    return ROWS / "maps" / part / f"{stem}.npz"


def of_rank(path: Path, rank: int) -> Path:
    """The file that a further process of a distributed run writes instead of ``path``.

    >>> of_rank(Path("a/oom.json"), 1).as_posix()
    'a/oom.rank1.json'
    """
    return path.with_name(f"{path.stem}.rank{rank}{path.suffix}")


def of_ranks(path: Path) -> list[Path]:
    """The files that further processes have written instead of ``path``, by rank."""
    found = path.parent.glob(f"{path.stem}.rank*{path.suffix}")
    return sorted(found, key=lambda one: (len(one.name), one.name))


def foldless(value: str, fold: int) -> str:
    """A path below the run folder of the same fold, without the fold and the time of that run.

    The labels and the first weights of a fold come from runs of that fold, so their paths differ in one model.

    >>> foldless("outputs/cam/fold2/2026-01-31_10-00-00/best.ckpt", 2), foldless("fold20/a", 2)
    ('outputs/cam/fold*/best.ckpt', 'fold20/a')
    """
    return re.sub(rf"(?<![^/\"_-])fold{fold}(?![^/\"_-])(/{_TIME})?", "fold*", value)


def chosen_checkpoint(path: Path) -> Path:
    """The checkpoint that ``resume`` names: itself, or the last one of a run folder.

    Raises:
        ConfigError: there is none.
    """
    if path.is_file():
        return path
    inside = [place for place in (last_checkpoint(path), path / LAST) if place.is_file()]
    if (path / PHASES).is_file() or inside:
        return inside[0] if inside else last_checkpoint(path)
    what = f"holds no {CHECKPOINTS / LAST}" if path.is_dir() else "does not exist"
    raise ConfigError(
        f"`resume` should be null, last, a run folder or a checkpoint's path. Found `resume = {path}`, which {what}. "
        f"Run folders keep theirs in `{CHECKPOINTS / LAST}`; `resume=null` starts a new run."
    )
