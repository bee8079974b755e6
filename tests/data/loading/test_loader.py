import gc
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import multiprocessing

from hsl.batch import Batch, Sample
from hsl.data.files.decoding import Decoding, Picture
from hsl.data.files.records import Record
from hsl.data.loading import loader as module
from hsl.data.loading import workers
from hsl.data.loading.cache import PictureCache
from hsl.data.loading.dataset import Key, PictureDataset
from hsl.data.loading.loader import BatchOrder, Loader
from hsl.data.loading.transforms import training_transform
from hsl.data.loading.workers import choose_num_workers, collector_paused, rank_and_world
from hsl.errors import ConfigError, DataError

NUM_PICTURES = 11
linux = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")


class Numbers(PictureDataset):
    """Without pictures: every sample tells its key. Some cannot be read."""

    def __init__(self, length: int = NUM_PICTURES, broken: Sequence[int] = ()) -> None:
        self.length, self.broken = length, broken

    def __len__(self) -> int:
        return self.length

    def expect(self, keys: Sequence[Key]) -> None:
        pass

    def __getitem__(self, key: Key) -> Sample:
        if key[1] in self.broken:
            raise DataError(f"`{key[1]}.png` is cut off.")
        return {
            "id": str(key[1]),
            "image": torch.full((3, 1, 1), key[0], dtype=torch.uint8),
            "masks": {},
            "size": (1, 1),
        }


def order(length: int = NUM_PICTURES, batch_size: int = 2, shuffle: bool = True, seed: int = 0) -> BatchOrder:
    return BatchOrder(length, batch_size, shuffle=shuffle, seed=seed)


def indices(batches: Any) -> list[list[int]]:
    return [[index for _, index in batch] for batch in batches]


def ids(loader: Loader, epoch: int) -> list[list[str]]:
    loader.sampler.set_epoch(epoch)
    return [batch["id"] for batch in loader]


def as_process(monkeypatch: pytest.MonkeyPatch, rank: int, world: int) -> None:
    monkeypatch.setattr(module, "rank_and_world", lambda: (rank, world))


def test_training_order_is_drawn_from_seed_and_epoch() -> None:
    sampler = order()
    first = indices(sampler)
    assert [len(batch) for batch in first] == [2] * 5  # the eleventh is left out
    assert len({index for batch in first for index in batch}) == 10
    assert indices(sampler) == indices(order()) == first
    assert all(epoch == 0 for batch in sampler for epoch, _ in batch)
    sampler.set_epoch(1)
    assert indices(sampler) != first
    assert all(epoch == 1 for batch in sampler for epoch, _ in batch)
    assert indices(order(seed=1)) != first


def test_every_picture_is_seen_over_the_epochs() -> None:
    sampler, seen = order(), set()
    for epoch in range(20):
        sampler.set_epoch(epoch)
        seen |= {index for batch in indices(sampler) for index in batch}
    assert seen == set(range(NUM_PICTURES))


def test_incomplete_batch_is_kept_if_it_is_the_only_one() -> None:
    (batch,) = indices(order(3, batch_size=8))
    assert sorted(batch) == [0, 1, 2]
    assert len(order(3, batch_size=8)) == 1
    assert len(order(8, batch_size=8)) == len(order(15, batch_size=8)) == 1


def test_evaluation_is_every_picture_once_in_order() -> None:
    sampler = order(batch_size=4, shuffle=False)
    assert indices(sampler) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert len(sampler) == 3


@pytest.mark.parametrize(("length", "batch_size", "world"), [(11, 4, 2), (3, 8, 2), (29, 6, 3), (5, 6, 3)])
def test_processes_share_each_batch(monkeypatch: pytest.MonkeyPatch, length: int, batch_size: int, world: int) -> None:
    alone = indices(order(length, batch_size))
    shares = []
    for rank in range(world):
        as_process(monkeypatch, rank, world)
        shares.append(indices(order(length, batch_size)))
        assert len(order(length, batch_size)) == len(alone)
    assert len({tuple(len(batch) for batch in share) for share in shares}) == 1  # equal lengths
    for step, batch in enumerate(alone):
        together = [index for share in shares for index in share[step]]
        assert len(set(together)) == len(together)
        assert set(together) <= set(batch)
        assert len(batch) - len(together) < world
        if length >= batch_size:
            assert sorted(together) == sorted(batch)


