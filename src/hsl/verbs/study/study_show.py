"""`hsl study show`: the trials of a study, without torch."""

from pathlib import Path

from omegaconf import DictConfig

from hsl.errors import DataError
from hsl.terminal import say
from hsl.verbs.study.pages.showing import print_table, rows_as_json
from hsl.verbs.study.pages.study_page import PAGE, write_pages
from hsl.verbs.study.stored_study import STUDY, read_study
from hsl.verbs.study.study_storage import open_storage


def show(cfg: DictConfig) -> None:
    """Print the trials of a study, and write its page anew; nothing is trained.

    Raises:
        DataError: there is no such study.
        ConfigError: its storage cannot be reached.
    """
    folder = Path(cfg.output_root) / str(cfg.name)
    if not (folder / STUDY).is_file():
        near = sorted(path.parent.name for path in Path(cfg.output_root).glob(f"*/{STUDY}"))
        raise DataError(
            f"`name` should be that of a study below `{cfg.output_root}`. Found `name = {cfg.name}`, whose folder has "
            f"no {STUDY}. There are: {', '.join(near) or 'none'}."
        )
    stored = read_study(folder)
    trials = open_storage(folder, stored, cfg.storage)
    if cfg.json:
        say(rows_as_json(trials, stored))
        return
    write_pages(folder, stored, trials)
    print_table(trials, stored)
    say(f"{folder / PAGE}")
