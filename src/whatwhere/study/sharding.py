"""A network in parts over several processes: FSDP2, torch's ``fully_shard``."""

import torch.distributed
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Shard a network block by block, gates with the block that they are in, in place.

    Blocks are what an ``nn.Sequential`` or ``nn.ModuleList`` holds and is itself composed, as
    residual blocks are: the process gathers the weights of one of them at a time.
    """
    for module in reversed(list(network.modules())):  # inner ones first, as fully_shard asks
        if isinstance(module, nn.Sequential | nn.ModuleList):
            for block in module.children():
                composed = any(True for _ in block.children())
                if composed and any(True for _ in block.parameters()):
                    fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)


def broadcast_buffers(network: nn.Module) -> None:
    """Give every process the first one's buffers, such as the running statistics of norms."""
    for buffer in network.buffers():
        torch.distributed.broadcast(buffer, src=0)