@pytest.mark.parametrize("length", [2, 7, 8, 11])
def test_processes_evaluate_without_duplicates(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    together: list[int] = []
    for rank in range(2):
        as_process(monkeypatch, rank, 2)
        share = indices(order(length, 4, shuffle=False))
        assert len(order(length, 4, shuffle=False)) == len(share)
        assert all(len(batch) <= 2 for batch in share)
        together += [index for batch in share for index in batch]
    assert sorted(together) == list(range(length))


@pytest.mark.parametrize(
    ("length", "message"),
    [(9, r"multiple of their number, 3\. Found `data\.batch_size = 4`"), (2, "3 processes cannot share 2")],
)
def test_processes_that_cannot_share(monkeypatch: pytest.MonkeyPatch, length: int, message: str) -> None:
    as_process(monkeypatch, 0, 3)
    with pytest.raises(ConfigError, match=message):
        len(order(length, 4 if length == 9 else 3))


def test_a_process_without_a_picture_looks_at_one_that_another_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for rank, spare in enumerate((False, False, True)):
        as_process(monkeypatch, rank, 3)
        own = order(2, 3, shuffle=False)
        assert own.spare is spare
        assert indices(own) == [[rank % 2]]
        assert [batch.get("spare", False) for batch in Loader(Numbers(), own)] == [spare]


def test_sampler_may_learn_its_epoch_after_the_iterator_is_made() -> None:
    """As in Lightning, which calls ``iter`` first."""
    loader = Loader(Numbers(), order())
    loader.sampler.set_epoch(0)
    iterator = iter(loader)
    loader.sampler.set_epoch(7)
    assert next(iterator)["image"].unique().tolist() == [7]


@linux
def test_number_of_workers_changes_nothing() -> None:
    random = np.random.default_rng(0)
    images = [random.integers(0, 255, (40, 30, 3), dtype=np.uint8) for _ in range(NUM_PICTURES)]
    sizes = np.full((NUM_PICTURES, 2), (40, 30))

    class Source:
        name = "memory"

        def read(self) -> bytes:
            return b""

        def stamp(self) -> str:
            return ""

    def decode(record: Record) -> Picture:
        image = images[int(record.id)]
        return Picture(image, image[..., 0] // 64)

    records = [Record(str(i), Source(), Source(), None, {}, None) for i in range(NUM_PICTURES)]
    found: list[list[Batch]] = []
    for num_workers in (0, 1, 2):
        transform = training_transform(
            (24, 24),
            flips={"horizontal": 0.5, "vertical": 0.5},
            rot90={"probability": 0.5},
            resized_crop={"scale": (0.5, 1), "ratio": (0.8, 1.2)},
            rotation={"degrees": 10, "fill": 0, "probability": 0.5},
            colour={
                "brightness": 0.2,
                "contrast": 0.2,
                "saturation": 0.2,
                "hue": 0.1,
                "probability": 0.5,
            },
            blur={"sigma": (0.5, 1), "probability": 0.5},
        )
        cache = PictureCache(records, sizes, sizes, decode, kind="ram", gigabytes=1)
        dataset = PictureDataset([r.id for r in records], cache, range(NUM_PICTURES), transform, head="a", seed=5)
        loader = Loader(dataset, order(), num_workers=num_workers)
        assert loader.num_workers == num_workers
        batches: list[Batch] = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            batches += loader
        found.append(batches)
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            assert one["id"] == other["id"]
            assert torch.equal(one["image"], other["image"])
            assert torch.equal(one["masks"]["a"], other["masks"]["a"])


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=linux)])
@pytest.mark.parametrize("done", [0, 1, 3, 5])
def test_resumed_epoch_goes_on_with_the_next_batch(done: int, num_workers: int) -> None:
    uninterrupted = Loader(Numbers(), order())
    expected = ids(uninterrupted, 4)
    stopped = Loader(Numbers(), order(), num_workers=num_workers)
    stopped.sampler.set_epoch(4)
    iterator = iter(stopped)
    assert [next(iterator)["id"] for _ in range(done)] == expected[:done]
    resumed = Loader(Numbers(), order(), num_workers=num_workers)
    if done:
        resumed.load_state_dict(stopped.state_dict())
    assert ids(resumed, 4) == expected[done:]
    assert resumed.state_dict()["batches"] == 5
    assert len(resumed) == 5  # of the whole epoch: the trainer counts the batches before the stop too
    assert ids(resumed, 4) == expected
    assert ids(resumed, 5) == ids(uninterrupted, 5)


