"""One of two gloo processes that train on shards; the first prints what both saw, as JSON."""

import json
import sys

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from tests.processes import leave
from tests.study.shards import numbers_of
from whatwhere.study.data import DataSettings, load
from whatwhere.study.loaders import evaluation_loader, training_loader
from whatwhere.study.settings import StudySettings


def gathered(mine):
    every = [None] * distributed.get_world_size()
    distributed.all_gather_object(every, mine)
    return every


def main(source):
    distributed.init_process_group("gloo")
    share = {"rank": distributed.get_rank(), "processes": distributed.get_world_size()}
    study = StudySettings(data=DataSettings(source=source), batch_size=8)
    data = load(study.data)
    torch.manual_seed(0)
    network = DistributedDataParallel(nn.Linear(8, 2))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    batches = []
    for x, labels in training_loader(data.train, study, seed=0, **share):
        optimizer.zero_grad()
        # Waits for the other process: one step too many on one of them would hang.
        nn.functional.cross_entropy(network(x.flatten(1)), labels).backward()
        optimizer.step()
        batches.append(sorted(n for part in gathered(numbers_of(data, x)) for n in part))
    mine = [numbers_of(data, x) for x, _ in evaluation_loader(data.test, study, **share)]
    tested = sorted(n for part in gathered(mine) for batch in part for n in batch)
    weights = gathered(network.module.weight.detach())
    apart = float((weights[0] - weights[1]).abs().max())
    if share["rank"] == 0:
        print(json.dumps({"batches": batches, "tested": tested, "apart": apart}))
    del network
    distributed.destroy_process_group()
    leave(0)


if __name__ == "__main__":
    main(sys.argv[1])
