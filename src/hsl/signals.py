"""How a command ends that a signal ends: with 128 and the signal's number, so that `&&` stops and a scheduler knows."""

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""What asks a command to end, beside Ctrl-C."""
BROKEN_PIPE = 128 + signal.SIGPIPE


def listen(react: Callable[[int, Any], None]) -> None:
    """Call ``react`` with the number of the signal and the frame; a signal that is ignored (`nohup`) stays so."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, react)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Turn SIGTERM, SIGHUP, Ctrl-C and a reader that closed its pipe into the exit codes of the shell.

    Raises:
        SystemExit: with 143, 129, 130 or 141.
    """
    listen(_end)
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        _exit(128 + signal.SIGINT)
    except BrokenPipeError:
        if not _is_closed():
            raise
        _exit(BROKEN_PIPE)
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning's way out of Ctrl-C is an exit with 1
            _exit(128 + signal.SIGINT)
        if _is_closed():
            _exit(BROKEN_PIPE if not stop.code or stop.code == 1 else stop.code)
        raise


def _end(number: int, _: Any) -> None:
    raise SystemExit(128 + number)


def _exit(code: Any) -> None:
    for number in (signal.SIGINT, *SIGNALS):  # whoever presses Ctrl-C twice has no use for a traceback
        signal.signal(number, signal.SIG_IGN)
    raise SystemExit(code) from None


def _is_closed() -> bool:
    """Whether nobody reads the output any more; what is left of it then goes nowhere, also when Python ends."""
    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):  # no file, as in a test or a notebook
        return False
    poll = select.poll()
    poll.register(output, 0)  # errors are told without being asked for
    if not any(events & select.POLLERR for _, events in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True
