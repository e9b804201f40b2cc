"""Two processes train a gated network with gloo and must end with the same weights."""

import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from tests.processes import leave
from whatwhere import attend
from whatwhere.study.networks import SmallResNet


def trained():
    torch.manual_seed(0)
    model = SmallResNet(3, in_channels=1, channels=(4, 8), blocks=(1, 1))
    attend(model, "cbam", fuse="fuse" in sys.argv)
    start = torch.cat([p.detach().flatten() for p in model.parameters()])
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
    torch.manual_seed(dist.get_rank())
    for _ in range(3):
        optimizer.zero_grad()
        parallel(torch.randn(4, 1, 16, 16)).square().sum().backward()
        optimizer.step()
    gates = [p for n, p in model.named_parameters() if ".attention." in n]
    mine = torch.cat([p.detach().flatten() for p in model.parameters()])
    other = [torch.empty_like(mine) for _ in range(2)]
    dist.all_gather(other, mine)
    same = torch.equal(other[0], other[1])
    moved = not torch.equal(mine, start) and all(g.grad is not None for g in gates)
    return same and moved


def main():
    dist.init_process_group("gloo")
    right = trained()
    dist.destroy_process_group()
    leave(0 if right else 1)


if __name__ == "__main__":
    main()
