"""From a data set to the trainer: the order of an epoch, who takes which share, and where to go on from."""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from hsl.batch import Batch, Sample
from hsl.data.loading.dataset import Key, PictureDataset, collate
from hsl.data.loading.workers import PREFETCH, collector_paused, rank_and_world, start_worker
from hsl.errors import ConfigError, DataError


class BatchOrder(Sampler[list[Key]]):
    """Yields batches of (epoch, index), or with ``chances`` of (epoch, index, times the picture came before).

    In training the order is drawn from (seed, epoch), cut into batches of ``batch_size``, and each process
    takes its share of every batch. So ``batch_size`` is the effective batch whatever the number of processes,
    and several of them see in each step the pictures that one alone would see. The incomplete batch at the
    end is left out, unless it is the only one: a batch of one picture leaves nothing to normalise over in a
    batch norm after global pooling, and a smaller batch would count its pictures more than the others.

    Of a stream (``blocks``) the order of an epoch is drawn in two steps: the blocks in random order with their pictures
    mixed, then every picture up to ``buffer`` places later. It follows from (seed, epoch) as any other order does, so a
    resumed run goes on with the same pictures, bit for bit: nothing that was in a buffer is lost.

    At evaluation every picture comes once, in order; the shares of the processes differ by at most one
    picture. Where they keep their own sizes (``sizes``), a batch ends where the size changes. A process that is left
    without a picture looks at the first one, which the others count (`spare`): it has to take part in what they do.

    Rank and number of processes are read when the iteration starts: the process group does not exist before.

    Args:
        num_pictures: Length of the data set.
        batch_size: Pictures per batch, over all processes.
        shuffle: Training order; otherwise evaluation.
        seed: The run's seed.
        sizes: At evaluation ``(N, 2)``: height and width of the pictures that a batch can only stack if they are
            alike; ``None``: all are.
        chances: In training ``(N,)``: pictures are drawn with replacement, each with its chance; ``None``: every
            picture comes once.
        blocks: In training of a stream ``(N,)``: the block of each picture; ``None``: any can be read at any time.
        buffer: Places by which a picture of a stream moves at most.
    """

    def __init__(
        self,
        num_pictures: int,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int,
        sizes: np.ndarray[Any, np.dtype[np.int64]] | None = None,
        chances: np.ndarray[Any, np.dtype[np.float64]] | None = None,
        blocks: np.ndarray[Any, np.dtype[np.int64]] | None = None,
        buffer: int = 0,
    ) -> None:
        self.num_pictures, self.batch_size, self.shuffle, self.seed = num_pictures, batch_size, shuffle, seed
        self._sizes = np.zeros((num_pictures, 2), np.int64) if sizes is None else sizes
        self._chances, self._blocks, self.buffer = chances, blocks, buffer
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches of this process in a whole epoch.

        Raises:
            ConfigError: The processes cannot share the pictures.
        """
        rank, world = rank_and_world()
        self._check(world)
        if self.shuffle:
            return max(1, self.num_pictures // self.batch_size) if self.num_pictures else 0
        return len(self._batches(rank, world))

    def __iter__(self) -> Iterator[list[Key]]:
        """Begins with the batch number ``start``."""
        rank, world = rank_and_world()
        for batch in self._batches(rank, world)[self.start : len(self)]:
            yield [(self.epoch, *map(int, row)) for row in batch]

    def _batches(self, rank: int, world: int) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
        share, step = self._share(rank, world), self.batch_size // world
        alike = [share] if self.shuffle else np.split(share, _changes(self._sizes[share[:, 0]]))
        return [run[start : start + step] for run in alike for start in range(0, len(run), step)]

    @property
    def spare(self) -> bool:
        """Whether this process has no picture of its own."""
        return not self.shuffle and 0 < self.num_pictures <= rank_and_world()[0]

    def _share(self, rank: int, world: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        if not self.shuffle:
            own = np.arange(rank, self.num_pictures, world)[:, None]
            return np.zeros((min(1, self.num_pictures), 1), np.int64) if not len(own) else own
        rng = np.random.default_rng((self.seed, self.epoch))
        if self._blocks is not None:
            order = _streamed(self._blocks, self.buffer, rng)[:, None]
        elif self._chances is None:
            order = rng.permutation(self.num_pictures)[:, None]
        else:
            drawn = pd.Series(rng.choice(self.num_pictures, self.num_pictures, p=self._chances))
            order = np.stack([drawn, drawn.groupby(drawn).cumcount()], axis=1)  # each time it is augmented anew
        return order[: len(order) // world * world][rank::world]

    def _check(self, world: int) -> None:
        if self.batch_size % world:
            raise ConfigError(
                f"`data.batch_size` is shared by all processes and should be a multiple of their number, "
                f"{world}. Found `data.batch_size = {self.batch_size}`."
            )
        if self.shuffle and 0 < self.num_pictures < world:
            raise ConfigError(
                f"{world} processes cannot share {self.num_pictures} picture(s). "
                "Use fewer processes (`trainer.devices`)."
            )


def _streamed(
    blocks: np.ndarray[Any, np.dtype[np.int64]], buffer: int, rng: np.random.Generator
) -> np.ndarray[Any, np.dtype[np.int64]]:
    _, block = np.unique(blocks, return_inverse=True)
    turn = rng.permutation(block.max(initial=0) + 1)[block]
    order = np.lexsort((rng.random(len(blocks)), turn))
    return np.asarray(order[np.argsort(np.arange(len(order)) + rng.uniform(0, buffer, len(order)), kind="stable")])


def _changes(sizes: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.flatnonzero((sizes[1:] != sizes[:-1]).any(axis=1)) + 1


class Loader:
    """Batches of a data set, epoch after epoch; it knows how far the trainer has come and can go on from
    there.

    Nothing happens before the first batch is asked for: Lightning makes the iterator of an epoch before it
    tells the sampler which epoch it is. (torch's ``DataLoader`` would by then have sent the first indices to
    its workers.)

    A ``UserError`` in a worker arrives as it was raised, not as a traceback inside a ``RuntimeError``.

    Args:
        dataset: Where the samples come from.
        order: Which samples, in which batches.
        num_workers: Processes that load; 0 loads in this one.
        num_processed: Says how many batches of the epoch under way the trainer has finished. Without it every
            batch that was handed out counts as finished.
        on_broken: Called with the error of each picture that cannot be read; the batch then comes without it.
            Default: the error is raised.
    """

    def __init__(
        self,
        dataset: PictureDataset,
        order: BatchOrder,
        *,
        num_workers: int = 0,
        num_processed: Callable[[], int] | None = None,
        on_broken: Callable[[DataError], None] | None = None,
    ) -> None:
        self.dataset = dataset
        self.sampler = self.batch_sampler = order  # Lightning looks for `set_epoch` under these names
        self._num_processed, self._on_broken = num_processed, on_broken
        self._epoch, self._given, self._resumed = 0, 0, False
        # fork, not what Python would choose: only forked workers see the RAM cache
        context = "fork" if num_workers and sys.platform == "linux" else None
        self._loader: DataLoader[Any] = DataLoader(
            _Fetch(dataset),
            batch_sampler=order,
            num_workers=num_workers,
            collate_fn=_collate_readable,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=start_worker,
            prefetch_factor=PREFETCH if num_workers else None,
            persistent_workers=num_workers > 0,
            multiprocessing_context=context,
            # Its own generator: each new iterator draws a number, and a resumed run makes one more of them.
            generator=torch.Generator(),
        )

    @property
    def _iterator(self) -> Any:
        """What holds the workers. By this name Lightning ends them after the last epoch."""
        return self._loader._iterator

    @_iterator.setter
    def _iterator(self, iterator: Any) -> None:
        self._loader._iterator = iterator

    @property
    def num_workers(self) -> int:
        """Processes that load."""
        return self._loader.num_workers

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.sampler.epoch
        start = self._given if self._resumed and self._epoch == epoch else 0
        self._epoch, self._given, self._resumed = epoch, start, False
        self.sampler.start = start
        with collector_paused():
            batches = iter(self._loader)
        for batch, errors in batches:
            while errors:
                if self._on_broken is None:
                    raise errors.pop(0)  # not kept in a variable: the cycle would keep the workers alive
                self._on_broken(errors.pop(0))
            self._given += 1
            if batch is not None:
                if self.sampler.spare:
                    batch["spare"] = True
                yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch under way, how many of its batches are done, and what its order depends on."""
        done = self._given if self._num_processed is None else min(self._given, self._num_processed())
        return {"epoch": self._epoch, "batches": done, **self._identity()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """The next iteration, if it is of the stored epoch, begins after the batches that were done.

        Raises:
            ConfigError: The order of the pictures is not the one of the stored run.
        """
        for name, value in self._identity().items():
            if state_dict.get(name, 0) != value:
                raise ConfigError(
                    f"The checkpoint was made with `{name} = {state_dict.get(name, 0)}`, this run has "
                    f"`{name} = {value}`, so it cannot go on within the epoch. Resume with the same data and "
                    "settings, or start a new run."
                )
        self._epoch, self._given, self._resumed = state_dict["epoch"], state_dict["batches"], True

    def _identity(self) -> dict[str, int]:
        order = self.sampler
        return {
            "num_pictures": order.num_pictures, "batch_size": order.batch_size, "seed": order.seed,
            "shuffle_buffer": order.buffer,
        }  # fmt: skip


class _Fetch(Dataset[Any]):
    """Fetches the samples of a batch; a picture that cannot be read becomes its error instead of a sample."""

    def __init__(self, dataset: PictureDataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitems__(self, keys: Sequence[Key]) -> list[Sample | DataError]:
        self._dataset.expect(keys)
        return [self._sample(key) for key in keys]

    def _sample(self, key: Key) -> Sample | DataError:
        try:
            return self._dataset[key]
        except DataError as error:
            return error


def _collate_readable(samples: Sequence[Sample | DataError]) -> tuple[Batch | None, list[DataError]]:
    readable = [sample for sample in samples if not isinstance(sample, DataError)]
    errors = [sample for sample in samples if isinstance(sample, DataError)]
    return (collate(readable) if readable else None), errors
