"""``rows/``: what an ensemble keeps of a run besides its tables, written picture by picture so that it can go on.

The pass that fills it is `hsl.verbs.ensemble.member_rows`.
"""

import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from hsl.errors import DataError
from hsl.files.io import clear_temporary, read_arrays, write_arrays, write_atomically
from hsl.files.names import below, file_name
from hsl.run_folder.layout import MEMBER_ROWS, ROWS, best_checkpoint, part_features, picture_map
from hsl.run_folder.provenance import read_page

VERSION = 1
"""Of the files. Those of another one are made anew."""
FLUSH_S = 20.0
"""So much work on features may be lost to ``kill -9``."""


class KeptPart(BaseModel):
    """What is complete of one part: so many pictures, features of ``dimension``, and maps where there are any.

    ``seconds``: what a picture took the model, for ``features`` and ``maps``; nothing of what was not timed.
    """

    pictures: int
    dimension: int
    maps: bool
    seconds: dict[str, float] = {}


class KeptRows(BaseModel):
    """``rows.json``: what made the files beside it, and which parts are complete.

    ``inference``: the predictor of the maps by the name of its scores. ``classes``: those of the maps.
    """

    version: int = VERSION
    checkpoint: str
    inference: str
    classes: list[str]
    parts: dict[str, KeptPart] = {}

    def made_like(self, other: "KeptRows") -> bool:
        """Whether both were made by the same version from the same checkpoint in the same way."""
        return self.model_dump(exclude={"parts"}) == other.model_dump(exclude={"parts"})


def checkpoint_sha256(run: Path) -> str:
    """SHA-256 of the best checkpoint."""
    try:
        with best_checkpoint(run).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise DataError(f"`{best_checkpoint(run)}` is missing. Restore it, or train the run again.") from None


def read_kept(run: Path) -> KeptRows | None:
    """``rows.json``; none where there is none, or where it is damaged or of another version: then it is made anew."""
    path = run / ROWS / MEMBER_ROWS
    if not path.is_file():
        return None
    try:
        kept = read_page(path, KeptRows)
    except DataError:
        return None
    return kept if kept.version == VERSION else None


@dataclass
class RowsWriter:
    """Fills ``rows/`` of a run, and goes on where it was interrupted.

    Whatever lies there and was made otherwise (another version, checkpoint or inference) is removed at the start.

    Args:
        run: the run folder.
        kept: what the files are made with; its ``parts`` are those of the folder.
    """

    run: Path
    kept: KeptRows
    _features: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    _part: str = ""
    _flushed: float = 0.0

    def __post_init__(self) -> None:
        below(self.run, str(ROWS))
        before = read_kept(self.run)
        if before is not None and before.made_like(self.kept):
            self.kept = before
        else:
            (self.run / ROWS / MEMBER_ROWS).unlink(missing_ok=True)  # first: half a folder must not look complete
            shutil.rmtree(self.run / ROWS, ignore_errors=True)
            self._write_page()
        clear_temporary(self.run / ROWS)

    def is_complete(self, part: str, maps: bool) -> bool:
        """Whether nothing is left to do for a part."""
        found = self.kept.parts.get(part)
        return found is not None and (found.maps or not maps)

    def begin(self, part: str) -> None:
        """Take up a part, with the features that are known of it."""
        self._part, self._flushed = part, time.monotonic()
        self._features = {}
        path = self.run / part_features(part)
        if path.is_file():
            try:
                ids, values = _read_features(path)
            except DataError:
                return  # damaged: those are made anew
            self._features = dict(zip(ids, values, strict=True))

    def lacks_features(self, name: str) -> bool:
        """Whether the features of a picture of the part are not known."""
        return name not in self._features

    def lacks_map(self, name: str) -> bool:
        """Whether the map of a picture of the part is not there."""
        return not self._map(name).is_file()

    def add_features(self, name: str, features: NDArray[np.float32]) -> None:
        """Keep the pooled features ``(D,)`` of a picture."""
        self._features[name] = np.asarray(features, dtype=np.float32)
        if time.monotonic() - self._flushed > FLUSH_S:
            self._write_features(list(self._features))

    def add_map(self, name: str, probabilities: NDArray[np.floating]) -> None:
        """Keep the probabilities ``(C, H, W)`` of a picture in 8 bits: none is off by more than 1/510."""
        rounded = np.rint(np.asarray(probabilities, dtype=np.float64) * 255).astype(np.uint8)
        write_arrays(self._map(name), {"map": rounded})

    def finish(self, ids: Sequence[str], maps: bool, seconds: Mapping[str, float]) -> None:
        """The part is complete: its features are written in the order of ``ids``, and then that it is.

        Args:
            ids: of its pictures.
            maps: whether each has a map.
            seconds: per picture, as far as this pass tells; an earlier one told the rest.
        """
        self._write_features(ids)
        dimension = len(self._features[ids[0]])
        before = self.kept.parts.get(self._part)
        spent = {**(before.seconds if before else {}), **seconds}
        self.kept.parts[self._part] = KeptPart(pictures=len(ids), dimension=dimension, maps=maps, seconds=spent)
        self._write_page()

    def _map(self, name: str) -> Path:
        return self.run / picture_map(self._part, file_name(name))

    def _write_features(self, ids: Sequence[str]) -> None:
        values = np.stack([self._features[name] for name in ids])
        write_arrays(self.run / part_features(self._part), {"ids": np.array(ids), "features": values})
        self._flushed = time.monotonic()

    def _write_page(self) -> None:
        write_atomically(self.run / ROWS / MEMBER_ROWS, self.kept.model_dump_json(indent=1).encode())


def read_features(run: Path, part: str) -> Mapping[str, NDArray[np.float32]]:
    """Id to the pooled features ``(D,)`` of every picture of a part.

    Raises:
        DataError: they were not kept, or the file is damaged.
    """
    _complete(run, part)
    ids, values = _read_features(run / part_features(part))
    return dict(zip(ids, values, strict=True))


def read_map(run: Path, part: str, name: str) -> NDArray[np.uint8]:
    """The probability map ``(C, H, W)`` of a picture in 255ths, at the size of its source.

    Raises:
        DataError: it was not kept, or the file is damaged.
    """
    kept = _complete(run, part)
    path = run / picture_map(part, file_name(name))
    values: NDArray[np.uint8] = read_arrays(path, ["map"])["map"]
    if values.dtype != np.uint8 or values.shape[:1] != (len(kept.classes),) or len(values.shape) != 3:
        raise DataError(
            f"`{path}` should hold a map of {len(kept.classes)} classes. Found another. Delete `{run / ROWS}`; it is "
            "made anew."
        )
    return values


def _complete(run: Path, part: str) -> KeptRows:
    kept = read_kept(run)
    if kept is None or part not in kept.parts:
        raise DataError(
            f"`{run / ROWS}` should hold the rows of the part {part}. Found none. They are made by `hsl ensemble`."
        )
    return kept


def _read_features(path: Path) -> tuple[list[str], NDArray[np.float32]]:
    content = read_arrays(path, ["ids", "features"])
    ids, values = content["ids"].astype(str).tolist(), content["features"]
    if values.dtype != np.float32 or len(values.shape) != 2 or len(values) != len(set(ids)):
        raise DataError(f"`{path}` should hold one row of features per picture. Found another. Delete it.")
    return ids, values
