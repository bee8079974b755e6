"""One training of a trial in a process of its own, which has the heavy imports behind it."""

import multiprocessing
import os
import pkgutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path

from hsl.files.io import read_text
from hsl.signals import end_process, end_with_parent

LOOK_S = 0.3
PATIENCE_S = 60.0  # in which a training that is asked to end writes what it has
COMMAND_LINE = "hsl.cli:run_verb"


@dataclass(frozen=True)
class Ended:
    """How a training ended: ``code`` as a shell has it, negative by a signal; ``stopped``: because it was asked to."""

    code: int
    stopped: bool
    log: Path

    @property
    def sentence(self) -> str:
        """What is told of one that did not end well."""
        if self.code == -signal.SIGKILL:
            return f"killed from outside, as the system does where memory runs out; see {self.log.name}"
        lines = read_text(self.log).strip().splitlines() if self.log.is_file() else []
        told = [line for line in lines if line.startswith("error: ")] or lines
        return told[-1].removeprefix("error: ") if told else f"ended with {self.code} and said nothing"


def heavy_context() -> ForkServerContext:
    """Where processes come from that need not import torch and Lightning again: half of a short trial's time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hsl.cli", "hsl.verbs.train.train", "hsl.models.network", "hsl.models.encoders"])
    return context


def run_apart(verb: str, words: Sequence[str], log: Path | None, wants_end: Callable[[], bool]) -> Ended:
    """Run a verb of the suite in a process that ends with this one.

    Args:
        verb: ``train`` or ``study``.
        words: of its command line.
        log: takes what it prints, behind what is there; ``None``: this process's own output.
        wants_end: asked now and then whether it is to stop; it then saves what it has.
    """
    process = heavy_context().Process(target=_run, args=(verb, list(words), None if log is None else str(log)))
    process.start()
    stopped = False
    try:
        while process.is_alive():
            process.join(LOOK_S)
            if not stopped and process.is_alive() and wants_end():
                stopped = True
                end_process(process, PATIENCE_S)
    finally:
        if process.is_alive():
            end_process(process, PATIENCE_S)
    code = process.exitcode
    return Ended(1 if code is None else code, stopped, log or Path())


def never() -> bool:
    """What is let run to its end."""
    return False


def _run(verb: str, words: list[str], log: str | None) -> None:
    end_with_parent()
    if log is not None:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
    sys.argv = [verb, *words]
    pkgutil.resolve_name(COMMAND_LINE)(verb)
