"""How a command ends that a signal ends: with 128 and the signal's number, so that `&&` stops and a scheduler knows."""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks a command to end."""
BROKEN_PIPE = 128 + signal.SIGPIPE
TWICE_S = 1.0
"""A terminal and a wrapper, or a scheduler and its script, send the same signal both; later it is a second wish."""


class Interrupted(SystemExit):
    """A signal ends this process; the exit code is 128 and the number of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class Listener:
    """What is done when a signal asks the process to end: `Interrupted` is raised where the process stands.

    Attributes:
        number: of the first signal heard; ``None``: none was.
        patient: whether what is under way ends by itself as soon as it may: the signal is then only noted. A second
            Ctrl-C ends it all the same.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.patient = False
        self._heard = 0.0

    def listen(self) -> None:
        """Answer the signals from now on; one that is ignored (`nohup`) stays so."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, self)

    def __call__(self, number: int, _frame: Any) -> None:
        """The handler."""
        now = time.monotonic()
        if self.number is None:
            self.number, self._heard = number, now
            if not self.patient:
                raise Interrupted(number)
        elif now - self._heard > TWICE_S and (number == signal.SIGINT or not self.patient):
            raise Interrupted(self.number)


def listener() -> Listener:
    """The one that answers in this process; else a new one, which does not yet."""
    current = signal.getsignal(signal.SIGTERM)
    return current if isinstance(current, Listener) else Listener()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Turn SIGTERM, SIGHUP, Ctrl-C and a reader that closed its pipe into the exit codes of the shell.

    Raises:
        SystemExit: with 143, 129, 130 or 141.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    own = Listener()
    own.listen()
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:  # what others make of Ctrl-C
        raise _end(128 + signal.SIGINT) from None
    except BrokenPipeError:
        if not _is_closed():
            raise
        raise _end(BROKEN_PIPE) from None
    except SystemExit as stop:
        if isinstance(stop, Interrupted) or isinstance(stop.__context__, KeyboardInterrupt):
            number = stop.number if isinstance(stop, Interrupted) else signal.SIGINT
            _is_closed()
            raise _end(128 + number) from None
        if own.number is not None and stop.code in (None, 0):  # Lightning's own exception says nothing
            raise _end(128 + own.number) from None
        if _is_closed():
            raise _end(BROKEN_PIPE if not stop.code or stop.code == 1 else stop.code) from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is own:
            for number, handler in before.items():
                if handler is not None:  # one that was not set from Python
                    signal.signal(number, handler)


def end_with_parent() -> None:
    """Let this process end at once with the one that started it: it would go on beside what takes its place."""
    import multiprocessing  # most commands start no process

    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: Any) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)


def end_process(process: "BaseProcess", patience_s: float) -> None:
    """Ask a process to end, wait for what it writes, then end it."""
    process.terminate()
    process.join(patience_s)
    process.kill()
    process.join()


def _end(code: Any) -> SystemExit:
    """Python's own way out; whoever presses Ctrl-C meanwhile has no use for a traceback."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
    return SystemExit(code)


def _is_closed() -> bool:
    """Whether nobody reads the output any more; what is left of it then goes nowhere, also when Python ends."""
    closed = [_let_go(stream) for stream in (sys.stdout, sys.stderr)]
    return any(closed)


def _let_go(stream: Any) -> bool:
    try:
        output = stream.fileno()
    except (OSError, ValueError, AttributeError):  # no file, as in a test or a notebook
        return False
    poll = select.poll()
    poll.register(output, 0)  # errors are told without being asked for
    if not any(events & select.POLLERR for _, events in poll.poll(0)):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, output)
    os.close(nowhere)
    return True
