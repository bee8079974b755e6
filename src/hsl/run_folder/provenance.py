"""Which run it is, where it came from, what was looked at before its training, and how it ended.

The files are ``config.yaml``, ``provenance.json``, ``audit.json`` and ``parts.json``.
"""

import glob
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, ValidationError

from hsl.config.moved import with_present_targets
from hsl.errors import DataError
from hsl.files.io import Page, read_json, read_text, write_atomically
from hsl.run_folder.layout import AUDIT, CONFIG, PARTS, PROVENANCE

STATUSES = ("finished", "failed", "interrupted", "running")
Schema = TypeVar("Schema", bound=BaseModel)


class Facts(BaseModel):
    """What every run tells of itself from its first moment on."""

    name: str
    fold: int
    seed: int
    started: str
    wall_time_s: float
    status: str
    error: str = "no error recorded"
    config: dict[str, Any]
    choices: dict[str, Any] = {}
    data: str | None = None


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


def matching_run_folders(patterns: Sequence[str]) -> list[Path]:
    """`find_run_folders`, of which there should be one at least.

    Raises:
        DataError: there is none.
    """
    if folders := find_run_folders(patterns):
        return folders
    raise DataError(
        f"`runs` should match at least one run folder. Found none for `{', '.join(patterns)}`. "
        f"A run folder holds {CONFIG} and {PROVENANCE}; by default it is "
        "`outputs/<name>/fold<k>/<time>`. Quote the glob: runs='outputs/*'."
    )


def write_config(folder: Path, cfg: DictConfig) -> None:
    """Write the resolved config of a run."""
    write_atomically(folder / CONFIG, OmegaConf.to_yaml(cfg, resolve=True).encode())


def read_config(folder: Path) -> dict[str, Any]:
    """The run's own config; it has the integers ``fold`` and ``seed``."""
    path = folder / CONFIG
    try:
        content = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise DataError(f"`{path}` is not valid YAML: {str(error).splitlines()[0]}.") from None
    if not isinstance(content, dict) or not all(isinstance(content.get(key), int) for key in ("fold", "seed")):
        raise DataError(f"`{path}` should be a run's config with the integers `fold` and `seed`.")
    present: dict[str, Any] = with_present_targets(content)
    return present


def write_provenance(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the facts of a run, whole or not at all."""
    write_atomically(folder / PROVENANCE, json.dumps(facts, indent=2).encode())


def read_provenance(folder: Path) -> Page:
    """The facts of a run; empty when there is no file.

    Raises:
        DataError: the file is damaged; of what is read: a key is not there.
    """
    return optional_page(folder / PROVENANCE)


def read_facts(folder: Path) -> Facts:
    """The facts that every run has.

    Raises:
        DataError: the file is missing or damaged, or one of them is not there.
    """
    return read_page(folder / PROVENANCE, Facts)


def optional_page(path: Path) -> Page:
    """A JSON object; an empty one when there is no file."""
    if path.is_file():
        return read_json(path)
    nothing = Page()
    nothing.path = path
    return nothing


def read_page(path: Path, kind: type[Schema]) -> Schema:
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
        DataError: provenance.json says something else, or what the run cost is not in numbers.
    """
    for key in ("energy_j", "device_time_s"):
        spent = provenance.get(key, {})
        if not isinstance(spent, Mapping) or not all(isinstance(one, int | float) for one in spent.values()):
            raise DataError(f"`{folder / PROVENANCE}`: `{key}` should be names with numbers. Found {spent!r}.")
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


class PartTest(BaseModel):
    """One comparison of the parts.

    ``of``: ``shown``, in how many groups a class is shown (chi-square of shown / not shown); ``classes``, how many
    groups are of each class, where each is of one; ``pixels``, the class distribution of the pixels of two parts.
    ``subject``: the class, or ``EVERY``. ``groups``: part to the groups of which it is known; ``shares``: part to the
    share of them that show the class. ``p`` is that of the chi-square or, of pixels, of dealing the groups anew;
    ``adjusted_p`` holds for all comparisons of its kind and head (Holm 1979). ``reason``: why there was no test; then
    there is no p.
    """

    head: str
    of: Literal["shown", "classes", "pixels"]
    subject: str
    groups: dict[str, int]
    shares: dict[str, float] = {}
    chi2: float | None = None
    freedom: int | None = None
    p: float | None = None
    adjusted_p: float | None = None
    cramers_v: float | None = None
    divergence: float | None = None
    reason: str = ""


class PartTests(BaseModel):
    """What is written beside the audit: ``unit`` is what was counted, groups or pictures."""

    data: str
    fold: int
    unit: str
    tests: list[PartTest]


def write_audit(folder: Path, text: str) -> None:
    """Leave an audit in a folder: see `hsl.data.audit.audit.Audit`."""
    write_atomically(folder / AUDIT, text.encode())


def read_audit(folder: Path) -> Page:
    """What `write_audit` left.

    Raises:
        DataError: the file is missing or damaged.
    """
    return read_json(folder / AUDIT)


def write_parts(folder: Path, found: PartTests) -> None:
    """Leave the comparisons in a folder."""
    write_atomically(folder / PARTS, found.model_dump_json(indent=1).encode())


def read_parts(folder: Path) -> PartTests | None:
    """What `write_parts` left; none without the file.

    Raises:
        DataError: the file is no such page.
    """
    return read_page(folder / PARTS, PartTests) if (folder / PARTS).is_file() else None
