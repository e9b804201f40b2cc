"""Lightning's Trainer as every training here has it: devices, checkpoints, progress."""

import math
import os
from pathlib import Path
from time import perf_counter
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy

from whatwhere.files import write_json
from whatwhere.study.data import StudyData
from whatwhere.study.devices import DeviceError, Devices, checkpoint_interval
from whatwhere.study.resuming import WholeCheckpoints
from whatwhere.study.settings import StudySettings


def make_trainer(
    settings: StudySettings, *, device: int, logs: Path, name: str, callbacks: list[Callback]
) -> lightning.Trainer:
    """A trainer for a whole training.

    Args:
        settings: of the study.
        device: the GPU to use, where one is asked for.
        logs: the folder of TensorBoard's logs.
        name: of the training among them.
        callbacks: those that train, not those that only look on.
    """
    on_gpu = torch.cuda.is_available()
    devices = settings.devices
    precision: Any = settings.used_precision()
    return lightning.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=[device] if on_gpu and devices.processes == 1 else devices.devices,
        num_nodes=devices.num_nodes,
        strategy=_strategy(devices),
        use_distributed_sampler=False,  # the loaders share every batch themselves
        precision=precision,
        max_epochs=settings.epochs,
        callbacks=callbacks,
        plugins=[WholeCheckpoints()],
        logger=TensorBoardLogger(logs, name=name, version=""),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )


def _strategy(devices: Devices) -> str | Strategy:
    if devices.processes == 1:
        return "auto"
    if not devices.sharded:
        return DDPStrategy()
    return ModelParallelStrategy(
        data_parallel_size=devices.processes,
        tensor_parallel_size=1,
        save_distributed_checkpoint=False,  # one file, which any number of devices can take up
    )


def started_processes() -> tuple[str, int] | None:
    """Who started this process as one of how many: torchrun, SLURM's srun, or nobody."""
    if TorchElasticEnvironment.detect():
        return "torchrun", TorchElasticEnvironment().world_size()
    # In a batch script of SLURM there is a number of tasks as well, but only srun makes steps.
    if "SLURM_STEP_ID" in os.environ and SLURMEnvironment.detect():
        return "SLURM", SLURMEnvironment().world_size()
    return None


def restart_advice() -> str | None:
    """What torchrun must be told so that its restarts work: else they read dead processes' store.

    https://github.com/pytorch/pytorch/issues/135712
    """
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not shared or os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") == "0":
        return None
    return "for --max-restarts, start torchrun with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"


def check_started(devices: Devices) -> None:
    """Refuse processes that would train each for itself, into one folder.

    Raises:
        DeviceError: torchrun or SLURM started another number of processes than was asked for.
    """
    started = started_processes()
    if started is None:
        if devices.num_nodes > 1:
            raise DeviceError(
                f"expected torchrun or SLURM to start the processes of {devices.num_nodes} "
                "machines, got neither"
            )
        return
    launcher, processes = started
    if processes != devices.processes:
        raise DeviceError(
            f"expected --devices and --num-nodes to make up the {processes} processes that "
            f"{launcher} started, got {devices.devices} × {devices.num_nodes}"
        )


def check_devices(settings: StudySettings, data: StudyData) -> None:
    """Refuse devices that are not there, and batches that they can't share.

    Raises:
        DeviceError: it is so.
    """
    if torch.cuda.is_available() and settings.devices.devices > torch.cuda.device_count():
        raise DeviceError(
            f"expected at most --devices {torch.cuda.device_count()}, the GPUs of this machine, "
            f"got {settings.devices.devices}"
        )
    settings.devices.check_batch(settings.batch_size, len(data.train))


class WithinEpochs(ModelCheckpoint):
    """Checkpoints by steps or minutes, beside those at the end of every epoch.

    None after an epoch's last step: Lightning would go on from it with the next epoch, and leave
    out the validation and the record of this one.
    """

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time."""
        if not trainer.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


def checkpointing(folder: Path, every: str) -> list[Callback]:
    """Checkpoints at the end of every epoch, and within epochs; of each kind the last is kept."""
    options: dict[str, Any] = {
        "dirpath": folder,
        "filename": "{epoch:05d}-{step:09d}",  # by name in the order in which they were made
        "enable_version_counter": False,
    }
    return [
        ModelCheckpoint(save_on_train_epoch_end=True, **options),
        WithinEpochs(**checkpoint_interval(every), **options),
    ]


class ProgressFile(Callback):
    """Tells the study's process how far the training is, through a small file."""

    def __init__(self, path: Path, epochs: int, batches: int) -> None:
        self.path = path
        self.total = epochs * batches
        self.epochs = epochs
        self._told = -math.inf

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the number of steps done, twice a second at most."""
        if trainer.is_global_zero and perf_counter() - self._told > 0.5:
            self._told = perf_counter()
            write_json(
                self.path,
                {
                    "step": trainer.global_step,
                    "steps": self.total,
                    "epoch": trainer.current_epoch + 1,
                    "epochs": self.epochs,
                },
            )