def test_state_is_what_the_trainer_has_finished() -> None:
    finished = 0
    loader = Loader(Numbers(), order(), num_processed=lambda: finished)
    iterator = iter(loader)
    next(iterator)
    assert loader.state_dict()["batches"] == 0  # handed out, its step not done
    finished = 1
    assert loader.state_dict()["batches"] == 1
    next(iterator)
    assert loader.state_dict()["batches"] == 1
    finished = 5  # what the trainer still says at the start of the next epoch
    loader.sampler.set_epoch(1)
    next(iter(loader))
    assert loader.state_dict() | {"num_pictures": 0} == {
        "epoch": 1,
        "batches": 1,
        "num_pictures": 0,
        "batch_size": 2,
        "seed": 0,
        "shuffle_buffer": 0,
    }


def test_a_stream_is_mixed_within_its_buffer_and_goes_on_bit_for_bit() -> None:
    blocks, buffer = np.repeat(np.arange(10), 20), 30

    def streamed() -> BatchOrder:
        return BatchOrder(200, 4, shuffle=True, seed=3, blocks=blocks, buffer=buffer)

    epochs = []
    for epoch in range(3):
        order = streamed()
        order.set_epoch(epoch)
        epochs.append([index for batch in order for _, index in batch])
        assert sorted(epochs[-1]) == list(range(200))
        seen = [blocks[index] for index in epochs[-1]]
        first, last = ([f(np.flatnonzero(np.array(seen) == block)) for block in range(10)] for f in (np.min, np.max))
        assert max(np.subtract(last, first)) < 20 + buffer  # so long is a block needed
        alive = [sum(a <= at <= b for a, b in zip(first, last, strict=True)) for at in range(200)]
        assert max(alive) <= -(-buffer // 20) + 2
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert len({blocks[epoch[0]] for epoch in epochs}) > 1
    resumed = streamed()
    resumed.set_epoch(2)
    resumed.start = 17
    assert [index for batch in resumed for _, index in batch] == epochs[2][17 * 4 :]
    loader = Loader(Numbers(), streamed())
    with pytest.raises(ConfigError, match=r"made with `shuffle_buffer = 0`, this run has `shuffle_buffer = 30`"):
        loader.load_state_dict({"epoch": 0, "batches": 1, "num_pictures": 200, "batch_size": 4, "seed": 3})


def test_state_of_another_epoch_skips_nothing() -> None:
    loader, resumed = Loader(Numbers(), order()), Loader(Numbers(), order())
    expected = ids(loader, 1)
    ids(loader, 0)
    resumed.load_state_dict(loader.state_dict())
    assert resumed.state_dict() == loader.state_dict()
    assert ids(resumed, 1) == expected


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 3}, r"`batch_size = 2`, this run has `batch_size = 3`"),
        ({"length": 12}, "`num_pictures = 11`, this run has `num_pictures = 12`"),
        ({"seed": 1}, "`seed = 0`, this run has `seed = 1`"),
    ],
)
def test_state_of_another_run(changed: dict[str, int], message: str) -> None:
    state = Loader(Numbers(), order()).state_dict()
    with pytest.raises(ConfigError, match=message):
        Loader(Numbers(), order(**changed)).load_state_dict(state)


@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=linux)])
def test_error_arrives_as_it_was_raised(num_workers: int) -> None:
    loader = Loader(Numbers(broken=[3]), order(shuffle=False), num_workers=num_workers)
    iterator = iter(loader)
    assert next(iterator)["id"] == ["0", "1"]
    message = None
    try:  # not pytest.raises: what it keeps would make the next test wait for this worker's end
        next(iterator)
    except DataError as error:
        message = str(error)
    assert message == "`3.png` is cut off."


def test_broken_pictures_are_reported_and_the_rest_comes() -> None:
    reported: list[str] = []
    loader = Loader(
        Numbers(broken=[1, 4, 5]),
        order(shuffle=False),
        on_broken=lambda error: reported.append(str(error)),
    )
    assert ids(loader, 0) == [["0"], ["2", "3"], ["6", "7"], ["8", "9"], ["10"]]
    assert reported == [f"`{i}.png` is cut off." for i in (1, 4, 5)]


@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=linux)])
def test_random_numbers_of_the_model_are_left_alone(num_workers: int) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    ids(Loader(Numbers(), order(), num_workers=num_workers), 0)
    assert torch.equal(torch.get_rng_state(), before)


@linux
def test_workers_outlive_the_signals_of_a_scheduler() -> None:
    before = set(multiprocessing.active_children())
    loader = Loader(Numbers(40), order(40), num_workers=1)
    iterator = iter(loader)
    next(iterator)
    (worker,) = set(multiprocessing.active_children()) - before
    for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2"):
        # from a process that is not the parent, as SLURM does
        subprocess.run(["/bin/sh", "-c", f"kill -{name[3:]} {worker.pid}"], check=True)
    assert len(list(iterator)) == 19
    assert worker.is_alive()
    start = time.monotonic()
    os.kill(worker.pid, signal.SIGTERM)
    worker.join(10)
    assert not worker.is_alive()
    assert time.monotonic() - start < 5


