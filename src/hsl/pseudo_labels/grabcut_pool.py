"""GrabCut on many pictures, in several processes."""

import multiprocessing
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
from numpy.typing import NDArray

from hsl.data.files.decoding import Decoding
from hsl.data.files.reading import start_reader
from hsl.data.files.records import Record
from hsl.errors import DataError
from hsl.pseudo_labels.grabcut import ColourSeeds, UnseededError, grabcut_votes

Votes = NDArray[np.float32]


def grabcut_each(
    records: Sequence[Record], seeds: ColourSeeds, classes: Sequence[str], decoding: Decoding, workers: int
) -> Iterator[Votes | None]:
    """Votes of every picture, in the order of the records.

    At most ``2 * workers`` pictures are under way, whatever the size of the data set.

    Args:
        records: the pictures.
        seeds: the colours.
        classes: C class names, the background first.
        decoding: how they are decoded.
        workers: processes; 1 works in this one.

    Yields:
        ``float32 (C, H, W)``; ``None`` for a picture without a pixel in the colours of the seeds.

    Raises:
        DataError: a picture cannot be read, or a process was killed.
    """
    if workers <= 1 or len(records) <= 1:
        yield from (_votes(record, seeds, classes, decoding) for record in records)
        return
    # not fork: see hsl.data.files.reading
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    pool = ProcessPoolExecutor(min(workers, len(records)), mp_context=context, initializer=start_reader)
    pending: deque[Future[Votes | None]] = deque()
    try:
        for record in records:
            pending.append(pool.submit(_votes, record, seeds, classes, decoding))
            if len(pending) >= 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            "A process of GrabCut was killed, most likely for want of memory. Use fewer: `workers=1`."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _votes(record: Record, seeds: ColourSeeds, classes: Sequence[str], decoding: Decoding) -> Votes | None:
    image = decoding.image(record.image)
    try:
        return grabcut_votes(image, seeds, classes)
    except UnseededError:
        return None
