"""Where trials are kept: a journal in the folder of the study, or a database that the user names."""

import fcntl
import os
from pathlib import Path
from typing import IO, Literal

import optuna
from optuna.exceptions import OptunaError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.exc import SQLAlchemyError

from hsl.errors import ConfigError
from hsl.verbs.study.stored_study import JOURNAL, StoredStudy

OURS, CODE = "hsl", "hsl code"


def open_storage(
    folder: Path,
    stored: StoredStudy,
    url: str | None,
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
) -> optuna.Study:
    """The study in its storage; made where it is not there. To read it needs no sampler and no pruner.

    Raises:
        ConfigError: the storage cannot be reached, or holds a study of this name that is not this one.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions = [stored_direction(stored, name) for name in stored.objectives]
    try:
        study = optuna.create_study(
            storage=_storage(folder, url), study_name=stored.name, directions=directions, load_if_exists=True,
            sampler=sampler, pruner=pruner,
        )  # fmt: skip
        known = study.user_attrs.get(OURS)
        if known is None and study.get_trials(deepcopy=False):
            raise _of_another(stored.name, url)
        if known is None:
            study.set_user_attr(OURS, [stored.words, stored.space, directions])
    except ConfigError:
        raise
    except ImportError as error:
        raise ConfigError(
            f"`study.storage` should be a database whose driver is installed. Found `{_place(folder, url)}`, without "
            "one. For PostgreSQL `make extras` in a clone, else `pip install 'hsl[postgres]'`, and write "
            "`postgresql+psycopg://...`; for others see SQLAlchemy's list of drivers."
        ) from error
    except (SQLAlchemyError, OptunaError, OSError, ValueError) as error:
        raise ConfigError(
            f"`study.storage` should be a storage that can be reached and written. Found `{_place(folder, url)}`: "
            f"{type(error).__name__}, {str(error).partition(chr(10))[0]}. Start the server, mend the URL, or "
            "leave `study.storage` away for a journal in the folder of the study."
        ) from error
    if known is not None and known != [stored.words, stored.space, directions]:
        raise _of_another(stored.name, url)
    return study


def code_of(study: optuna.Study, stored: StoredStudy) -> str:
    """The code that began a study: kept in its storage, which machines may share that share no folder."""
    known: str | None = study.user_attrs.get(CODE)
    if known is None:
        study.set_user_attr(CODE, stored.code)
    return known or stored.code


def stored_direction(stored: StoredStudy, objective: str) -> Literal["maximize", "minimize"]:
    """Which way an objective gets better."""
    return "maximize" if objective == "score" and stored.mode == "max" else "minimize"


class _JournalLock(JournalFileOpenLock):
    """A lock that ends with the process that holds it: Optuna's own outlives a worker that is killed, and costs 30 s.

    Whoever takes it first cuts off the line that such a worker, or a full disk, left half-written.
    """

    def __init__(self, journal: str) -> None:
        self._journal = Path(journal)
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Wait for it."""
        self._file = self._journal.open("rb+")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        size = end = self._file.seek(0, os.SEEK_END)
        while end and os.pread(self._file.fileno(), 1, end - 1) != b"\n":
            end -= 1
        if end < size:
            self._file.truncate(end)
        return True

    def release(self) -> None:
        """Let it go."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _storage(folder: Path, url: str | None) -> BaseStorage:
    if url is None:
        journal = str(folder / JOURNAL)
        return JournalStorage(JournalFileBackend(journal, lock_obj=_JournalLock(journal)))
    return RDBStorage(url)


def _place(folder: Path, url: str | None) -> str:
    if url is None:
        return str(folder / JOURNAL)
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}...@{rest.rpartition('@')[2]}" if "@" in rest else url  # a password is not shown


def _of_another(name: str, url: str | None) -> ConfigError:
    return ConfigError(
        f"`study.storage` holds a study `{name}` already, with other words, another space or of another program. Give "
        f"this one another `study.name`{', or another database' if url else ''}."
    )
