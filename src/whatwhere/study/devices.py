"""On how many devices one training runs, and how they share it; options as Lightning names them."""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, get_args

import torch

from whatwhere.checks import check_choice, check_positive

Strategy = Literal["auto", "ddp", "fsdp"]


class DeviceError(ValueError):
    """Devices that a training can't have as asked."""


@dataclass(frozen=True)
class Devices:
    """The processes of one training, one per device.

    Args:
        devices: of each machine: GPUs where there are any, else processes on the CPU.
        num_nodes: machines; more than one need torchrun or SLURM to start the processes.
        strategy: "ddp" keeps a whole network per process, "fsdp" (torch's ``fully_shard``) a
            part of one; "auto" is "ddp" where there are several processes.
        sync_batchnorm: batch norms count the batch of all processes; on GPUs alone.

    Raises:
        DeviceError: a value is out of range, or would be ignored.

    >>> Devices(devices=2, num_nodes=3).processes
    6
    """

    devices: int = 1
    num_nodes: int = 1
    strategy: Strategy = "auto"
    sync_batchnorm: bool = False

    def __post_init__(self) -> None:
        for name in ("devices", "num_nodes"):
            check_positive("training", name, getattr(self, name))
        check_choice("training", "strategy", self.strategy, get_args(Strategy))
        if self.processes == 1 and self.strategy != "auto":
            raise DeviceError(
                f"expected --devices or --num-nodes above 1 with --strategy {self.strategy}, got "
                "one device, which shares with none"
            )
        if not self.sync_batchnorm:
            return
        if self.processes == 1:
            raise DeviceError("expected several devices with --sync-batchnorm, got one")
        if not torch.cuda.is_available():
            raise DeviceError(
                "expected GPUs with --sync-batchnorm, got none: torch's SyncBatchNorm does not "
                "run on the CPU. Without it, batch norms see each process's part of a batch"
            )

    @property
    def processes(self) -> int:
        """How many there are on all machines."""
        return self.devices * self.num_nodes

    @property
    def sharded(self) -> bool:
        """Whether no process holds the whole network."""
        return self.strategy == "fsdp"

    def check_batch(self, batch_size: int, samples: int) -> None:
        """Refuse batches that can't be shared evenly: gradients are means over equal shares.

        Raises:
            DeviceError: the batch size is no multiple of the processes, or more than the samples.
        """
        if self.processes == 1:
            return
        if batch_size % self.processes:
            raise DeviceError(
                f"expected --batch-size, which all devices share, to be a multiple of "
                f"{self.processes} devices, got {batch_size}"
            )
        if samples < batch_size:
            raise DeviceError(
                f"expected at least --batch-size {batch_size} training samples on several "
                f"devices, got {samples}"
            )


def checkpoint_interval(text: str) -> dict[str, Any]:
    """When a training is written down within an epoch, as ModelCheckpoint's argument.

    Args:
        text: a number of minutes, "5m", or of steps, "200".

    Raises:
        DeviceError: it is neither.

    >>> checkpoint_interval("200")
    {'every_n_train_steps': 200}
    >>> checkpoint_interval("1.5m")
    {'train_time_interval': datetime.timedelta(seconds=90)}
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(m?)", text)
    value = 0.0 if found is None else float(found[1])
    minutes = found is not None and found[2] == "m"
    if value <= 0 or not (minutes or value.is_integer()):
        raise DeviceError(
            f"expected --checkpoint-every as steps, 200, or as minutes, 5m, got {text!r}"
        )
    if minutes:
        return {"train_time_interval": timedelta(minutes=value)}
    return {"every_n_train_steps": int(value)}
