"""The folder of pseudo-labels: written row by row beside its place, moved there when it is complete."""

import csv
import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hsl.data.files.decode_masks import decode_mask
from hsl.data.labels.label_table import COLUMNS, FORMAT, PAGE, LabelRow
from hsl.data.labels.review import REVIEW
from hsl.data.splits.grouping import name_some
from hsl.errors import ConfigError, DataError
from hsl.files.cells import neutral_row
from hsl.files.io import write_atomically
from hsl.files.locks import try_lock
from hsl.files.output_folder import MARKER, strange_files, write_marker

TABLE, ROWS, SETTINGS = "labels.csv", "rows.jsonl", "settings.json"
_REPLACED = (MARKER, ".DS_Store")  # hidden files that go with the folder


class LabelFolder:
    """A folder of pseudo-labels in the making.

    Everything is written into a hidden folder beside ``path``, and moved there by `finish`. So whoever looks sees the
    old folder or the whole new one, and one that was killed goes on where it stopped.

    Args:
        path: the folder to be.
        settings: all that a label depends on; with other ones it starts anew. They become ``labels.json``.
        overwrite: let a folder of pseudo-labels that lies there be replaced.
        in_run: the place lies in a run folder, which is ours: nothing is asked.

    Raises:
        ConfigError: the place is taken, or another process writes there.
    """

    def __init__(
        self, path: Path, settings: Mapping[str, Any], *, overwrite: bool = False, in_run: bool = False
    ) -> None:
        if not in_run:
            check_labels_free(path, overwrite)
        path = path.resolve() if path.is_symlink() else path
        self.path, self._in_run, self._overwrite = path, in_run, overwrite
        self._settings = json.dumps(settings, indent=1, ensure_ascii=False)
        self._work = path.parent / f".{path.name}.partial"
        self._lock_file = path.parent / f".{path.name}.lock"
        self._lock = _lock(self._lock_file)
        if _text(self._work / SETTINGS) != self._settings:
            shutil.rmtree(self._work, ignore_errors=True)
            write_atomically(self._work / SETTINGS, self._settings.encode())
        self.rows = {row.id: row for row in _written_rows(self._work / ROWS)}
        self._log = (self._work / ROWS).open("a", encoding="utf8")

    @property
    def work(self) -> Path:
        """Where the folder is before `finish`."""
        return self._work

    @property
    def audit(self) -> Path:
        """Where pictures of the labels go before `finish`."""
        return self._work / "audit"

    def add(self, row: LabelRow, mask: NDArray[np.uint8], confidence: NDArray[np.floating]) -> None:
        """Keep one label; the row is written last, so that a row means two whole files.

        Args:
            row: what is known of it.
            mask: class indices ``(H, W)``, 255 = uncertain.
            confidence: ``(H, W)`` in [0, 1], kept in steps of 1/255.
        """
        write_png(self._work / "masks" / f"{row.id}.png", mask)
        write_png(self._work / "confidence" / f"{row.id}.png", np.rint(255 * confidence).astype(np.uint8))
        self._log.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
        self._log.flush()
        self.rows[row.id] = row

    def keep_image(self, name: str, image: NDArray[np.uint8]) -> Path:
        """Keep a copy of a picture ``uint8 (H, W, 3)``, RGB, that a browser could not show from where it lies.

        Returns:
            Where it is, from the folder on.
        """
        write_png(self._work / "images" / f"{name}.png", image[..., ::-1])
        return Path("images") / f"{name}.png"

    def mask(self, name: str) -> NDArray[np.uint8]:
        """The mask of a label that is done."""
        return read_mask(self._work, name)

    def confidence(self, name: str) -> NDArray[np.float32]:
        """The confidence of a label that is done."""
        return read_confidence(self._work, name)

    def finish(self) -> Path:
        """Write the table and, last, ``labels.json``; then move the whole to its place.

        Returns:
            The folder.

        Raises:
            ConfigError: something came there meanwhile that is not to be replaced.
        """
        if not self._in_run:
            check_labels_free(self.path, self._overwrite)  # once more: labelling takes long
        self._log.close()
        write_atomically(self._work / TABLE, labels_csv(list(self.rows.values())).encode())
        page = {"format": FORMAT, **json.loads(self._settings), "created": datetime.now(UTC).isoformat("T", "seconds")}
        page["folder"] = str(self.path.resolve())  # from which on paths are found again that moved with it
        write_atomically(self._work / PAGE, json.dumps(page, indent=1, ensure_ascii=False).encode())
        write_marker(self._work, "label")
        old = self.path.parent / f".{self.path.name}.old"
        shutil.rmtree(old, ignore_errors=True)
        if self.path.exists():
            self.path.rename(old)
        self._work.rename(self.path)
        shutil.rmtree(old, ignore_errors=True)
        for leftover in (ROWS, SETTINGS):  # not before: killed up to here, the next run has only to move the folder
            (self.path / leftover).unlink()
        self.close()
        return self.path

    def discard(self) -> None:
        """Forget what was made so far."""
        shutil.rmtree(self._work)

    def close(self) -> None:
        """Let go of the place; what was not finished stays, to be gone on with."""
        self._log.close()
        self._lock_file.unlink(missing_ok=True)
        self._lock.close()


