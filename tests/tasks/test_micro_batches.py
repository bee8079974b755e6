"""Slices of a batch, how they are put together again, and what of a step has to be a number."""

import errno
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics import Metric, SumMetric
from torchmetrics.aggregation import CatMetric

from hsl.batch import IGNORE_INDEX, Outputs
from hsl.errors import NonFiniteLogitsError, UserError
from hsl.heads import Head
from hsl.inference.predictor import Whole, to_source_size
from hsl.inference.sliding_window import SlidingWindow
from hsl.inference.tta import TestTimeAugmentation
from hsl.tasks.attempt import (
    AttemptFailure,
    Buffers,
    Done,
    StepState,
    attempt,
    is_out_of_memory,
    metric_states,
    restore_metrics,
)
from hsl.tasks.micro_batches import MicroBatches, joined, largest, pieces, slices
from hsl.tasks.scoring import NonFiniteLossError, check_finite

CPU = torch.device("cpu")
PLACE = "training, epoch 2, step 12"


def out_of_memory() -> Any:
    torch.empty(10**14)  # the allocator's own words


def batch_of(count: int) -> dict[str, Any]:
    return {
        "id": [f"p{i}" for i in range(count)],
        "image": torch.arange(float(count)).reshape(count, 1, 1, 1).expand(count, 3, 4, 4),
        "size": torch.tensor([[2 + i, 3] for i in range(count)]),
        "masks": {"segmentation": torch.zeros(count, count + 1, 3, dtype=torch.int64)},
        "labels": {"classification": torch.arange(count)},
        "weights": {"segmentation": torch.ones(count, count + 1, 3)},
    }


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [(8, None, [8]), (8, 8, [8]), (8, 9, [8]), (8, 4, [4, 4]), (9, 4, [3, 3, 3]), (5, 4, [2, 3]), (3, 1, [1, 1, 1])],
)
def test_slices_are_few_and_alike(count: int, size: int | None, expected: list[int]) -> None:
    """Alike: a rest of one picture would leave batch norm nothing to normalise."""
    batch = batch_of(count)
    parts = slices(batch, size)
    assert [len(part["id"]) for part in parts] == expected
    assert largest(batch, size) == max(expected)
    assert [name for part in parts for name in part["id"]] == batch["id"]
    for path in (("image",), ("size",), ("masks", "segmentation"), ("labels", "classification")):
        whole, cut = batch, list(parts)
        for key in path:
            whole, cut = whole[key], [part[key] for part in cut]
        assert torch.equal(torch.cat(cut), whole)


def test_what_is_not_per_picture_is_in_every_slice() -> None:
    rest = {"table": torch.arange(5), "scale": torch.tensor(3.0), "name": "demo", "pair": (1, 2, 3)}
    for part in slices({"image": torch.zeros(2, 1), **rest}, 1):
        assert {name: part[name] for name in rest} == rest


def test_padding_beyond_the_largest_picture_of_a_slice_is_cropped() -> None:
    first, second = pieces(batch_of(4), 2)
    assert first["masks"]["segmentation"].shape == first["weights"]["segmentation"].shape == (2, 3, 3)
    assert second["masks"]["segmentation"].shape == (2, 5, 3)
    assert first["labels"]["classification"].tolist() == [0, 1]


