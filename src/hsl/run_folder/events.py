"""What happened in a run besides its epochs: phases, a rollback, lost memory."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hsl.errors import DataError
from hsl.run_folder.layout import OOM, PHASES, ROLLBACK


@dataclass(frozen=True)
class RunEvents:
    """``phases``: name to what ``phases.json`` says of it; ``rollback``: ``rollback.json``, what the last rollback gate
    decided; ``memory``: the events of ``oom.json``. Each is empty without its file.
    """

    phases: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rollback: Mapping[str, Any] = field(default_factory=dict)
    memory: tuple[Mapping[str, Any], ...] = ()

    @property
    def reverted(self) -> bool:
        """Whether the gate put earlier weights back, so that they are what was scored."""
        return self.rollback.get("decision") == "reverted"


def read_events(folder: Path) -> RunEvents:
    """Read the three files, as far as they are there.

    Raises:
        DataError: one is not valid JSON, or has another shape.
    """
    phases = _read(folder / PHASES, dict)
    memory = _read(folder / OOM, list)
    for path, found in ((PHASES, phases.values()), (OOM, memory)):
        if not all(isinstance(one, dict) for one in found):
            raise DataError(f"`{folder / path}` should hold JSON objects, one per phase or event.")
    return RunEvents(phases, _read(folder / ROLLBACK, dict), tuple(memory))


def _read(path: Path, kind: type[Any]) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        return kind()
    except (OSError, ValueError) as error:
        raise DataError(f"`{path}` cannot be read: {error}.") from None
    if not isinstance(content, kind):
        wanted = "list" if kind is list else "object"
        raise DataError(f"`{path}` should be a JSON {wanted}. Found {type(content).__name__}.")
    return content
