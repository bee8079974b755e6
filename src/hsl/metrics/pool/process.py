"""The pool's side of one worker: its process, its pipe, its slots and the pictures it still owes."""

import contextlib
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from hsl.metrics.pool.slot import Array, Slot
from hsl.metrics.pool.worker import Job

SLOTS = 8  # a batch is handed over without waiting for its first picture to be scored
STOP_TIMEOUT_S = 10.0
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from hsl.metrics.pool.worker import serve
serve(int(sys.argv[2]), json.loads(sys.argv[3]))
"""

_numbers = itertools.count()


class WorkerProcess:
    """A worker that can be started anew with the pictures it still owes.

    Args:
        metrics: the pickled metrics.

    Attributes:
        slots: memory shared with the worker; it outlives the process.
        pending: pictures handed over and not answered, in the order in which the worker takes them.
        is_ready: whether the process has loaded the metrics.
    """

    def __init__(self, metrics: bytes) -> None:
        self._metrics = metrics
        self._attempts: dict[int, int] = {}
        self.slots = [Slot() for _ in range(SLOTS)]
        self.pending: deque[Job] = deque()
        self.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def start(self) -> None:
        """Start the process and hand it what it owes."""
        self.is_ready = False
        self.connection, theirs = multiprocessing.Pipe()
        descriptors = [slot.descriptor for slot in self.slots]
        arguments = [
            json.dumps([folder or str(Path.cwd()) for folder in sys.path]),
            str(theirs.fileno()),
            json.dumps(descriptors),
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno(), *descriptors],
            env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")},
        )
        # With our copy closed the pipe ends when the process does: that is how a death is noticed.
        theirs.close()
        with contextlib.suppress(ConnectionError):
            self.connection.send_bytes(self._metrics)
        for picture in self.pending:
            self._send(picture)

    def num_free(self) -> int:
        """How many more pictures it can take."""
        return SLOTS - len(self.pending)

    def hand_over(self, id: str, part: str, arrays: Mapping[str, Array]) -> None:
        """Copy a picture into a free slot and tell the process."""
        free = min(set(range(SLOTS)) - {picture.slot for picture in self.pending})
        picture = Job(next(_numbers), id, part, free, self.slots[free].write(arrays))
        self.pending.append(picture)
        self._send(picture)

    def finish(self, number: int) -> Job:
        """Take the picture with this number off the list; its slot is free again."""
        picture = next(picture for picture in self.pending if picture.number == number)
        self.pending.remove(picture)
        self._attempts.pop(number, None)
        return picture

    def charge(self) -> int:
        """Note that the process died over the picture it was at; how often that happened."""
        number = self.pending[0].number
        self._attempts[number] = self._attempts.get(number, 0) + 1
        return self._attempts[number]

    def bury(self) -> int:
        """Close what is left of a process whose end of the pipe is closed; the slots stay.

        Returns:
            Its exit code, negative for a signal.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT_S)
        self._process.kill()
        self.connection.close()
        return self._process.wait()

    def stop(self) -> None:
        """Let the process end by itself, then free the slots."""
        self._send(None)
        self.bury()
        self._free_slots()

    def kill(self) -> None:
        """End the process now and free the slots."""
        self._process.kill()
        self.bury()
        self._free_slots()

    def _free_slots(self) -> None:
        for slot in self.slots:
            slot.close()

    def _send(self, picture: Job | None) -> None:
        # A process that died meanwhile is replaced when its end of the pipe is read, and told again then.
        with contextlib.suppress(ConnectionError):
            self.connection.send(picture)
