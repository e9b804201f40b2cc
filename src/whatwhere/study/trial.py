"""One trial: build a variant's network, train it, measure it, look at its gates, write it down.

``trials/ID/result.json`` is written last and whole; where it stands, the trial is done. Until
then ``trials/ID/training/`` holds Lightning's checkpoint of the last finished epoch, from which a
killed trial goes on.
"""

import logging
import math
import shutil
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn

from whatwhere import checkpoints
from whatwhere.files import read_json, write_json
from whatwhere.look import diagnose
from whatwhere.look.pictures import gate_figure
from whatwhere.study.build import backbone_of, build_network, load_data, part_of
from whatwhere.study.data import StudyData
from whatwhere.study.machine import this_machine
from whatwhere.study.settings import StudySettings, Variant
from whatwhere.study.training import (
    Classifier,
    DivergedError,
    evaluation_loader,
    training_loader,
)

DONE = ("finished", "diverged")
PICTURED_SAMPLES = 4
DIAGNOSED_SAMPLES = 512


@dataclass(frozen=True)
class Trial:
    """One variant with one seed on all or a share of the training samples, in a study's folder."""

    run: Path
    settings: StudySettings
    variant: Variant
    seed: int
    device: int = 0
    fraction: float = 1.0

    @property
    def name(self) -> str:
        """The trial's folder below ``trials/``."""
        part = "" if self.fraction == 1 else f"-part{self.fraction:g}"
        return f"{self.variant.slug}{part}-seed{self.seed}"

    @property
    def folder(self) -> Path:
        """Where the trial keeps everything."""
        return self.run / "trials" / self.name

    def result(self) -> dict[str, Any] | None:
        """The trial's record, if it has one; a file that is none counts for nothing."""
        try:
            record = read_json(self.folder / "result.json")
        except ValueError:
            return None
        return record if isinstance(record, dict) and "status" in record else None

    def done(self) -> bool:
        """Whether the trial need not run again: it finished, or diverged, as it would again."""
        record = self.result()
        return record is not None and record["status"] in DONE


def run_trial(trial: Trial) -> None:
    """Run or resume a trial to its record; what goes wrong is in the record, not raised."""
    if trial.done():
        return
    trial.folder.mkdir(parents=True, exist_ok=True)
    started = perf_counter()
    try:
        with _quiet():
            record = _train_and_measure(trial)
    except DivergedError as error:
        record = _record(trial, status="diverged", reason=str(error))
        record["epochs"] = error.history
    except Exception as error:  # the study goes on without the trial, and says so
        (trial.folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        record = _record(trial, status="failed", reason=f"{type(error).__name__}: {error}")
    record["seconds"] = perf_counter() - started
    write_json(trial.folder / "result.json", record)
    if record["status"] in DONE:
        shutil.rmtree(trial.folder / "training", ignore_errors=True)


def _record(trial: Trial, *, status: str, reason: str | None = None) -> dict[str, Any]:
    return {
        "id": trial.name,
        "variant": trial.variant.name,
        "seed": trial.seed,
        "fraction": trial.fraction,
        "status": status,
        "reason": reason,
        "epochs": [],
        "test": None,
        "gates": [],
        "resumed": 0,
        "ran_on": this_machine(),
        "checkpoint": None,
        "picture": None,
    }


def _train_and_measure(trial: Trial) -> dict[str, Any]:
    study_data = part_of(load_data(trial.settings.data), trial.fraction, seed=trial.seed)
    backbone = backbone_of(trial.settings, study_data)
    network = build_network(
        backbone,
        trial.variant,
        where=trial.settings.where,
        start=trial.settings.start,
        shape=study_data.shape,
        seed=trial.seed,
    )
    classifier, resumed = _fit(trial, network, study_data)
    record = _record(trial, status="finished")
    record["resumed"] = resumed
    record["epochs"] = classifier.history
    record["test"] = _test(trial, classifier, study_data)
    network.eval()
    if trial.variant.gate is not None:
        record["gates"] = _look(network, study_data)
        if trial.seed == 0 and trial.fraction == 1:
            record["picture"] = _draw(trial, network, study_data)
    path = trial.folder / "model.safetensors"
    checkpoints.save(
        network,
        path,
        **backbone.recipe(width=trial.variant.width),
        facts={
            "backbone": trial.settings.backbone,
            "classes": study_data.classes,
            "shape": study_data.shape,
            "width": trial.variant.width,
            "mean": study_data.mean,
            "std": study_data.std,
            "data": study_data.name,
            "variant": trial.variant.name,
            "seed": trial.seed,
            "test": record["test"],
        },
    )
    record["checkpoint"] = str(path.relative_to(trial.run))
    return record


def _fit(trial: Trial, network: nn.Module, study_data: StudyData) -> tuple[Classifier, int]:
    settings = trial.settings
    loader = training_loader(study_data.train, settings, seed=trial.seed)
    classifier = Classifier(
        network,
        settings,
        classes=len(study_data.classes),
        steps=settings.epochs * len(loader),
        seed=trial.seed,
    )
    resumes = _count_start(trial)
    trainer = _trainer(
        trial,
        callbacks=[
            ModelCheckpoint(
                dirpath=trial.folder / "training",
                filename="{epoch:05d}",
                save_on_train_epoch_end=True,
                enable_version_counter=False,
            ),
            _Progress(trial.folder / "progress.json", settings.epochs, len(loader)),
        ],
    )
    validation = evaluation_loader(study_data.val, settings)
    for saved in sorted((trial.folder / "training").glob("*.ckpt"), reverse=True):
        try:
            torch.load(saved, map_location="cpu", weights_only=True)
        except Exception:  # torn by a full disk, say: the one before it, or the start, will do
            saved.unlink()
            continue
        trainer.fit(classifier, loader, validation, ckpt_path=str(saved), weights_only=True)
        return classifier, resumes
    trainer.fit(classifier, loader, validation)
    return classifier, resumes


def _count_start(trial: Trial) -> int:
    # How often the trial was taken up again, over all processes that died with it.
    path = trial.folder / "starts.json"
    starts: int = read_json(path) or 0
    write_json(path, starts + 1)
    return starts


def _trainer(trial: Trial, callbacks: list[Callback]) -> lightning.Trainer:
    on_gpu = torch.cuda.is_available()
    precision: Any = trial.settings.used_precision()
    return lightning.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=[trial.device] if on_gpu else 1,
        precision=precision,
        max_epochs=trial.settings.epochs,
        callbacks=callbacks,
        logger=TensorBoardLogger(trial.run / "tensorboard", name=trial.name, version=""),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )


