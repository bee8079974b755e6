"""A batch in slices that fit in memory: the mechanics of memory backoff."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hsl.batch import Batch, Objectives, Outputs
from hsl.heads import Head
from hsl.inference.predictor import Network
from hsl.tasks.attempt import (
    AttemptFailure,
    Buffers,
    StepState,
    attempt,
    average_gradients,
    free_memory,
    metric_states,
    restore_metrics,
)

BackOff = Callable[[str, int, AttemptFailure], int]
"""Takes what was cut, how many there were at once and why that failed; gives how many to try next, or raises."""


class MicroBatches:
    """Runs a batch of a task in as many slices as memory asks for, with the result of the whole batch.

    Does nothing until `start`. Three sizes are kept, each halved by itself: ``train``, pictures of a training pass;
    ``evaluation``, pictures predicted and scored at once; ``forward``, pictures or windows per forward pass of a
    predictor. The loss of a slice of ``n`` out of ``N`` pictures weighs ``n / N``, so for losses that are means over
    pictures the gradient is that of the whole batch.

    Attributes:
        back_off: what decides after a failure; ``None``: batches are not cut and errors pass.
        sizes: the largest slice by what is cut; ``None``: the whole batch. They ride in the callback's state.
        recomputes: whether parts of the network run again in the backward pass (gradient checkpointing).
    """

    def __init__(self) -> None:
        self.back_off: BackOff | None = None
        self.sizes: dict[str, int | None] = {}
        self.recomputes = False
        self._state: StepState | None = None
        self._recomputed: Buffers | None = None
        self._parameters: list[nn.Parameter] = []

    def start(self, back_off: BackOff, sizes: dict[str, int | None]) -> None:
        """Cut batches by ``sizes``, which a failure changes, until `stop`."""
        self.back_off, self.sizes = back_off, sizes

    def stop(self) -> None:
        """Run batches as a whole again."""
        self.back_off = self._state = self._recomputed = None
        self._parameters = []

    @property
    def active(self) -> bool:
        """Whether batches are cut."""
        return self.back_off is not None

    def learn(self, task: Any, batch: Batch, batch_idx: int) -> tuple[Tensor, Objectives]:
        """Forward and backward pass of a batch, slice by slice.

        Whatever fails is taken back: gradients, buffers, the state of the weighting and all random number generators
        are those before the batch when it is run again. Several processes repeat a batch together, and share their
        gradients after it.

        Args:
            task: with ``losses(batch) -> (total, objectives)``.
            batch: all pictures of the step.
            batch_idx: tells whether gradients of earlier batches are there to be kept.

        Returns:
            Total and objectives of the whole batch, without a history.
        """
        if self._state is None:
            self._state, self._parameters = StepState(task, task.device), list(task.parameters())
        accumulated = batch_idx % task.trainer.accumulate_grad_batches != 0
        earlier = [parameter.grad if accumulated else None for parameter in self._parameters]
        self._drop_gradients()
        self._state.save()
        strategy = task.trainer.strategy
        while True:
            done = attempt(partial(self._run, task, batch), task.device)
            failed = isinstance(done, AttemptFailure)
            if not strategy.reduce_boolean_decision(failed, all=False):
                break
            why = done if isinstance(done, AttemptFailure) else AttemptFailure("Another process ran out of memory.", {})
            del done
            self._drop_gradients()
            task.weighting.share([])  # lets go of the features of the failed pass
            free_memory()
            self._state.restore()
            tried = torch.tensor(largest(batch, self.sizes["train"]), device=task.device)
            self.sizes["train"] = self._decide("train", int(strategy.reduce(tried, reduce_op="max")), why)
        if task.trainer.world_size > 1:
            average_gradients(self._parameters)
        for parameter, gradient in zip(self._parameters, earlier, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        return cast("tuple[Tensor, Objectives]", cast(Any, done).value)

    def _run(self, task: Any, batch: Batch) -> tuple[Tensor, Objectives]:
        total, objectives = torch.zeros((), device=task.device), cast(Objectives, {})
        for part in slices(batch, self.sizes["train"]):
            share = len(part["image"]) / len(batch["image"])
            loss, parts = task.losses(part)
            self._backward(task, loss * (share / task.trainer.accumulate_grad_batches))
            total = total + share * loss.detach()
            for name, value in parts.items():
                objectives[name] = objectives.get(name, 0) + share * value.detach()
        return total, objectives

    def _backward(self, task: Any, loss: Tensor) -> None:
        if self.recomputes:
            if self._recomputed is None:
                self._recomputed = Buffers(task)
            self._recomputed.save()
        with torch.autocast(task.device.type, enabled=False):  # as Lightning does: casts belong to the forward pass
            task.trainer.strategy.backward(loss, None)
        if self.recomputes and self._recomputed is not None:
            self._recomputed.restore()  # running statistics would count the slice twice

    def _drop_gradients(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def _decide(self, kind: str, size: int, failure: AttemptFailure) -> int:
        return cast(BackOff, self.back_off)(kind, size, failure)

    def evaluate(self, step: Callable[[Batch], Outputs], batch: Batch, metrics: nn.Module | None = None) -> Outputs:
        """Outputs of ``step`` for a batch, slice by slice; those of several slices are put together on the host.

        A slice that fails is cut and run again, with the metrics as they were before it; the finished ones stay. So
        ``step`` logs last.

        Args:
            step: gives the outputs of a batch, and may score them.
            batch: its masks may be padded; those of a slice are padded to the largest picture of the slice.
            metrics: modules among which are the metrics that ``step`` updates.
        """
        return step(batch) if not self.active else joined(self._piecewise("evaluation", step, batch, metrics))

    def portioned(self, network: Network) -> Network:
        """The network as a predictor is to see it: what it is called with is cut, so predictors need not know."""
        return _Portioned(network, self) if self.active else network

    def _piecewise(
        self, kind: str, step: Callable[[Any], Outputs], batch: Any, metrics: nn.Module | None
    ) -> list[Outputs]:
        waiting, finished = pieces(batch, self.sizes[kind]), list[Outputs]()
        while waiting:
            part = waiting[0]
            states = [] if metrics is None else metric_states(metrics)
            done = attempt(partial(step, part), part["image"].device)
            if isinstance(done, AttemptFailure):
                if kind == "forward" and len(part["image"]) == 1:  # nothing to cut here; fewer pictures may help
                    raise torch.OutOfMemoryError(done.message)
                free_memory()
                restore_metrics(states)
                size = self.sizes[kind] = self._decide(kind, len(part["image"]), done)
                waiting = [piece for one in waiting for piece in pieces(one, size)]
                continue
            outputs = done.value
            if kind == "evaluation" and len(waiting) + len(finished) > 1:  # the device keeps one slice only
                outputs = {head: output.cpu() for head, output in outputs.items()}
            finished.append(outputs)
            del waiting[0], done, outputs
        return finished


class _Portioned:
    """A network in evaluation, called with a part of its input at a time."""

    def __init__(self, network: Network, micro_batches: MicroBatches) -> None:
        self._network, self._micro_batches = network, micro_batches

    @property
    def known_heads(self) -> Mapping[str, Head]:
        return self._network.known_heads

    @property
    def stride(self) -> int:
        return self._network.stride

    def __call__(self, image: Tensor) -> Outputs:
        return joined(self._micro_batches._piecewise("forward", self._call, {"image": image}, None))

    def _call(self, part: Any) -> Outputs:
        return self._network(part["image"])


def slices(batch: Any, size: int | None) -> list[Any]:
    """The batch in as few slices of at most ``size`` pictures as possible, alike to one picture.

    Every tensor and list as long as the batch is cut, in dictionaries within it too; the rest is in each slice.

    Example:
        >>> [part["id"] for part in slices({"id": ["a", "b", "c"], "image": torch.zeros(3, 1)}, 2)]
        [['a'], ['b', 'c']]
    """
    count = len(batch["image"])
    if size is None or size >= count:
        return [batch]
    number = -(-count // size)
    bounds = [index * count // number for index in range(number + 1)]
    return [_cut(batch, count, slice(*pair)) for pair in pairwise(bounds)]


def pieces(batch: Any, size: int | None) -> list[Any]:
    """As `slices`, with what has pixels of the source cropped to the largest source: all beyond is padding."""
    parts = slices(batch, size)
    for part in parts if len(parts) > 1 and "size" in batch else []:
        height, width = part["size"].amax(0).tolist()
        for name in part.keys() & {"masks", "weights", "unlabelled", "targets"}:
            part[name] = {head: one[..., :height, :width] for head, one in part[name].items()}
    return parts


def largest(batch: Any, size: int | None) -> int:
    """Pictures of the largest slice."""
    return max(len(part["image"]) for part in slices(batch, size))


def joined(parts: Sequence[Outputs]) -> Outputs:
    """Outputs of all slices as those of the batch; dense ones are zero where a smaller picture ends."""
    if len(parts) == 1:
        return parts[0]
    result: Outputs = {}
    for head in parts[0]:
        outputs = [part[head] for part in parts]
        sides = [max(lengths) for lengths in zip(*(one.shape[2:] for one in outputs), strict=True)]  # none of an image
        result[head] = torch.cat([_padded(one, sides) for one in outputs])
    return result


def _padded(output: Tensor, sides: Sequence[int]) -> Tensor:
    missing = [side - length for side, length in zip(sides, output.shape[2:], strict=True)]
    return F.pad(output, [pad for each in reversed(missing) for pad in (0, each)]) if any(missing) else output


def _cut(value: Any, count: int, part: slice) -> Any:
    if isinstance(value, dict):
        return {key: _cut(inner, count, part) for key, inner in value.items()}
    if isinstance(value, (Tensor, list, tuple)) and not (isinstance(value, Tensor) and value.ndim == 0):
        return value[part] if len(value) == count else value
    return value
