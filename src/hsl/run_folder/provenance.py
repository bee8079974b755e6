"""``provenance.json``: where a run came from, and how it ended."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hsl.files.io import Page, read_json, write_atomically


def write_provenance(path: Path, facts: Mapping[str, Any]) -> None:
    """Write the facts as ``provenance.json``, whole or not at all."""
    write_atomically(path, json.dumps(facts, indent=2).encode())


def read_provenance(path: Path) -> Page:
    """The facts in a ``provenance.json``; empty when there is none.

    Raises:
        DataError: the file is damaged; of what is read: a key is not there.
    """
    if path.is_file():
        return read_json(path)
    nothing = Page()
    nothing.path = path
    return nothing
