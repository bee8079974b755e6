"""Reading every picture and mask of a data set once, in one process or several."""

import functools
import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hsl.console import PlainConsole
from hsl.data.files.decode import StoredImage, read_stored
from hsl.data.files.decoding import Decoding
from hsl.data.files.headers import check_png
from hsl.data.files.records import IndexMask, PaintedSource, Record
from hsl.errors import DataError
from hsl.terminal import visible

THUMBNAIL = 64
FLAT = 2.0
"""Standard deviation, in grey levels of 255, below which a picture is called constant or nearly so."""
SHARPNESS_SIDE = 512
CHUNK = 16
JUDGE_AFTER_S = 2.0
POOL_PAYS_S = 20.0

S = TypeVar("S")
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Reading:
    """What was found in one record; the fields are the rows of `hsl.data.files.scan.Scan`."""

    content: str
    mask_content: str
    image_size: tuple[int, int]
    mask_size: tuple[int, int]
    class_counts: NDArray[np.int64]
    thumbnail: NDArray[np.uint8]
    largest: int = 0
    frames: int = 0
    contrast: float = 0.0
    overlap: int = 0
    sharpness: float = 0.0
    brightness: float = 0.0
    error: str = ""


def read_record(record: Record, how: Decoding) -> Reading:
    """Read and decode a picture and its mask; what cannot be read ends up in ``error``."""
    nothing = np.zeros((THUMBNAIL, THUMBNAIL), np.uint8)
    reading = Reading("", "", (0, 0), (0, 0), np.zeros(256, np.int64), nothing)
    errors = []
    for read in (_read_image, _read_mask):
        try:
            read(record, how, reading)
        except DataError as error:
            errors.append(str(error))
    reading.error = " ".join(errors)
    return reading


def _read_image(record: Record, how: Decoding, reading: Reading) -> None:
    data = record.image.read()
    reading.content = hashlib.sha256(data).hexdigest()
    name = record.image.name
    if how.bands is not None:
        image = how.image_of(data, name)
        reading.image_size = image.shape[0], image.shape[1]
        reading.thumbnail, reading.frames = make_thumbnail(how.bands.rgb(image)), 1
        reading.contrast = float(image.std(axis=(0, 1)).max())
        return
    stored = read_stored(data, name, how.max_megapixels)
    if stored.header.kind == "PNG":
        check_png(data, name)
    image = stored.to_rgb(name, how.value_range)
    reading.image_size = image.shape[0], image.shape[1]
    reading.thumbnail = make_thumbnail(image) if stored.pixels.dtype == np.uint8 else _stretched_thumbnail(stored)
    reading.largest, reading.frames, reading.contrast = stored.largest, stored.header.frames, contrast(image)
    reading.sharpness, reading.brightness = sharpness(image), float(image.mean())


def _read_mask(record: Record, how: Decoding, reading: Reading) -> None:
    if record.mask is None:
        return
    data = record.mask.read()
    reading.mask_content = hashlib.sha256(data).hexdigest()
    mask = how.mask_of(data, record.mask)
    reading.mask_size = mask.shape[0], mask.shape[1]
    reading.class_counts = np.bincount(mask.ravel(), minlength=256).astype(np.int64)
    source = record.mask.source if isinstance(record.mask, IndexMask) else record.mask
    if isinstance(source, PaintedSource):
        reading.overlap = source.overlap()


def make_thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``uint8 (H, W, 3)`` RGB -> ``uint8 (64, 64)`` grey by averaging areas; the aspect ratio is not kept."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    size = (THUMBNAIL, THUMBNAIL)
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _stretched_thumbnail(stored: StoredImage) -> NDArray[np.uint8]:
    """The same of deeper numbers, from their own darkest to their own brightest place: whatever becomes black and
    white, the thumbnail shows the scene."""
    numbers = stored.pixels if stored.pixels.dtype == np.uint16 else stored.pixels.astype(np.float32)
    grey = numbers if numbers.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(numbers), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).astype(np.float64)
    small -= small.min()
    scaled: NDArray[np.uint8] = np.rint(small * (255 / max(small.max(), np.finfo(float).tiny))).astype(np.uint8)
    return np.subtract(255, scaled) if stored.white_is_zero else scaled


