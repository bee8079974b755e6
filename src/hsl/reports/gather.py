"""Finding run folders; one that is broken never stops a report."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from hsl.config import DataError
from hsl.reports.run_folder import Run, read_run


def gather(patterns: Sequence[str]) -> list[Run]:
    """Read every run folder that the globs match, or that lies below a match.

    Raises:
        DataError: there is none.
    """
    folders = find_run_folders(patterns)
    if not folders:
        raise DataError(
            f"`runs` should match at least one run folder. Found none for `{', '.join(patterns)}`. "
            "A run folder holds config.yaml and provenance.json; by default it is "
            "`outputs/<name>/fold<k>/<time>`. Quote the glob: runs='outputs/*'."
        )
    return [read_run(folder) for folder in folders]


def find_run_folders(patterns: Sequence[str]) -> list[Path]:
    """Folders with a config.yaml or a provenance.json, sorted, each once; hidden folders are passed over."""
    found: dict[Path, Path] = {}
    for pattern in patterns:
        for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207  Path.glob takes no absolute pattern
            for here, folders, files in os.walk(match):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                if "config.yaml" in files or "provenance.json" in files:
                    found.setdefault(Path(here).resolve(), Path(here))
                    folders.clear()
    return sorted(found.values())
