"""``study.json``: what a study searches, and the places of its trials' runs."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from hsl.files.io import write_atomically
from hsl.run_folder.history import read_history
from hsl.run_folder.provenance import read_page, read_provenance
from hsl.verbs.code_version import code_version

STUDY = "study.json"
JOURNAL = "journal.log"
VERSION = 1
LOCK = ".lock"
CONFIRMED = "confirmed"
REPORT = "report"


class StoredStudy(BaseModel):
    """``study.json``. ``id`` tells this folder from that of another machine which shares the storage alone.

    Attributes:
        words: what stands behind train.py in every trial.
        space: the dimensions as the study began, see `hsl.verbs.study.spaces`.
        objectives: ``score`` (the monitored one), ``parameters``, ``seconds``.
        code: of hsl that began it, see `hsl.verbs.code_version`.
    """

    version: int
    id: str
    name: str
    words: list[str]
    monitor: str
    mode: Literal["max", "min"]
    objectives: list[str]
    folds: list[int]
    space: dict[str, Any]
    code: str


def new_study(**facts: Any) -> StoredStudy:
    """One that begins here."""
    return StoredStudy(version=VERSION, id=uuid.uuid4().hex, code=code_version(), **facts)


def write_study(folder: Path, study: StoredStudy) -> None:
    """Write ``study.json``."""
    write_atomically(folder / STUDY, study.model_dump_json(indent=2).encode())


def read_study(folder: Path) -> StoredStudy:
    """What a study searches.

    Raises:
        DataError: the file is missing or of another shape.
    """
    return read_page(folder / STUDY, StoredStudy)


def trial_folder(study: Path, number: int) -> Path:
    """Where the runs of a trial lie, ``fold<k>/<time>`` each."""
    return study / f"trial{number}"


def best_monitored(runs: Path, monitor: str, mode: str) -> tuple[float, Mapping[str, Any]] | None:
    """Best monitored value over the epochs of the newest finished run below, and its provenance.

    It comes from the curves of validation. ``metrics.json``, where test scores stand, is not opened.

    Args:
        runs: the folder of one fold.
        monitor: column of ``history.csv``.
        mode: ``max`` or ``min``.

    Returns:
        ``None`` where no run is finished, or none has a value.
    """
    for folder in sorted((path for path in runs.glob("[!.]*") if path.is_dir()), reverse=True):
        facts = read_provenance(folder)
        if facts["status"] != "finished":
            continue
        values = [row[monitor] for row in read_history(folder) if isinstance(row.get(monitor), int | float)]
        if values:
            return float(max(values) if mode == "max" else min(values)), facts
    return None


def monitored_epochs(runs: Path, monitor: str) -> list[float]:
    """The monitored value of each epoch so far, of the newest run below."""
    folders = sorted(path for path in runs.glob("[!.]*") if path.is_dir())
    rows = read_history(folders[-1]) if folders else []
    return [float(row[monitor]) for row in rows if isinstance(row.get(monitor), int | float)]
