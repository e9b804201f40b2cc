"""Training of one network by Lightning: the module, the data's order, and the epoch's record."""

import math
import os
from collections.abc import Iterator
from time import perf_counter
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from whatwhere.study.data import Augmented, Split
from whatwhere.study.settings import StudySettings

Batch = tuple[Tensor, Tensor]


class DivergedError(RuntimeError):
    """A loss that is no longer a finite number, with the record of the epochs before."""

    def __init__(self, which: str, loss: float, module: "Classifier") -> None:
        super().__init__(
            f"the {which} loss became {loss} in epoch {module.current_epoch + 1}, step "
            f"{module.global_step + 1}; a lower --learning-rate may help"
        )
        self.history = module.history


class EpochOrder(Sampler[tuple[int, int]]):
    """Every index once per epoch, in an order that depends on the seed and the epoch alone."""

    def __init__(self, length: int, *, seed: int) -> None:
        self.length = length
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        for index in torch.randperm(self.length, generator=generator).tolist():
            yield self.epoch, index


class EpochView(Dataset[tuple[Tensor, int]]):
    """Augmented samples by (epoch, index), so that loader processes need no other state."""

    def __init__(self, augmented: Augmented) -> None:
        self.augmented = augmented

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, index = key
        self.augmented.set_epoch(epoch)
        return self.augmented[index]


def training_loader(split: Split, settings: StudySettings, *, seed: int) -> DataLoader[Any]:
    """Augmented batches in the seed's order; a last short batch is dropped, as batch norms ask."""
    return DataLoader(
        EpochView(Augmented(split, seed=seed)),
        batch_size=settings.batch_size,
        sampler=EpochOrder(len(split), seed=seed),
        drop_last=len(split) > settings.batch_size,
        num_workers=_loader_processes(),
    )


def evaluation_loader(split: Split, settings: StudySettings) -> DataLoader[Any]:
    """The samples as they are, in order."""
    return DataLoader(split, batch_size=2 * settings.batch_size, num_workers=_loader_processes())


def _loader_processes() -> int:
    # On a CPU the trials themselves use every core; beside a GPU the cores are free to decode.
    if not torch.cuda.is_available():
        return 0
    cores = os.cpu_count()
    return 0 if cores is None else min(8, cores // torch.cuda.device_count())


class Classifier(lightning.LightningModule):
    """A network, its loss and its metrics, and the record of its epochs.

    The random state of every step is set from the seed and the step's number, so that a training
    that was killed and resumed takes the same steps as one that was not.
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
        self.training_loss = MeanMetric()
        self.scores = nn.ModuleDict({stage: _scores(classes) for stage in ("validation", "final")})
        self.losses = nn.ModuleDict({stage: MeanMetric() for stage in ("validation", "final")})
        self._measured: dict[str, float] = {}
        self._started = 0.0

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

    def on_train_epoch_start(self) -> None:
        """Start the epoch's clock."""
        self._started = perf_counter()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Fix the random state of this step."""
        torch.manual_seed(self.seed * 1_000_003 + self.global_step)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross entropy of one batch; a loss that is not finite ends the training."""
        x, labels = batch
        loss = F.cross_entropy(self.network(x), labels)
        if not math.isfinite(loss.item()):
            raise DivergedError("training", loss.item(), self)
        self.training_loss.update(loss.detach(), len(labels))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one batch of the validation split."""
        self._measure("validation", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one batch of the test split."""
        self._measure("final", batch)

    def on_validation_epoch_end(self) -> None:
        """Note the validation split's numbers."""
        self._measured = self.collect("validation")
        self.log_dict({f"validation/{name}": value for name, value in self._measured.items()})

    def on_train_epoch_end(self) -> None:
        """Note the epoch."""
        train_loss = float(self.training_loss.compute())
        self.training_loss.reset()
        self.log("train/loss", train_loss)
        self.history.append(
            {
                "epoch": self.current_epoch + 1,
                "train_loss": train_loss,
                **{f"val_{name}": value for name, value in self._measured.items()},
                "seconds": perf_counter() - self._started,
            }
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the record with the weights."""
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the record up again."""
        self.history = checkpoint["history"]

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
        measured = {name: float(value) for name, value in scores.compute().items()}
        measured["loss"] = float(loss.compute())
        scores.reset()
        loss.reset()
        if not math.isfinite(measured["loss"]):
            raise DivergedError(stage, measured["loss"], self)
        return measured


def _scores(classes: int) -> MetricCollection:
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(classes, average="micro"),
            "macro_f1": MulticlassF1Score(classes, average="macro"),
        }
    )
