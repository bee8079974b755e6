"""Scores of objects beside the training: a pool of processes that writes one JSON line for each image.

The pool copies the two label images into memory that it shares with a worker and goes on; ``submit`` waits only while
every worker has its ``SLOTS`` images, so memory is bounded by ``workers * SLOTS`` pairs. The calling process alone
writes the file. There is no thread: lines are written during ``submit``, ``poll`` and ``close``, and the pool belongs
to the thread that made it.

- The file is the same, byte for byte, for any number of workers: ``close`` sorts it by part and id, and a line holds no
  time and no process id.
- A worker that dies is replaced and its images are done again. An image whose worker dies ``ATTEMPTS`` times gets a
  line with an error instead of scores.
- A metric that raises gives a record under ``errors`` with the traceback and no entry under ``metrics``; the other
  metrics of the image are kept. NaN is written as null.
- A file that is killed or interrupted holds whole lines. With ``resume=True`` an image is not done again if its line
  has the same metrics, no error and the checksum of the same arrays; so each image appears once.
"""

import contextlib
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np

from hsl.files.row_file import Key, RowFile
from hsl.metrics.objects.segments import LabelImage, check_same_size
from hsl.metrics.pool.process import WorkerProcess
from hsl.metrics.pool.slot import Array
from hsl.metrics.pool.worker import Job, Metric, checksum, encode

ATTEMPTS = 3


@dataclass(frozen=True)
class PoolSummary:
    """What a pool did.

    ``num_pictures`` lines stand in ``path``, ``num_resumed`` of them taken over from an earlier run.
    ``failed`` names part and id of the pictures with an error record; ``num_replaced`` workers died.
    """

    path: Path
    num_pictures: int
    num_resumed: int
    failed: tuple[Key, ...]
    num_replaced: int


