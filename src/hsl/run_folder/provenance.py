"""``provenance.json``: where a run came from, and how it ended."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hsl.files.io import Page, read_json, write_atomically
from hsl.run_folder.layout import PROVENANCE


def write_provenance(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the facts of a run, whole or not at all."""
    write_atomically(folder / PROVENANCE, json.dumps(facts, indent=2).encode())


def read_provenance(folder: Path) -> Page:
    """The facts of a run; empty when there is no file.

    Raises:
        DataError: the file is damaged; of what is read: a key is not there.
    """
    path = folder / PROVENANCE
    if path.is_file():
        return read_json(path)
    nothing = Page()
    nothing.path = path
    return nothing
