"""Finding run folders; one that is broken never stops a report."""

from collections.abc import Sequence

from hsl.errors import DataError
from hsl.run_folder.layout import CONFIG, PROVENANCE
from hsl.run_folder.provenance import find_run_folders
from hsl.run_folder.run import Run, read_run


def gather(patterns: Sequence[str]) -> list[Run]:
    """Read every run folder that the globs match, or that lies below a match.

    Raises:
        DataError: there is none.
    """
    folders = find_run_folders(patterns)
    if not folders:
        raise DataError(
            f"`runs` should match at least one run folder. Found none for `{', '.join(patterns)}`. "
            f"A run folder holds {CONFIG} and {PROVENANCE}; by default it is "
            "`outputs/<name>/fold<k>/<time>`. Quote the glob: runs='outputs/*'."
        )
    return [read_run(folder) for folder in folders]