@linux
def test_workers_end_with_the_loader() -> None:
    before = set(multiprocessing.active_children())
    loader = Loader(Numbers(), order(), num_workers=2)
    assert len(ids(loader, 0)) == 5
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 2
    assert len(ids(loader, 1)) == 5
    assert set(multiprocessing.active_children()) - before == workers
    start = time.monotonic()
    del loader
    assert not any(worker.is_alive() for worker in workers)
    assert time.monotonic() - start < 4


@linux
def test_abandoned_epoch_does_not_leak_into_the_next() -> None:
    loader = Loader(Numbers(), order(), num_workers=2)
    expected = ids(Loader(Numbers(), order()), 1)
    next(iter(loader))
    assert ids(loader, 1) == expected


def test_broken_picture_of_a_real_data_set_names_its_file() -> None:
    class Cut:
        name = "cut.png"

        def read(self) -> bytes:
            return b"\x89PNG\r\n\x1a\n"

        def stamp(self) -> str:
            return ""

    nothing = np.zeros((1, 2), np.int64)
    cache = PictureCache(
        [Record("cut", Cut(), None, None, {}, None)], nothing, nothing, Decoding(), kind="ram", gigabytes=1
    )
    transform = training_transform(
        (8, 8), flips=None, rot90=None, resized_crop=None, rotation=None, colour=None, blur=None
    )
    dataset = PictureDataset(["cut"], cache, [0], transform, head="a", seed=0)
    with pytest.raises(DataError, match=r"cut\.png"):
        next(iter(Loader(dataset, order(1, 1))))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(4, 4), (4, 4), (4, 4), (4, 6), (5, 6)], [[0, 1], [2], [3], [4]]),
        ([(4, 4)] * 5, [[0, 1], [2, 3], [4]]),
        ([], []),
    ],
)
def test_pictures_of_unlike_size_share_no_batch(sizes: list[tuple[int, int]], expected: list[list[int]]) -> None:
    own = np.array(sizes, np.int64).reshape(-1, 2)
    batches = BatchOrder(len(sizes), 2, shuffle=False, seed=0, sizes=own)
    assert [[index for _, index in batch] for batch in batches] == expected
    assert len(batches) == len(expected)


class Usage(NamedTuple):
    free: int


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen cores, Linux, plenty of shared memory."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12))


def choose(
    requested: int | str = "auto", num_batches: int = 100, batch_bytes: int = 10**6, forked_only: bool = True
) -> int:
    return choose_num_workers(requested, num_batches, batch_bytes, forked_only=forked_only)


@pytest.mark.parametrize(("cores", "expected"), [(1, 0), (2, 1), (4, 3), (9, 8), (64, 8)])
def test_auto_leaves_a_core_to_the_training(monkeypatch: pytest.MonkeyPatch, cores: int, expected: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert choose() == expected


@pytest.mark.parametrize(("num_batches", "expected"), [(0, 0), (1, 0), (3, 1), (15, 7), (16, 8)])
def test_auto_on_small_data(num_batches: int, expected: int) -> None:
    assert choose(num_batches=num_batches) == expected


def test_auto_shares_the_cores_among_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "rank_and_world", lambda: (1, 4))
    assert choose() == 3


def test_given_number_is_taken() -> None:
    assert choose(12, num_batches=1) == 12
    assert choose(0) == 0


def test_ram_cache_needs_forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert choose() == 0
    assert choose(forked_only=False) == 8
    assert choose(2, forked_only=False) == 2
    with pytest.raises(ConfigError, match=r"needs forked processes.*Set `data\.cache=disk`"):
        choose(2)


def test_small_shared_memory_limits_the_workers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workers, "_SHARED_MEMORY", workers._SHARED_MEMORY.parent)  # a folder everywhere
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(64 * 10**6))
    with caplog.at_level(logging.WARNING):
        assert choose(4, batch_bytes=6 * 10**6) == 2  # (2 * 2 + 1) * 6 <= 32 < (2 * 3 + 1) * 6
    assert "64 MB free, too little for 4 workers with batches of 6 MB: 2 used" in caplog.text
    assert choose(4, batch_bytes=40 * 10**6) == 0
    caplog.clear()
    assert choose(4, batch_bytes=10**6) == 4
    assert not caplog.records


def test_collector_paused() -> None:
    assert gc.isenabled()
    with collector_paused():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_alone_without_a_process_group() -> None:
    assert rank_and_world() == (0, 1)