class MetricPool:
    """Scores pictures on other processor cores and writes a line of JSON for each.

    Args:
        path: the file of JSON lines; ``row_file.read_rows`` reads it.
        metrics: name to function. A function is called as ``metric(prediction, target)``, and with those of
            the further arrays given to ``submit`` that it names as parameters; it returns numbers, strings, lists and
            mappings. It is pickled by name: a function of a module, or a ``functools.partial`` of one.
        workers: number of processes, at least 1; ``"auto"``: the processor cores this process may use less one.
        resume: go on with the file at ``path``.

    Raises:
        ValueError: an argument is wrong, a metric cannot be pickled, or the file exists and ``resume`` is false.
        DataError: the file to resume cannot be read.

    Example:
        >>> import tempfile
        >>> from hsl.metrics.objects.clustering import clustering_scores
        >>> from hsl.files.row_file import read_rows
        >>> truth = np.array([[0, 0, 1, 1]])
        >>> path = Path(tempfile.mkdtemp()) / "rows.jsonl"
        >>> with MetricPool(path, {"clustering": clustering_scores}, workers=1) as pool:
        ...     pool.submit("tile_1", prediction=1 - truth, target=truth)
        True
        >>> [row["metrics"]["clustering"]["ari"] for row in read_rows(path)]
        [1.0]
    """

    def __init__(
        self,
        path: Path | str,
        metrics: Mapping[str, Metric],
        workers: int | Literal["auto"] = "auto",
        resume: bool = False,
    ) -> None:
        number = count_workers(workers)
        pickled = _pickle(metrics)
        self._file = RowFile(Path(path), resume=resume, metrics=set(metrics))
        self._num_kept = len(self._file.kept)
        self._submitted: set[Key] = set()
        self._num_written = self._num_resumed = self._num_replaced = self._failed_starts = 0
        self._failed: list[Key] = []
        self._summary: PoolSummary | None = None
        self._workers = [WorkerProcess(pickled) for _ in range(number)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
            return
        try:
            self.close()
        except BaseException:  # Ctrl-C while the last pictures are waited for
            self.abort()
            raise

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that stand now."""
        return [worker.pid for worker in self._workers]

    def submit(self, id: str, prediction: LabelImage, target: LabelImage, part: str = "test", **further: Array) -> bool:
        """Hand a picture over; waits while all workers are busy.

        The arrays may be changed as soon as this returns.

        Args:
            id: name of the picture, once per part.
            prediction: label image ``(H, W)``.
            target: label image ``(H, W)``.
            part: what the picture belongs to, for example ``"test"`` or ``"test/tta"``.
            further: other arrays, for metrics that take them by this name (``target_instances``).

        Returns:
            False if the line of an earlier run stands for it.

        Raises:
            ValueError: sizes differ, the picture was submitted before, or the pool is closed.
            RuntimeError: the workers cannot start.
        """
        key = part, id
        if self._summary is not None:
            raise ValueError("The pool should be open. Found it closed. Make a new one with `resume=True`.")
        if key in self._submitted:
            raise ValueError(f"Each picture should be submitted once per part. Found {id!r} ({part}) twice.")
        check_same_size(prediction, target)
        arrays = {"prediction": _narrow(prediction), "target": _narrow(target), **further}
        self._submitted.add(key)
        if key in self._file.kept:
            if self._file.kept[key] == checksum(arrays):
                self._num_resumed += 1
                return False
            self._file.forget(key)
            self._num_kept -= 1
        self.poll()
        while not (worker := max(self._workers, key=WorkerProcess.num_free)).num_free():
            self._gather(None)
        worker.hand_over(id, part, arrays)
        return True

    def poll(self) -> None:
        """Write the lines that have arrived; never waits."""
        while self._gather(0):
            pass

    def close(self) -> PoolSummary:
        """Wait for the last picture, stop the workers and sort the file.

        Raises:
            RuntimeError: the workers cannot start.
        """
        if self._summary is None:
            while any(worker.pending for worker in self._workers):
                self._gather(None)
            for worker in self._workers:
                worker.stop()
            self._file.close()
            self._file.sort()
            self._summary = self._summarise()
        return self._summary

    def abort(self) -> PoolSummary:
        """Stop at once: kill the workers, keep the lines that are written."""
        if self._summary is None:
            for worker in self._workers:
                worker.kill()
            self._file.close()
            self._summary = self._summarise()
        return self._summary

    def _summarise(self) -> PoolSummary:
        return PoolSummary(
            path=self._file.path,
            num_pictures=self._num_kept + self._num_written,
            num_resumed=self._num_resumed,
            failed=tuple(sorted(self._failed)),
            num_replaced=self._num_replaced,
        )

    def _gather(self, timeout_s: float | None) -> bool:
        """Take one message of each worker that has one; whether there was any."""
        ready = wait([worker.connection for worker in self._workers], timeout_s)
        for worker in [worker for worker in self._workers if worker.connection in ready]:
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):  # its end of the pipe was closed by its death
                self._replace(worker)
                continue
            if worker.is_ready:
                number, failed, line = message
                self._write(worker.finish(number), line, failed)
            elif message is None:
                worker.is_ready, self._failed_starts = True, 0
            else:
                self._fail("A worker cannot load the metrics:\n" + message["traceback"])
        return bool(ready)

    def _write(self, picture: Job, line: bytes, failed: bool) -> None:
        self._file.append(line)
        self._num_written += 1
        if failed:
            self._failed.append((picture.part, picture.id))

    def _replace(self, worker: WorkerProcess) -> None:
        self._num_replaced += 1
        code = worker.bury()
        if not worker.is_ready:
            self._failed_starts += 1
            if self._failed_starts == ATTEMPTS:
                self._fail(f"A worker ended {ATTEMPTS} times before it could begin, with exit code {code}.")
        elif worker.pending and worker.charge() == ATTEMPTS:
            picture = worker.finish(worker.pending[0].number)
            message = f"The worker died {ATTEMPTS} times over this picture, with exit code {code}."
            record = {"worker": {"type": "WorkerDied", "message": message, "traceback": ""}}
            digest = checksum(worker.slots[picture.slot].read(picture.fields))
            self._write(picture, encode(picture.id, picture.part, digest, {}, record), failed=True)
        worker.start()

    def _fail(self, reason: str) -> None:
        self.abort()
        raise RuntimeError(reason)


def count_workers(workers: int | Literal["auto"]) -> int:
    """The number of processes that ``workers`` stands for.

    Raises:
        ValueError: it is neither ``"auto"`` nor a positive integer.

    Example:
        >>> count_workers(3)
        3
    """
    if workers == "auto":
        # A core stays with the training.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, cores - 1)
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise ValueError(f"`workers` should be 'auto' or an integer of at least 1. Found `workers = {workers!r}`.")
    return workers


def _pickle(metrics: Mapping[str, Metric]) -> bytes:
    with contextlib.suppress(pickle.PicklingError, AttributeError, TypeError):
        return pickle.dumps(dict(metrics))
    raise ValueError(
        "`metrics` should be functions of a module, or `functools.partial` of them. "
        f"Found `metrics = {dict(metrics)}`. "
        "A lambda or a function inside a function cannot travel to another process."
    )


def _narrow(labels: LabelImage) -> LabelImage:
    """As bytes if the labels fit: a class mask arrives as int64, eight times as large."""
    if labels.dtype == np.uint8 or not labels.size or labels.min() < 0 or labels.max() > np.iinfo(np.uint8).max:
        return labels
    return labels.astype(np.uint8)
