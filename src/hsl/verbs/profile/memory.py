"""The memory that one training step of an encoder takes, tried without data."""

import time
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.optim import Optimizer

from hsl.batch import Outputs


def with_encoder(option: str, **values: object) -> DictConfig:
    """The config of the running verb with another encoder.

    Args:
        option: the encoder's word on the command line.
        **values: further top-level keys to set.
    """
    hydra = HydraConfig.get()
    given = [override for override in hydra.overrides.task if not override.startswith("encoder=")]
    overrides = [*given, f"encoder={option}", *(f"{key}={value}" for key, value in values.items())]
    return compose(str(hydra.job.config_name), overrides=overrides)


def random_pictures(number: int, side: int, device: torch.device) -> Tensor:
    """Normalised pictures ``(number, 3, side, side)`` of noise."""
    return torch.randn(number, 3, side, side, device=device)


def trial_loss(outputs: Outputs) -> Tensor:
    """The sum of the cross-entropies of all heads with random targets."""
    losses = []
    for logits in outputs.values():
        target = torch.randint(logits.shape[1], (len(logits), *logits.shape[2:]), device=logits.device)
        losses.append(F.cross_entropy(logits.float(), target))
    return torch.stack(losses).sum()


PRECISIONS = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class Step:
    """What a training step took: pictures, bytes and seconds."""

    batch_size: int
    memory: int
    seconds: float


def measure_step(network: nn.Module, optimizer: Optimizer, batch_size: int, side: int, precision: str) -> Step:
    """Forward, backward and optimizer step on random pictures, where the network lies.

    On a GPU the memory is the allocator's peak in the second step, which has the optimizer's state and the kernels'
    workspaces in place. On a CPU, where nobody keeps a peak, it is the sum of the network's parameters and buffers,
    the gradients, the optimizer's state, and every tensor that autograd saves for the backward pass (each storage
    once, those of parameters and buffers not again): no workspaces and no tensors that live for one operation only.

    Raises:
        torch.OutOfMemoryError: the step does not fit on the GPU.
    """
    parameter = next(network.parameters())
    network.train()
    pictures = random_pictures(batch_size, side, parameter.device)
    if parameter.device.type == "cuda":
        _step(network, optimizer, pictures, precision)
        torch.cuda.reset_peak_memory_stats(parameter.device)
        torch.cuda.synchronize(parameter.device)
    start = time.perf_counter()
    saved = _step(network, optimizer, pictures, precision)
    if parameter.device.type == "cuda":
        torch.cuda.synchronize(parameter.device)
        memory = torch.cuda.max_memory_allocated(parameter.device)
    else:
        memory = saved + resident_bytes(network, optimizer)
    return Step(batch_size, memory, time.perf_counter() - start)


def resident_bytes(network: nn.Module, optimizer: Optimizer) -> int:
    """Bytes of parameters, buffers, gradients and the optimizer's state; nothing of a batch."""
    tensors = [*network.parameters(), *network.buffers()]
    tensors += [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    tensors += [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    return sum(_storages(tensors).values())


def bytes_per_picture(steps: list[Step]) -> float:
    """How much one more picture takes: the slope between the two largest batches.

    Small batches may hide in what the optimizer's step needs anyway.

    Example:
        >>> bytes_per_picture([Step(2, 100, 0.1), Step(4, 110, 0.1), Step(8, 150, 0.1)])
        10.0
    """
    smaller, larger = steps[-2:]
    return (larger.memory - smaller.memory) / (larger.batch_size - smaller.batch_size)


def _step(network: nn.Module, optimizer: Optimizer, pictures: Tensor, precision: str) -> int:
    """One step; on a CPU returns the bytes saved for backward besides parameters and buffers."""
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved.update(_storages([tensor]))
        return tensor

    optimizer.zero_grad(set_to_none=True)
    dtype = PRECISIONS[precision]
    counted = saved_tensors_hooks(keep, lambda tensor: tensor) if pictures.device.type == "cpu" else nullcontext()
    with counted, torch.autocast(pictures.device.type, dtype=dtype, enabled=dtype is not None):
        loss = trial_loss(network(pictures))
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    own = _storages([*network.parameters(), *network.buffers()])
    return sum(size for address, size in saved.items() if address not in own)


def _storages(tensors: list[Tensor]) -> dict[int, int]:
    """Bytes of each storage by its address, so that views of one are counted once."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}
