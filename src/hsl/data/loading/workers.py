"""The processes that load: how many, and how they live beside the process that trains."""

import gc
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import torch

from hsl.errors import ConfigError

logger = logging.getLogger(__name__)

MAX_WORKERS = 8
PREFETCH = 2
_SHARED_MEMORY = Path("/dev/shm")


def rank_and_world() -> tuple[int, int]:
    """Number of this process among those that train together, and how many they are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def choose_num_workers(requested: int | str, num_batches: int, batch_bytes: int, *, forked_only: bool) -> int:
    """How many processes load.

    ``"auto"``: the cores this process may use less the one that trains, shared among the processes of the
    run, at most 8, and so many that each has two batches per epoch; so a tiny data set is loaded by the main
    process. 0 where the RAM cache could not be shared.

    Batches travel through ``/dev/shm``. Where that is too small for the batches under way (containers: 64 MB)
    torch would die with a bus error; then fewer workers are used, and a warning says so.

    Args:
        requested: ``data.num_workers``.
        num_batches: Per epoch.
        batch_bytes: Size of the largest batch.
        forked_only: The data set cannot be sent to a worker that is not forked (RAM cache).
    """
    can_fork = sys.platform == "linux"
    if requested == "auto":
        cores = len(os.sched_getaffinity(0)) if can_fork else os.cpu_count() or 1
        wanted = min(cores // rank_and_world()[1] - 1, MAX_WORKERS, num_batches // 2)
        wanted = 0 if forked_only and not can_fork else max(0, wanted)
    else:
        wanted = int(requested)
        if wanted and forked_only and not can_fork:
            raise ConfigError(
                f"`data.cache = ram` with `data.num_workers = {wanted}` needs forked processes, which "
                f"{sys.platform} does not do safely. Set `data.cache=disk` or `data.num_workers=0`."
            )
    if not wanted or not _SHARED_MEMORY.is_dir():
        return wanted
    # half of what is free: training and validation may have batches under way, and so may other processes
    free = shutil.disk_usage(_SHARED_MEMORY).free // 2
    fitting = max(0, (free // batch_bytes - 1) // PREFETCH)
    if fitting < wanted:
        logger.warning(
            "%s has %.0f MB free, too little for %d workers with batches of %.0f MB: %d used. Enlarge it "
            "(docker: `--shm-size=8g`) or lower `data.batch_size`.",
            _SHARED_MEMORY,
            free * 2 / 1e6,
            wanted,
            batch_bytes / 1e6,
            fitting,
        )
    return min(wanted, fitting)


@contextmanager
def collector_paused() -> Iterator[None]:
    """Around the start of workers, which `start_worker` ends in each of them.

    A forked worker must not collect what the parent has left to its collector: a loader among it would try
    to end workers that are not its children, and say so on the terminal. It also keeps the pages shared.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def start_worker(worker: int) -> None:
    """Run first in each worker: one thread each, and signals are the main process's business.

    SLURM, and Ctrl-C, signal every process of a job. A worker that dies of it would turn the orderly end into
    a crash, and a forked one would run the trainer's own handlers.
    """
    del worker
    gc.freeze()
    gc.enable()
    cv2.setNumThreads(0)
    for ignored in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, ignored):
            signal.signal(getattr(signal, ignored), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent_only, args=(os.getppid(),), daemon=True).start()


def _end_with_parent_only(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
