"""Training of one network by Lightning: the module and the epoch's record."""

import math
from time import perf_counter
from typing import Any

import lightning
import numpy as np
import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassF1Score, MulticlassStatScores

from whatwhere.study.settings import StudySettings
from whatwhere.study.sharding import broadcast_buffers, shard

Batch = tuple[Tensor, Tensor]


class DivergedError(RuntimeError):
    """A loss that is no longer a finite number, with the record of the epochs before."""

    def __init__(self, which: str, loss: float, module: "Classifier") -> None:
        super().__init__(
            f"the {which} loss became {loss} in epoch {module.current_epoch + 1}, step "
            f"{module.global_step + 1}; a lower --learning-rate may help"
        )
        self.history = module.history


class Classifier(lightning.LightningModule):
    """A network, its loss and its metrics, and the record of its epochs.

    The random state of every step is set from the seed, the step's number and the process, so that
    a training that was killed and resumed takes the same steps as one that was not. Losses are
    those of all processes together, and so every process has the same record.
    """

    def __init__(
        self, network: nn.Module, settings: StudySettings, *, classes: int, steps: int, seed: int
    ) -> None:
        super().__init__()
        self.network = network
        self.settings = settings
        self.steps = steps
        self.seed = seed
        self.history: list[dict[str, float]] = []
        self.scores = nn.ModuleDict({stage: _scores(classes) for stage in ("validation", "final")})
        self.losses = nn.ModuleDict({stage: MeanMetric() for stage in ("validation", "final")})
        self.final: dict[str, float] = {}
        self._measured: dict[str, float] = {}
        self._loss = 0.0  # summed over the samples of the epoch so far
        self._samples = 0
        self._started = 0.0
        self._parallel = False

    def configure_model(self) -> None:
        """Make the network ready for several processes, once; Lightning asks before every stage."""
        devices = self.settings.devices
        if self._parallel or devices.processes == 1:
            return
        self._parallel = True
        if devices.sync_batchnorm:
            self.network = nn.SyncBatchNorm.convert_sync_batchnorm(self.network)
        if devices.sharded:
            assert self.device_mesh is not None
            shard(self.network, self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> Any:
        """AdamW under one cosine cycle: up for a tenth of the steps, then down to zero."""
        optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
        )
        warm = max(1, self.steps // 10)

        def share(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            return (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm))) / 2

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Check that all processes go on from the same step.

        Raises:
            RuntimeError: they do not.
        """
        steps = self._of_all(torch.tensor([float(self.global_step)], device=self.device))
        if not bool((steps == steps[0]).all()):
            raise RuntimeError(
                "expected a folder that all machines share, got processes that go on from "
                f"different steps, {', '.join(f'{step:.0f}' for step in steps.tolist())}"
            )

    def on_train_epoch_start(self) -> None:
        """Start the epoch's clock; not called where a training goes on within an epoch."""
        self._started = perf_counter()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Fix the random state of this step in this process."""
        entropy = np.random.SeedSequence((self.seed, self.global_step, self.global_rank))
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross entropy of one batch; a loss that is not finite ends the training everywhere."""
        x, labels = batch
        loss = F.cross_entropy(self.network(x), labels)
        mean = float(self._of_all(loss.detach().reshape(1)).mean())  # the shares are equal
        if not math.isfinite(mean):
            raise DivergedError("training", mean, self)
        count = len(labels) * self.trainer.world_size
        self._loss += mean * count
        self._samples += count
        return loss

    def on_validation_start(self) -> None:
        """Evaluate one network, not one with other running statistics in each process."""
        self._share_buffers()

    def on_test_start(self) -> None:
        """The same before the test."""
        self._share_buffers()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one batch of the validation split."""
        self._measure("validation", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one batch of the test split."""
        self._measure("final", batch)

    def on_validation_epoch_end(self) -> None:
        """Note the validation split's numbers."""
        self._measured = self.collect("validation")
        named = {f"validation/{name}": value for name, value in self._measured.items()}
        self.log_dict(named, rank_zero_only=True)

    def on_test_epoch_end(self) -> None:
        """Note the test split's numbers, while the processes still know of each other."""
        self.final = self.collect("final")

    def on_train_epoch_end(self) -> None:
        """Note the epoch."""
        train_loss = self._loss / self._samples
        self._loss, self._samples = 0.0, 0
        self.log("train/loss", train_loss, rank_zero_only=True)
        self.history.append(
            {
                "epoch": self.current_epoch + 1,
                "train_loss": train_loss,
                **{f"val_{name}": value for name, value in self._measured.items()},
                "seconds": perf_counter() - self._started,
            }
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the record, and what there is of the epoch's, with the weights."""
        checkpoint["history"] = self.history
        checkpoint["epoch_so_far"] = {
            "loss": self._loss,
            "samples": self._samples,
            "seconds": perf_counter() - self._started,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the record up again."""
        self.history = checkpoint["history"]
        so_far = checkpoint["epoch_so_far"]
        self._loss, self._samples = so_far["loss"], so_far["samples"]
        self._started = perf_counter() - so_far["seconds"]

    def _of_all(self, value: Tensor) -> Tensor:
        """A tensor of one value in each process as one of all values, the same in each."""
        if self.trainer.world_size == 1:
            return value
        values = [torch.empty_like(value) for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather(values, value)
        return torch.cat(values)

    def _share_buffers(self) -> None:
        # DistributedDataParallel does it by itself, in every step.
        if self.settings.devices.sharded:
            broadcast_buffers(self.network)

    def _measure(self, stage: str, batch: Batch) -> None:
        x, labels = batch
        logits = self.network(x)
        self.scores[stage].update(logits, labels)  # type: ignore[operator]
        self.losses[stage].update(  # type: ignore[operator]
            F.cross_entropy(logits, labels), len(labels)
        )

    def collect(self, stage: str) -> dict[str, float]:
        """The numbers of a stage, "validation" or "final", since the last call.

        Raises:
            DivergedError: the loss is not finite.
        """
        scores: Any = self.scores[stage]
        loss: Any = self.losses[stage]
        found = scores.compute()
        # Not a metric's single-precision share: seeds that gain the same number of samples would
        # differ in its last digits, and look like an interval of no width.
        right, *_, samples = found["counts"].tolist()
        measured = {
            "accuracy": right / samples,
            "macro_f1": float(found["macro_f1"]),
            "loss": float(loss.compute()),
        }
        scores.reset()
        loss.reset()
        if not math.isfinite(measured["loss"]):
            raise DivergedError(stage, measured["loss"], self)
        return measured


def _scores(classes: int) -> MetricCollection:
    return MetricCollection(
        {
            "counts": MulticlassStatScores(classes, average="micro"),
            "macro_f1": MulticlassF1Score(classes, average="macro"),
        }
    )