def check_labels_free(path: Path, overwrite: bool) -> None:
    """See that a folder of pseudo-labels can be written.

    Args:
        path: the folder.
        overwrite: whether labels that lie there may be replaced.

    Raises:
        ConfigError: something lies there that is not to be replaced.
    """
    if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / PAGE).is_file():
        found = "holds something else" if path.is_dir() else "does not exist"
        raise ConfigError(f"`output` should be a new folder. Found `output = {path}`, which {found}. Choose another.")
    if not overwrite:
        raise ConfigError(
            f"`output` should be a new folder. Found `output = {path}`, which holds pseudo-labels. Choose another, or "
            "replace them, with their review, by `overwrite=true`."
        )
    hidden = [each.relative_to(path).as_posix() for each in sorted(path.rglob(".*")) if each.name not in _REPLACED]
    if strange := [*(name for name in strange_files(path) if name != REVIEW), *hidden]:
        raise ConfigError(
            f"`output = {path}` should hold labels as `hsl label` left them, for nothing else is replaced. Found "
            f"{name_some(strange)}, changed or not its own. Choose another `output`, or move these files away."
        )


def read_mask(folder: Path, name: str) -> NDArray[np.uint8]:
    """The mask ``uint8 (H, W)`` of a picture.

    Raises:
        DataError: there is none, or it is broken.
    """
    return _read_png(folder / "masks" / f"{name}.png")


def read_confidence(folder: Path, name: str) -> NDArray[np.float32]:
    """The confidence ``float32 (H, W)`` of a picture, in [0, 1].

    Raises:
        DataError: there is none, or it is broken.
    """
    return _read_png(folder / "confidence" / f"{name}.png").astype(np.float32) / np.float32(255)


def labels_csv(rows: Sequence[LabelRow]) -> str:
    """The text of ``labels.csv``."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for row in sorted(rows, key=lambda row: row.id):
        numbers = {name: f"{getattr(row, name):.6f}" for name in ("quality", "uncertain", "foreground")}
        table.writerow(neutral_row(asdict(row) | numbers | {"rule_passed": int(row.rule_passed)}))
    return text.getvalue()


def write_png(path: Path, values: NDArray[np.uint8]) -> None:
    """Write ``uint8 (H, W)``, or ``(H, W, 3)`` in the order blue, green, red."""
    _, png = cv2.imencode(".png", values)
    write_atomically(path, png.tobytes())


def _written_rows(path: Path) -> list[LabelRow]:
    """The rows of an unfinished folder; what was cut off by `kill -9` is not among them."""
    *whole, _ = _text(path).split("\n")
    if path.exists():
        write_atomically(path, "".join(f"{line}\n" for line in whole).encode())
    return [LabelRow(**json.loads(line)) for line in whole]


def _read_png(path: Path) -> NDArray[np.uint8]:
    try:
        return decode_mask(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"`{path}` cannot be read: {error.strerror}. Make the labels anew with `hsl label`.") from error


def _text(path: Path) -> str:
    return path.read_text(encoding="utf8") if path.is_file() else ""


def _lock(path: Path) -> IO[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = try_lock(path)
    if lock is None:
        raise ConfigError(
            f"`output` should be free. Found another process that writes `{path.parent}`. Wait for it to end."
        )
    return lock
