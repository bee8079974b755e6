"""``ensemble.json`` and the files beside it: what an ensemble is made of, what it was fitted on, and what it chose."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from hsl.errors import ConfigError, DataError
from hsl.files.io import parse_json, read_arrays, read_json, read_text, write_arrays, write_atomically
from hsl.run_folder.layout import ENSEMBLE, ENSEMBLE_ROWS, ISOLATION, STAGE
from hsl.run_folder.provenance import read_page

VERSION = 1
_NAMES = ("ids", "groups", "contents", "classes", "members")
_ARRAYS = ("labels", "probabilities", "folds")
_OTHERS = ("several", "foreground", "with_features", "feature_sizes", "features")


class StoredRun(BaseModel):
    """A run of a member: its folder, relative to that of the ensemble, and the SHA-256 of its best checkpoint."""

    folder: str
    sha256: str


class StoredMember(BaseModel):
    """A member: its run of each fold, and what it costs: seconds of training, parameters, seconds per picture.

    ``picture_seconds``: of one run, by the kind of head, as far as it was timed while rows were made.
    """

    label: str
    runs: dict[int, StoredRun]
    seconds: float = 0.0
    parameters: int = 0
    picture_seconds: dict[str, float] = {}


class StoredStage(BaseModel):
    """A variant of a stage: its place in the order of simplicity, its scores, and what the final fit chose."""

    place: int
    scores: dict[str, float | None]
    notes: dict[str, Any] = {}


class StoredCombination(BaseModel):
    """What was combined for one head, and which variant is to be used."""

    kind: str
    classes: list[str]
    several: bool
    recommended: str
    sentence: str
    temperature: float | None = None
    thresholds: list[float] | None = None
    stages: dict[str, StoredStage]


class StoredEnsemble(BaseModel):
    """``ensemble.json``: ``settings`` are the calls of the stages, by name, of which only ours are made again."""

    version: int
    data: str | None
    split_sha256: str
    inference: str
    members: dict[str, StoredMember]
    heads: dict[str, StoredCombination]
    settings: dict[str, Any]
    epochs_chosen_on_rows: bool


def is_ensemble(folder: Path) -> bool:
    """Whether a folder is that of an ensemble."""
    return (folder / ENSEMBLE).is_file()


def write_ensemble(folder: Path, page: StoredEnsemble) -> None:
    """Write ``ensemble.json``, whose presence means complete."""
    write_atomically(folder / ENSEMBLE, page.model_dump_json(indent=1).encode())


def read_ensemble(folder: Path) -> StoredEnsemble:
    """What `write_ensemble` wrote.

    Raises:
        ConfigError: it is no ensemble, or one of another version.
        DataError: it is damaged.
    """
    if not is_ensemble(folder):
        raise ConfigError(
            f"`ensemble` should be a folder that `hsl ensemble` made. Found `{folder}`, which has no {ENSEMBLE}."
        )
    page = read_page(folder / ENSEMBLE, StoredEnsemble)
    if page.version != VERSION:
        raise ConfigError(
            f"`{folder / ENSEMBLE}` should be of version {VERSION}. Found version {page.version}. Run `hsl ensemble` "
            "again with this version of hsl."
        )
    return page


def write_ensemble_rows(folder: Path, rows: Mapping[str, Any]) -> None:
    """Write the attributes of `hsl.ensembles.rows.Rows`, by name."""
    kept = sorted(rows["features"])
    arrays: dict[str, NDArray[Any]] = {name: np.array(rows[name], dtype=np.str_) for name in _NAMES}
    arrays |= {name: np.asarray(rows[name]) for name in _ARRAYS} | {"several": np.array(rows["several"])}
    arrays["foreground"] = np.zeros(0) if rows["foreground"] is None else rows["foreground"]
    arrays["with_features"] = np.array(kept, dtype=np.str_)
    arrays["feature_sizes"] = np.array([rows["features"][name].shape[1] for name in kept], dtype=np.int64)
    none = [np.zeros((len(rows["ids"]), 0), np.float32)]
    arrays["features"] = np.concatenate([*none, *(rows["features"][name] for name in kept)], axis=1)
    folder.mkdir(parents=True, exist_ok=True)
    write_arrays(folder / ENSEMBLE_ROWS, arrays)


def read_ensemble_rows(folder: Path) -> dict[str, Any]:
    """What `write_ensemble_rows` wrote.

    Raises:
        DataError: the file is missing or damaged.
    """
    content = read_arrays(folder / ENSEMBLE_ROWS, [*_NAMES, *_ARRAYS, *_OTHERS])
    rows: dict[str, Any] = {name: tuple(content[name].astype(str).tolist()) for name in _NAMES}
    rows |= {name: content[name] for name in _ARRAYS} | {"several": bool(content["several"])}
    columns = np.split(content["features"], np.cumsum(content["feature_sizes"])[:-1], axis=1)
    rows["features"] = dict(zip(content["with_features"].astype(str).tolist(), columns, strict=False))
    return rows | {"foreground": content["foreground"] if content["foreground"].size else None}


def write_stage(folder: Path, name: str, page: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write what a stage gave: first the arrays, last ``stage.json``, whose presence means complete.

    Args:
        folder: of the head.
        name: of the stage.
        page: with ``digest``, of its inputs.
        arrays: by name; ``stage.json`` lists them.
    """
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    write_arrays(place / ENSEMBLE_ROWS, dict(arrays))
    write_atomically(place / STAGE, json.dumps({**page, "arrays": sorted(arrays)}, indent=1).encode())


def read_stage(folder: Path, name: str, digest: str | None) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
    """What `write_stage` wrote of a stage with these inputs; ``None`` where it is not there, whole and of them.

    Args:
        folder: of the head.
        name: of the stage.
        digest: of its inputs; ``None``: whatever they were.
    """
    try:
        page = read_json(folder / name / STAGE)
        if digest not in (None, page["digest"]):
            return None
        return dict(page), read_arrays(folder / name / ENSEMBLE_ROWS, page["arrays"])
    except (DataError, KeyError):  # damaged, or of another version: it is made again
        return None


def write_isolation(folder: Path, checks: list[dict[str, Any]]) -> None:
    """Write ``isolation.json``: a row a check."""
    write_atomically(folder / ISOLATION, json.dumps(checks, indent=1, ensure_ascii=False).encode())


def read_isolation(folder: Path) -> list[dict[str, Any]]:
    """What `write_isolation` wrote.

    Raises:
        DataError: it is missing or damaged.
    """
    path = folder / ISOLATION
    content = parse_json(read_text(path), path)
    if not (isinstance(content, list) and all(isinstance(row, dict) and "status" in row for row in content)):
        raise DataError(f"`{path}` should hold a row a check. Found something else. Run `hsl ensemble` again.")
    return content
