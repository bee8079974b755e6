"""Fully sharded training (FSDP2): parameters, gradients and optimizer are dealt out to the processes."""

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

MIN_PARAMETERS = 1_000_000
"""Of a block that is gathered by itself; smaller ones travel with the module around them."""


class FullyShardedStrategy(ModelParallelStrategy):
    """Each process keeps its share of every parameter and gathers a block while it computes it.

    A checkpoint is one file with whole tensors, as that of one process, so that every command reads it.
    """

    def __init__(self) -> None:
        super().__init__(data_parallel_size=1, tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """All processes share the data; none divides a layer among several."""
        self._data_parallel_size = self.num_processes * self.num_nodes
        super().setup_environment()


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Deal the parameters out to the processes of a mesh, block by block.

    A block is an element of a sequence of modules, or a part of the network (encoder, decoder, heads), which is called
    as a whole.

    Args:
        network: the same in all processes; changed.
        mesh: of one dimension.
    """
    network.to(memory_format=torch.contiguous_format)  # FSDP2 takes no other layout of a parameter
    sequences = [one for one in network.modules() if isinstance(one, nn.Sequential | nn.ModuleList)]
    blocks = [block for sequence in sequences for block in sequence if not isinstance(block, nn.ModuleList)]
    parts = [part for part in network.children() if not isinstance(part, nn.ModuleDict)]
    for block in reversed(list(dict.fromkeys([*parts, *blocks]))):  # what lies inside first
        if sum(parameter.numel() for parameter in block.parameters()) >= MIN_PARAMETERS:
            fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)


def share_buffers(network: nn.Module) -> None:
    """Give all processes the buffers of the first one, such as the running statistics of a batch norm, as DDP does."""
    for buffer in network.buffers():
        dist.broadcast(buffer, 0)
