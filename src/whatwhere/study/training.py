"""Training of one network by Lightning: the module and the epoch's record."""

import math
from time import perf_counter
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

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
