"""What runs on a machine of the cluster: one run of a sweep, in a process that ends with Ray's own."""

import multiprocessing
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals

from hsl.errors import DataError, user_sentence
from hsl.files.locks import BusyError
from hsl.signals import end_process, end_with_parent, ended_by_signals
from hsl.terminal import quieten_warnings
from hsl.verbs.code_version import code_version

PATIENCE_S = 60.0  # in which a run that is asked to end writes what it has
BUSY_S = 300.0  # for which a run waits for the lock of the process that it takes the place of
LOOK_S = 2.0
VARIABLES = ("HSL_", "HYDRA_", "HF_", "OMP_WAIT_POLICY", "NO_ALBUMENTATIONS_UPDATE")
"""Beginnings of the names of variables that a run needs from the command that began the sweep."""


@dataclass(frozen=True)
class Job:
    """A run as it travels.

    Attributes:
        content: what Hydra's ``run_job`` takes, and the state of Hydra itself, pickled.
        program: the command that began the sweep; further processes of the run begin with it.
        folder: where that command was given.
        log: takes what the run prints.
        code: version of the suite there; ``None``: any will do.
        again: whether the run was begun on a machine that died.
        variables: of the environment.
    """

    content: bytes
    program: str
    folder: str
    log: str
    code: str | None
    again: bool
    variables: dict[str, str]


def run(job: Job) -> float | None:
    """Do one run and wait for it.

    Returns:
        What it hands back to a sweep.

    Raises:
        DataError: the run failed or was ended from outside, or the machine has another code or does not see the folder.
    """
    if job.code is not None and job.code != code_version():
        raise DataError(
            f"Every machine should have hsl {job.code}. Found hsl {code_version()} on {os.uname().nodename}. Give all "
            "the same, or set `hydra.launcher.other_code=true`."
        )
    try:
        os.chdir(job.folder)
        Path(job.log).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"Every machine should see `{job.folder}`, where the sweep was started. Found {error.strerror} on "
            f"{os.uname().nodename}. Start the sweep in a folder on shared storage."
        ) from error
    os.environ.update(job.variables)
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_run_apart, args=(job, sending))
    process.start()
    sending.close()
    try:
        while not receiving.poll(LOOK_S):  # a wish of Ray to end is heard in between
            pass
        sentence, value = receiving.recv()
        process.join(PATIENCE_S)
    except EOFError:
        process.join()
        raise DataError(f"{_ended_with(process.exitcode)}; see {job.log}") from None
    finally:
        if process.is_alive():
            end_process(process, PATIENCE_S)
    if sentence is not None:
        raise DataError(sentence)
    return float(value) if isinstance(value, int | float) else None


def _ended_with(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "killed from outside, as the system does where memory runs out"
    return f"ended with exit code {code}"


def _run_apart(job: Job, sending: Connection) -> None:
    end_with_parent()
    file = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = [job.program]
    quieten_warnings()
    with ended_by_signals():
        hydra_context, config, task, state = pickle.loads(job.content)
        Singleton.set_state(state)
        setup_globals()
        done = _patiently(lambda: _run(hydra_context, config, task), BUSY_S if job.again else 0.0)
        failed = done.status == JobStatus.FAILED
        sending.send((_told(done._return_value, job.log), None) if failed else (None, done.return_value))


def _run(hydra_context: Any, config: Any, task: Any) -> JobReturn:
    return run_job(
        hydra_context=hydra_context,
        task_function=task,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


def _patiently(begin: Callable[[], JobReturn], wait_s: float) -> JobReturn:
    """Begin a run again for some time while another process has its folder, as one that was given up may have."""
    until = time.monotonic() + wait_s
    while isinstance((done := begin())._return_value, BusyError) and time.monotonic() < until:
        time.sleep(LOOK_S)
    return done


def _told(error: BaseException, log: str) -> str:
    """What travels of an error; the log has the rest."""
    sentence = user_sentence(error)
    if sentence is None:
        traceback.print_exception(error)
        sentence = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}; see {log}"
    return sentence
