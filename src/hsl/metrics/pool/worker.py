"""The other end of the metric pool: a process that scores one picture after another.

It is started as a fresh interpreter, not forked, so it may stand beside a parent that uses an accelerator,
and it imports neither torch nor the parent's main script.
"""

import contextlib
import inspect
import json
import os
import pickle
import signal
import traceback
import zlib
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from hsl.metrics.pool.slot import Array, Field, Slot

Metric: TypeAlias = Callable[..., Any]
PAIR = ("prediction", "target")
PARENT_CHECK_S = 1.0


class Job(NamedTuple):
    """What the pool tells a worker about one picture."""

    number: int
    id: str
    part: str
    slot: int
    fields: list[Field]


class Caught:
    """Keeps an exception as a record: in a ``with`` block, what is raised ends the block and nothing else.

    This is the one place where any exception is data: it must neither stop the other pictures nor pass for
    a score.
    """

    def __init__(self) -> None:
        self.record: dict[str, str] | None = None

    def __enter__(self) -> "Caught":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        if kind is None or error is None or not issubclass(kind, Exception):
            return False
        lines = traceback.format_exception(error)
        self.record = {"type": kind.__name__, "message": str(error), "traceback": "".join(lines)}
        return True


def serve(connection_descriptor: int, slot_descriptors: list[int]) -> None:
    """Score pictures until the pool says stop or is gone.

    The first message holds the pickled metrics, each further one a ``Job`` or ``None`` to stop; the answers are the
    line for the file and whether it holds errors.
    """
    # Signals go to the whole process group; the pool decides when its workers stop.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(5)  # the training beside us comes first
    connection = Connection(connection_descriptor)
    slots = [Slot(descriptor) for descriptor in slot_descriptors]
    parent = os.getppid()
    metrics: dict[str, Metric] = {}
    with Caught() as start:
        _use_one_thread()
        metrics = pickle.loads(connection.recv_bytes())
    with contextlib.suppress(ConnectionError):  # the pool is gone: nobody waits for an answer
        connection.send(start.record)
        while start.record is None and (picture := _receive(connection, parent)) is not None:
            line, failed = score_image(picture, slots[picture.slot].read(picture.fields), metrics)
            connection.send((picture.number, failed, line))


def score_image(picture: Job, arrays: Mapping[str, Array], metrics: Mapping[str, Metric]) -> tuple[bytes, bool]:
    """Apply every metric to one picture.

    A metric is called with ``prediction`` and ``target`` and with those of the further arrays that it names as
    parameters.

    Returns:
        The JSON line, and whether a metric failed.
    """
    results: dict[str, Any] = {}
    errors: dict[str, Any] = {}
    for name, metric in metrics.items():
        with Caught() as attempt:
            wanted = inspect.signature(metric).parameters
            further = {key: value for key, value in arrays.items() if key in wanted and key not in PAIR}
            results[name] = json_ready(metric(arrays["prediction"], arrays["target"], **further))
        if attempt.record is not None:
            errors[name] = attempt.record
    return encode(picture.id, picture.part, checksum(arrays), results, errors), bool(errors)


def encode(
    id: str, part: str, digest: str, metrics: Mapping[str, Any], errors: Mapping[str, Mapping[str, str]]
) -> bytes:
    """One line of the file, without timings or process ids: it is the same whoever wrote it."""
    row = {"id": id, "part": part, "checksum": digest, "metrics": metrics, "errors": errors}
    return json.dumps(row, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def json_ready(value: Any) -> Any:
    """The value in JSON's own types; NaN, which says "not scored", becomes ``None``.

    Raises:
        TypeError: JSON has no word for the type.
        ValueError: a number is infinite: that is no score.

    Example:
        >>> json_ready({"hd95": np.array([1.5, np.nan]), "n": np.int64(3)})
        {'hd95': [1.5, None], 'n': 3}
    """
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return json_ready(value.tolist())
    if isinstance(value, float):
        if np.isinf(value):
            raise ValueError(f"A metric should be finite, or NaN where it is not scored. Found {value}.")
        return None if np.isnan(value) else value
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"A metric should return numbers, strings, lists and mappings. Found {type(value).__name__}.")


def checksum(arrays: Mapping[str, Array]) -> str:
    """CRC-32 over names, types, shapes and bytes: tells on resume whether a line belongs to these arrays.

    Example:
        >>> checksum({"target": np.zeros((2, 2), dtype=np.uint8)})
        '78745e1b'
    """
    value = 0
    for name, array in sorted(arrays.items()):
        value = zlib.crc32(f"{name}{array.dtype.str}{array.shape}".encode(), value)
        value = zlib.crc32(np.ascontiguousarray(array).data, value)
    return f"{value:08x}"


def _receive(connection: Connection, parent: int) -> Job | None:
    try:
        # A process forked from the parent may hold the pool's end open after its death: ask for it too.
        while not connection.poll(PARENT_CHECK_S):
            if os.getppid() != parent:
                return None
        picture: Job | None = connection.recv()
    except EOFError:
        return None
    return picture


def _use_one_thread() -> None:
    import cv2  # here, because the pool's process imports this file too and has no need of OpenCV

    cv2.setNumThreads(1)
