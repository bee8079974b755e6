"""`hsl runs`: run folders with their key numbers."""

import json
from typing import Any

from omegaconf import DictConfig

from hsl.errors import ConfigError
from hsl.reports.listing import arrange, as_text, read_row
from hsl.run_folder.provenance import find_run_folders
from hsl.terminal import say


def runs(cfg: DictConfig) -> None:
    """Print the run folders below ``cfg.root``, as a table or as JSON.

    Raises:
        ConfigError: ``filter``, ``sort`` or ``limit`` cannot be understood.
    """
    limit = _limit(cfg.limit)
    found = [read_row(folder) for folder in find_run_folders([str(cfg.root)])]
    shown = arrange(found, cfg.filter, str(cfg.sort))[:limit]
    if cfg.json:
        say(json.dumps([row.cells for row in shown], indent=2))
    elif found:
        say(f"{as_text(shown)}\n{len(shown)} of {len(found)} runs")
    else:
        say(f"No run folder below `{cfg.root}`.")


def _limit(given: Any) -> int | None:
    if given is None:
        return None
    if str(given).isdecimal() and int(given) > 0:
        return int(given)
    raise ConfigError(f"`limit` should be a whole number above 0, or null for all runs. Found `limit = {given}`.")
