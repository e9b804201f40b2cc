"""Options that several commands have."""

from typing import Annotated

import typer

DevicesOption = Annotated[
    int, typer.Option(min=1, help="of one training on each machine: GPUs, or processes without")
]
NodesOption = Annotated[
    int, typer.Option("--num-nodes", min=1, help="machines of one training, with torchrun or SLURM")
]
StrategyOption = Annotated[
    str, typer.Option(help="auto, ddp, or fsdp: each device keeps a part of the network")
]
SyncOption = Annotated[
    bool, typer.Option("--sync-batchnorm", help="batch norms count all devices' samples; on GPUs")
]
CheckpointOption = Annotated[
    str, typer.Option(help="within an epoch, from which a killed training goes on: 200 steps, 5m")
]

DeterministicOption = Annotated[
    bool, typer.Option(help="refuse operations that may give other bits another time")
]