def _test(trial: Trial, classifier: Classifier, study_data: StudyData) -> dict[str, float]:
    trainer = _trainer(trial, callbacks=[])
    trainer.test(classifier, evaluation_loader(study_data.test, trial.settings), verbose=False)
    return classifier.collect("final")


def _look(network: nn.Module, study_data: StudyData) -> list[dict[str, Any]]:
    count = min(len(study_data.test), DIAGNOSED_SAMPLES)
    inputs = torch.stack([study_data.test[index][0] for index in range(count)])
    records = diagnose(network, inputs.split(64), truth=study_data.truth)
    return [record.as_dict() for record in records]


def _draw(trial: Trial, network: nn.Module, study_data: StudyData) -> str:
    spread = range(0, len(study_data.test), max(1, len(study_data.test) // PICTURED_SAMPLES))
    chosen = list(spread)[:PICTURED_SAMPLES]
    samples: Tensor = torch.stack([study_data.test[index][0] for index in chosen])
    titles = [study_data.classes[study_data.test[index][1]] for index in chosen]
    figure = gate_figure(network, samples, display=study_data.unnormalise(samples), titles=titles)
    path = trial.folder / "gates.png"
    figure.savefig(path, dpi=110, bbox_inches="tight")
    return str(path.relative_to(trial.run))


class _Progress(Callback):
    """Tells the study's process how far the trial is, through a small file."""

    def __init__(self, path: Path, epochs: int, batches: int) -> None:
        self.path = path
        self.total = epochs * batches
        self.epochs = epochs
        self._told = -math.inf

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the number of steps done, twice a second at most."""
        if perf_counter() - self._told > 0.5:
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


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's advice on matters the study decides itself."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for pattern in (
            ".*does not have many workers.*",
            ".*smaller than the logging interval.*",
            ".*Checkpoint directory .* exists and is not empty.*",
            ".*LeafSpec.*is deprecated.*",
            ".*lr_scheduler.step.*before.*optimizer.step.*",
        ):
            warnings.filterwarnings("ignore", message=pattern)
        yield
