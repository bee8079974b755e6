"""Finding run folders and reading their JSON pages: what is cheap to know of a run. Nothing here imports torch."""

import glob
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from hsl.errors import DataError
from hsl.files.io import read_json
from hsl.run_folder.layout import CONFIG, PROVENANCE

STATUSES = ("finished", "failed", "interrupted", "running")
Page = TypeVar("Page", bound=BaseModel)


class Monitor(BaseModel):
    """What chose the checkpoint."""

    name: str
    mode: str
    value: float | None
    epoch: int


def find_run_folders(patterns: Sequence[str]) -> list[Path]:
    """Folders with a config.yaml or a provenance.json, sorted, each once; hidden folders are passed over."""
    found: dict[Path, Path] = {}
    for pattern in patterns:
        for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207  Path.glob takes no absolute pattern
            for here, folders, files in os.walk(match):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                if CONFIG in files or PROVENANCE in files:
                    found.setdefault(Path(here).resolve(), Path(here))
                    folders.clear()
    return sorted(found.values())


def read_page(path: Path, kind: type[Page]) -> Page:
    """A JSON object with the fields of ``kind``."""
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(each) for each in first["loc"])
        raise DataError(f"`{path}`: `{place}`: {first['msg']}. Evaluate the run again.") from None


def run_status(provenance: Mapping[str, Any], folder: Path) -> tuple[str, str]:
    """How a run ended, one of ``STATUSES``, and why it is unfinished; the reason of a finished one is empty.

    Raises:
        DataError: provenance.json says something else.
    """
    status = provenance.get("status")
    if status not in STATUSES:
        raise DataError(f"`{folder / PROVENANCE}`: `status` should be one of {', '.join(STATUSES)}. Found {status!r}.")
    seen = datetime.fromtimestamp((folder / PROVENANCE).stat().st_mtime, UTC)
    reasons = {
        "finished": "",
        "failed": str(provenance.get("error", "no error recorded")),
        "interrupted": "stopped by a signal; resume=last goes on",
        "running": f"still running, or killed: last sign of life {seen:%Y-%m-%d %H:%M} UTC",
    }
    return status, reasons[status]