def test_joined_outputs_are_those_of_the_whole_batch() -> None:
    logits, size = torch.randn(3, 2, 4, 4), torch.tensor([[2, 3], [5, 7], [6, 2]])
    whole = {"segmentation": to_source_size(logits, size), "classification": logits.mean((2, 3))}
    parts = [
        {"segmentation": to_source_size(logits[cut], size[cut]), "classification": logits[cut].mean((2, 3))}
        for cut in (slice(0, 1), slice(1, 3))
    ]
    again = joined(parts)
    assert all(torch.equal(again[head], whole[head]) for head in whole)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (torch.cuda.OutOfMemoryError("x"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (RuntimeError("out of memory"), False),
        (MemoryError("Unable to allocate 2.00 GiB for an array"), True),
        (np._core._exceptions._ArrayMemoryError((2**40,), np.dtype(np.uint8)), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("could not create a memory object"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("could not create a primitive descriptor for a convolution forward propagation"), False),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied, memory format channels_last"), False),
        (ValueError("CUDA out of memory"), False),
    ],
)
def test_only_the_allocators_errors_count(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_an_attempt_tells_what_the_allocator_said_and_lets_go_of_all_tensors() -> None:
    done = attempt(lambda: 3, CPU)
    assert isinstance(done, Done)
    assert done.value == 3
    failure = attempt(out_of_memory, CPU)
    assert isinstance(failure, AttemptFailure)
    assert "DefaultCPUAllocator" in failure.message
    assert failure.memory["device"] == "cpu"
    assert 0 < failure.memory["used_bytes"] < failure.memory["total_bytes"]
    with pytest.raises(RuntimeError, match="shapes"):
        attempt(lambda: torch.zeros(2, 3) @ torch.zeros(2, 3), CPU)


def test_buffers_extra_states_and_generators_are_taken_back() -> None:
    class Counter(nn.Module):
        count = 0

        def get_extra_state(self) -> int:
            return self.count

        def set_extra_state(self, state: int) -> None:
            self.count = state

    module = nn.Sequential(nn.BatchNorm2d(2), Counter())
    state = StepState(module, CPU)
    state.save()
    before = {name: value.clone() for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    drawn = torch.rand(3)
    module[0](torch.randn(4, 2, 3, 3))
    module[1].count = 7  # type: ignore[assignment]
    assert not torch.equal(module[0].running_mean, before["0.running_mean"])
    assert module[0].num_batches_tracked == 1
    state.restore()
    assert all(torch.equal(module.state_dict()[name], value) for name, value in before.items())
    assert module[1].count == 0
    assert torch.equal(torch.rand(3), drawn)


def test_buffers_are_saved_again_and_again() -> None:
    module = nn.BatchNorm1d(1)
    buffers = Buffers(module)
    for value in (1.0, 2.0):
        module.running_mean.fill_(value)  # type: ignore[union-attr]
        buffers.save()
    module.running_mean.fill_(9.0)  # type: ignore[union-attr]
    buffers.restore()
    assert module.running_mean == 2.0


def test_metric_states_are_taken_back() -> None:
    metrics = nn.ModuleList([SumMetric(), CatMetric()])
    for metric in metrics:
        metric.update(torch.tensor(2.0))
    kept = metric_states(metrics)
    for metric in metrics:
        metric.update(torch.tensor(5.0))
    restore_metrics(kept)
    assert [metric.compute().item() for metric in metrics if isinstance(metric, Metric)] == [2.0, 2.0]


class Tight(nn.Module):
    """A network that takes so many pictures at once."""

    known_heads = {"segmentation": Head("segmentation", "dense")}  # noqa: RUF012
    stride = 4

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.seen: list[int] = []

    def forward(self, images: Tensor) -> Outputs:
        if len(images) > self.room:
            out_of_memory()
        self.seen.append(len(images))
        return {"segmentation": images[:, :2] * 2}


def started(decided: list[tuple[str, int]], **sizes: int) -> MicroBatches:
    made = MicroBatches()

    def back_off(kind: str, size: int, failure: AttemptFailure) -> int:
        decided.append((kind, size))
        if size == 1:
            raise ValueError("no way out")
        return size // 2

    made.start(back_off, {"train": None, "evaluation": None, "forward": None, **sizes})
    return made


@pytest.mark.parametrize(
    "predictor",
    [
        Whole(stride=4),
        SlidingWindow(window=8, stride=5, windows_per_batch=16, stitch_device="cpu"),
        TestTimeAugmentation(SlidingWindow(8, 5, 16, "cpu"), ["identity", "rot90"]),
    ],
)
def test_a_predictor_gets_by_with_fewer_windows_and_need_not_know(predictor: Callable[..., Outputs]) -> None:
    images = torch.randn(8, 3, 13, 18)
    expected = predictor(Tight(1000), images)["segmentation"]
    decided: list[tuple[str, int]] = []
    micro_batches, network = started(decided), Tight(4)
    found = predictor(micro_batches.portioned(network), images)["segmentation"]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    first = 8 if isinstance(predictor, Whole) else 16
    assert decided == [("forward", size) for size in (16, 8) if size <= first]  # and never again in this run
    assert micro_batches.sizes == {"train": None, "evaluation": None, "forward": 4}
    assert max(network.seen) == 4
    assert micro_batches.portioned(network).stride == network.stride


def test_without_a_start_nothing_is_in_between() -> None:
    network, batch = Tight(1), batch_of(2)
    micro_batches = MicroBatches()
    assert micro_batches.portioned(network) is network
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        micro_batches.evaluate(lambda one: network(one["image"]), batch)
    assert not micro_batches.active


def test_scores_count_every_picture_once_though_an_update_fails_half_way() -> None:
    decided: list[tuple[str, int]] = []
    scoring, logged = nn.ModuleList([SumMetric(), SumMetric()]), []

    def step(batch: Any) -> Outputs:
        values = batch["image"][:, 0, 0, 0]
        scoring[0].update(values)
        if len(values) > 2:
            out_of_memory()
        scoring[1].update(values)
        logged.append(len(values))
        return {"segmentation": to_source_size(batch["image"], batch["size"])}

    batch, micro_batches = batch_of(5), started(decided)
    outputs = micro_batches.evaluate(step, batch, scoring)
    assert [float(metric.compute()) for metric in scoring if isinstance(metric, Metric)] == [10.0, 10.0]
    assert decided == [("evaluation", 5)]
    assert logged == [1, 2, 2]
    assert torch.equal(outputs["segmentation"], to_source_size(batch["image"], batch["size"]))
    micro_batches.evaluate(step, batch, scoring)
    assert decided == [("evaluation", 5)]


def test_finished_slices_are_not_run_again() -> None:
    decided: list[tuple[str, int]] = []
    tried: list[list[str]] = []

    def step(batch: Any) -> Outputs:
        tried.append(batch["id"])
        if "p3" in batch["id"] and len(batch["id"]) > 1:
            out_of_memory()
        return {"segmentation": batch["image"]}

    outputs = started(decided, evaluation=2).evaluate(step, batch_of(5), None)
    assert tried == [["p0"], ["p1", "p2"], ["p3", "p4"], ["p3"], ["p4"]]
    assert torch.equal(outputs["segmentation"], batch_of(5)["image"])


def test_one_window_that_does_not_fit_asks_for_fewer_pictures_and_one_picture_gives_up() -> None:
    decided: list[tuple[str, int]] = []
    micro_batches = started(decided)
    network = micro_batches.portioned(Tight(0))
    with pytest.raises(ValueError, match="no way out"):
        micro_batches.evaluate(lambda one: network(one["image"]), batch_of(2))
    assert decided == [("forward", 2), ("evaluation", 2), ("evaluation", 1)]


def test_padding_is_ignored_like_in_the_whole_batch() -> None:
    batch = batch_of(3)
    for i, (height, _) in enumerate(batch["size"].tolist()):
        batch["masks"]["segmentation"][i, height:] = IGNORE_INDEX
    counted = [int((part["masks"]["segmentation"] != IGNORE_INDEX).sum()) for part in pieces(batch, 1)]
    assert counted == [3 * height for height in (2, 3, 4)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_names_the_component_the_pictures_and_the_step(value: float) -> None:
    with pytest.raises(NonFiniteLossError, match=r"`focal = .*img_7, img_9 .*step 12") as caught:
        check_finite({}, {"dice": torch.tensor(0.5), "focal": torch.tensor(value)}, ["img_7", "img_9"], PLACE)
    assert "dice" not in str(caught.value)
    assert isinstance(caught.value, ArithmeticError)
    assert isinstance(caught.value, UserError)


def test_finite_passes_and_keeps_the_graph() -> None:
    loss = torch.tensor(1.0, requires_grad=True) * 2
    outputs = {"a": torch.zeros(1, 2, 3, 3, requires_grad=True) * 2}
    check_finite(outputs, {"dice": loss, "focal": torch.tensor(3.0, dtype=torch.float64)}, ["a"], PLACE)
    assert loss.requires_grad
    assert outputs["a"].requires_grad


def test_every_broken_component_is_named() -> None:
    bad = torch.tensor(float("nan"))
    with pytest.raises(NonFiniteLossError, match=r"`dice = nan`, `focal = nan`"):
        check_finite({}, {"dice": bad, "focal": bad}, ["a"], PLACE)


def test_an_output_is_told_before_the_loss_that_was_made_from_it() -> None:
    outputs = {"maps": torch.zeros(2, 1, 3, 3), "labels": torch.zeros(2, 4, requires_grad=True)}
    outputs["maps"][1, 0, 2, 2] = float("-inf")
    with pytest.raises(NonFiniteLogitsError, match=r"`-inf` in `maps` for b \(training, epoch 2, step 12\)"):
        check_finite(outputs, {"dice": torch.tensor(float("nan"))}, ["a", "b"], PLACE)