def contrast(image: NDArray[np.uint8]) -> float:
    """Standard deviation of the channel of an RGB picture that varies most, of 255."""
    return float(cv2.meanStdDev(image)[1].max())


def sharpness(image: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of the grey picture (Pech-Pacheco et al. 2000), its longer side reduced to 512 pixels.

    The less a picture is in focus, the fewer edges it has and the smaller the variance; so it is small of a picture
    that shows a smooth thing, too.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = SHARPNESS_SIDE / max(grey.shape)
    if scale < 1:
        size = max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale))
        grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())


def read_records(title: str, records: Sequence[Record], how: Decoding, workers: int) -> Iterator[Reading]:
    """What `read_record` finds in each record; see `read_each`."""
    return read_each(title, records, functools.partial(read_record, how=how), workers)


def read_each(title: str, records: Sequence[Record], read: Callable[[Record], T], workers: int) -> Iterator[T]:
    """Results in the order of the records, with a progress bar on a terminal.

    Args:
        title: What the progress bar calls it.
        records: What to read.
        read: Reads one of them; can be pickled.
        workers: Processes. Up to 1 reads in this one; more start where, judged after 2 seconds, the rest
            would take it longer than 20, so that a small data set does not wait for them.

    Raises:
        DataError: A worker was killed.
    """
    console = PlainConsole(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(visible(title), total=len(records))
        start, done = time.monotonic(), 0
        while done < len(records):
            yield read(records[done])
            done += 1
            progress.advance(task)
            elapsed = time.monotonic() - start
            rest = elapsed / done * (len(records) - done)
            if workers > 1 and elapsed > JUDGE_AFTER_S and rest > POOL_PAYS_S:
                break
        killed = (
            "A process that reads pictures was killed, most likely for want of memory. Read with fewer processes: "
            "`data.num_workers=1`."
        )
        if done < len(records):
            for reading in in_processes(read, records[done:], workers, killed, CHUNK):
                yield reading
                progress.advance(task)


def in_processes(work: Callable[[S], T], items: Sequence[S], workers: int, killed: str, chunk: int = 1) -> Iterator[T]:
    """``map(work, items)`` in a pool of processes, in order.

    At most ``2 * workers`` chunks are under way, whatever the number of items. joblib's generator does not keep that
    (with a slow consumer all of 300 items were done and held after 10 s), and its processes outlive a killed parent
    (for more than 60 s), where ours end with it.

    Args:
        work: Done on one item; it and the items can be pickled.
        items: At least one.
        workers: Processes; up to 1 works in this one.
        killed: What to say where a process was killed.
        chunk: Items that are sent together.

    Raises:
        DataError: A process was killed.
    """
    if workers <= 1:
        yield from map(work, items)
        return
    # Not fork: a forked child inherits locks that threads hold here (torch, OpenCV, arrow), for ever.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([getattr(work, "func", work).__module__])
    chunks = [items[start : start + chunk] for start in range(0, len(items), chunk)]
    pool = ProcessPoolExecutor(min(workers, len(chunks)), mp_context=context, initializer=_start_worker)
    pending: deque[Future[list[T]]] = deque()
    try:
        for each in chunks:
            pending.append(pool.submit(_work_on, work, each))
            if len(pending) >= 2 * workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(killed) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _work_on(work: Callable[[S], T], items: Sequence[S]) -> list[T]:
    return [work(item) for item in items]


def _start_worker() -> None:
    """Run first in a process of a pool: one thread, signals ignored, and it ends with its parent."""
    cv2.setNumThreads(1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # they reach the whole group; the parent decides
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    """Ends this worker with its parent.

    Each worker holds its own queue open, so after SIGKILL of the parent it would wait for work for ever.
    """
    wait([sentinel])
    os._exit(1)
