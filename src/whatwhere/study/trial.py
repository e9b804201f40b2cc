"""One trial: build a variant's network, train it, measure it, look at its gates, write it down.

``trials/ID/result.json`` is written last and whole; where it stands, the trial is done. Until
then ``trials/ID/training/`` holds Lightning's checkpoint of the last finished epoch, from which a
killed trial goes on.
"""

import shutil
import traceback
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
from whatwhere.files import read_told, write_json
from whatwhere.look import diagnose
from whatwhere.look.pictures import gate_figure
from whatwhere.study.build import backbone_of, build_network, load_data
from whatwhere.study.conditions import Progress, deterministic, quiet
from whatwhere.study.data import StudyData
from whatwhere.study.faults import ends_study, gone, without_determinism
from whatwhere.study.resuming import WholeCheckpoints, newest_checkpoint
from whatwhere.study.settings import StudyError, StudySettings, Variant
from whatwhere.study.training import (
    Classifier,
    DivergedError,
    evaluation_loader,
    training_loader,
)

DONE = ("finished", "diverged")
RECORDED = ("id", "variant", "seed", "status", "reason", "epochs", "test", "picture", "seconds")
PICTURED_SAMPLES = 4
DIAGNOSED_SAMPLES = 512


@dataclass(frozen=True)
class Trial:
    """One variant with one seed, in one study's folder.

    With ``fingerprint``, that of the data the study began with, it runs on no others.
    """

    run: Path
    settings: StudySettings
    variant: Variant
    seed: int
    device: int = 0
    fingerprint: str | None = None

    @property
    def name(self) -> str:
        """The trial's folder below ``trials/``."""
        return f"{self.variant.slug}-seed{self.seed}"

    @property
    def folder(self) -> Path:
        """Where the trial keeps everything."""
        return self.run / "trials" / self.name

    def result(self) -> dict[str, Any] | None:
        """The trial's record, if it has one; a file that is none counts for nothing."""
        record = read_told(self.folder / "result.json")
        if record.get("id") != self.name:  # another trial's, say: it must not count twice
            return None
        return record if all(key in record for key in RECORDED) else None

    def done(self) -> bool:
        """Whether the trial need not run again: it finished, or diverged, as it would again."""
        record = self.result()
        return record is not None and record["status"] in DONE


def run_trial(trial: Trial) -> None:
    """Run or resume a trial to its record; what goes wrong is in the record, not raised.

    Raises:
        StudyError: no other trial would go right either: the disk is full, or the folder or the
            data have gone or changed.
    """
    if trial.done():
        return
    trial.folder.mkdir(parents=True, exist_ok=True)
    of_study = (trial.run / "study.json").exists()
    started = perf_counter()
    try:
        with quiet(), deterministic(trial.settings.deterministic):
            record = _train_and_measure(trial)
    except _DataError:
        raise
    except DivergedError as error:
        record = _record(trial, status="diverged", reason=str(error))
        record["epochs"] = error.history
    except Exception as error:  # the study goes on without the trial, and says so
        if (ended := ends_study(error, trial.run)) is not None:
            raise ended from error
        (trial.folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        forbidden = without_determinism(error)
        reason = f"{type(error).__name__}: {error}" if forbidden is None else forbidden
        record = _record(trial, status="failed", reason=reason)
    record["seconds"] = perf_counter() - started
    if of_study and not (trial.run / "study.json").exists():
        raise gone(trial.run)  # trainers make missing folders anew
    write_json(trial.folder / "result.json", record)
    if record["status"] in DONE:
        shutil.rmtree(trial.folder / "training", ignore_errors=True)


def _record(trial: Trial, *, status: str, reason: str | None = None) -> dict[str, Any]:
    return {
        "id": trial.name,
        "variant": trial.variant.name,
        "seed": trial.seed,
        "status": status,
        "reason": reason,
        "epochs": [],
        "test": None,
        "gates": [],
        "resumed": 0,
        "checkpoint": None,
        "picture": None,
    }


def _train_and_measure(trial: Trial) -> dict[str, Any]:
    study_data = _data(trial)
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
        if trial.seed == 0:
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


class _DataError(StudyError):
    """The data are no longer what the study began with."""


def _data(trial: Trial) -> StudyData:
    # This process reads the data anew, some time after the study's process did.
    try:
        study_data = load_data(trial.settings.data)
    except (ValueError, OSError) as error:
        raise _DataError(
            f"the data could be read when the study began, and now can't: {error}. Put them back, "
            "and the same command goes on"
        ) from error
    if trial.fingerprint not in (None, study_data.fingerprint):
        raise _DataError(
            f"the data have changed while the study ran (fingerprint {trial.fingerprint}, now "
            f"{study_data.fingerprint}): no trial ran on the changed ones. Put the former back, "
            "and the same command goes on, or choose another --out"
        )
    return study_data


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
            Progress(trial.folder / "progress.json", settings.epochs, len(loader)),
        ],
    )
    validation = evaluation_loader(study_data.val, settings)
    saved = newest_checkpoint(trial.folder / "training")
    trainer.fit(classifier, loader, validation, ckpt_path=saved, weights_only=True)
    return classifier, resumes


def _count_start(trial: Trial) -> int:
    # How often the trial was taken up again, over all processes that died with it.
    path = trial.folder / "starts.json"
    starts: int = read_told(path).get("starts", 0)
    write_json(path, {"starts": starts + 1})
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
        plugins=[WholeCheckpoints()],
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
