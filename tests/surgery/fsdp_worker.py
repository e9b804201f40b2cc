"""Two processes train a gated network with FSDP2 and gloo, as one process trains it whole."""

import copy
import sys

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from tests.processes import leave
from whatwhere import attached, attend, parameter_groups
from whatwhere.study.networks import SmallResNet


def train(model, x, steps=2):
    optimizer = torch.optim.SGD(parameter_groups(model, 0.05, gate_lr=0.5))
    for _ in range(steps):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def main():
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    whole = SmallResNet(3, in_channels=1, channels=(4, 8), blocks=(1, 1))
    attend(whole, "cbam", fuse="fuse" in sys.argv)
    sharded = copy.deepcopy(whole)
    keys = list(whole.state_dict())
    mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
    for stage in sharded.stages:
        for block in stage:
            fully_shard(block, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    gates = [p for n, p in sharded.named_parameters() if ".attention." in n]
    assert gates
    assert all(isinstance(p, DTensor) for p in gates)
    assert attached(sharded) == attached(whole)

    x = torch.randn(4, 1, 16, 16)  # the same on both ranks, so that means of gradients are equal
    start = copy.deepcopy(whole.state_dict())
    train(whole, x)
    moved = [n for n, t in whole.state_dict().items() if not torch.equal(t, start[n])]
    assert any(".attention." in name for name in moved)
    train(sharded, x)
    options = StateDictOptions(full_state_dict=True)
    full = get_model_state_dict(sharded, options=options)
    assert list(full) == keys
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(full[name], tensor, msg=lambda m, name=name: f"{name}: {m}")
    torch.testing.assert_close(sharded.eval()(x), whole.eval()(x))

    other = SmallResNet(3, in_channels=1, channels=(4, 8), blocks=(1, 1))
    attend(other, "cbam")
    fully_shard(other, mesh=mesh)
    set_model_state_dict(other, full, options=options)
    torch.testing.assert_close(other.eval()(x), whole.eval()(x))
    dist.destroy_process_group()
    leave(0)


if __name__ == "__main__":
    main()
