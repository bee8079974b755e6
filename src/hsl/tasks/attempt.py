"""A try that may run out of memory, and what it is taken back to."""

import ctypes
import gc
import os
import random
import resource
import sys
from collections.abc import Callable, Iterable
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchmetrics import Metric

from hsl.errors import says_no_memory

T = TypeVar("T")
M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
PAGES_OF_ITS_OWN = 2**20  # bytes from which on an allocation is one of its own
MetricStates = list[tuple[Metric, dict[str, Any]]]


class AttemptFailure(NamedTuple):
    """What the allocator said, and the memory at that moment."""

    message: str
    memory: dict[str, Any]


class Done(NamedTuple, Generic[T]):
    """What a try made."""

    value: T


def attempt(act: Callable[[], T], device: torch.device) -> Done[T] | AttemptFailure:
    """Result of ``act``, or why it had too little memory. Any other error passes.

    On return nothing refers to the tensors of a failed try any more, for its error and with it the stack are gone.
    """
    try:
        return Done(act())
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        return AttemptFailure(str(error).partition("\n")[0], memory_of(device))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator raised it, see `hsl.errors.says_no_memory`.

    Example:
        >>> is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
        True
        >>> is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))
        False
    """
    return isinstance(error, torch.OutOfMemoryError) or says_no_memory(error)


def memory_of(device: torch.device) -> dict[str, Any]:
    """``device``, ``used_bytes`` and ``total_bytes``; by all processes on a GPU, at most by this one on a CPU."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        used = total - free
    elif device.type == "mps":
        used, total = torch.mps.driver_allocated_memory(), torch.mps.recommended_max_memory()
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"device": str(device), "used_bytes": used, "total_bytes": total}


def free_memory() -> None:
    """Collect what is left in cycles and hand the allocator's cache back.

    On the host, glibc keeps what was freed in pieces that do not fit the next larger tensor. From the first shortage
    on, tensors get pages of their own, which go back to the system when they are freed; that is slower, so not before.
    """
    gc.collect()
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim"):  # musl has neither
        libc.mallopt(M_MMAP_THRESHOLD, PAGES_OF_ITS_OWN)
        libc.malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


class Buffers:
    """A copy of all buffers of a module, taken again and again into the same memory."""

    def __init__(self, module: nn.Module) -> None:
        groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for buffer in module.buffers():
            groups.setdefault((buffer.device, buffer.dtype), []).append(buffer)
        self._pairs = [(live, [torch.empty_like(one) for one in live]) for live in groups.values()]

    @torch.no_grad()
    def save(self) -> None:
        for live, kept in self._pairs:
            torch._foreach_copy_(kept, live)  # one kernel for many, where the module has hundreds of them

    @torch.no_grad()
    def restore(self) -> None:
        for live, kept in self._pairs:
            torch._foreach_copy_(live, kept)


class StepState:
    """What a training step changes before the optimizer steps: buffers, extra states, random number generators."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self._buffers = Buffers(module)
        plain = nn.Module.get_extra_state
        self._owners = [one for one in module.modules() if type(one).get_extra_state is not plain]
        self._extras: list[Any] = []
        self._device = device
        self._generators: dict[str, Any] = {}

    def save(self) -> None:
        self._buffers.save()
        self._extras = [owner.get_extra_state() for owner in self._owners]
        self._generators = {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "python": random.getstate()}
        if self._device.type != "cpu":
            self._generators["device"] = torch.get_device_module(self._device).get_rng_state()

    def restore(self) -> None:
        self._buffers.restore()
        for owner, extra in zip(self._owners, self._extras, strict=True):
            owner.set_extra_state(extra)
        torch.set_rng_state(self._generators["torch"])
        np.random.set_state(self._generators["numpy"])
        random.setstate(self._generators["python"])
        if "device" in self._generators:
            torch.get_device_module(self._device).set_rng_state(self._generators["device"])


def metric_states(module: nn.Module) -> MetricStates:
    """Copies of the states of all metrics, which an update changes in place."""
    metrics = (one for one in module.modules() if isinstance(one, Metric))
    return [(metric, {name: _copy(state) for name, state in metric.metric_state.items()}) for metric in metrics]


def restore_metrics(states: MetricStates) -> None:
    """Take the metrics back to `metric_states`."""
    for metric, kept in states:
        for name, state in kept.items():
            setattr(metric, name, state)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Mean of the gradients over all processes; one without a gradient counts as 0, as long as another has one."""
    learning = [one for one in parameters if one.requires_grad]
    present = torch.tensor([one.grad is not None for one in learning], dtype=torch.int32, device=learning[0].device)
    dist.all_reduce(present, dist.ReduceOp.MAX)
    reached = [one for one, there in zip(learning, present.tolist(), strict=True) if there]
    for one in reached:
        if one.grad is None:
            one.grad = torch.zeros_like(one)
    gradients = [one.grad for one in reached if one.grad is not None]
    for work in [dist.all_reduce(gradient, async_op=True) for gradient in gradients]:
        work.wait()
    torch._foreach_div_(gradients, dist.get_world_size())


def _copy(state: Any) -> Any:
    return state.clone() if isinstance(state, Tensor) else list(state)
