"""One trial: build a variant's network, train it, measure it, look at its gates, write it down.

``trials/ID/result.json`` is written last and whole; where it stands, the trial is done. Until
then ``trials/ID/training/`` holds Lightning's last checkpoints, at the end of an epoch and within
one, from which a killed trial goes on at the very sample.
"""

import shutil
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from whatwhere import checkpoints
from whatwhere.files import read_told, write_json
from whatwhere.look import diagnose
from whatwhere.look.pictures import gate_figure
from whatwhere.study.build import LostDataError, backbone_of, build_network, same_data
from whatwhere.study.data import StudyData
from whatwhere.study.faults import ends_study, gone, without_determinism
from whatwhere.study.loaders import Batches, training_loader
from whatwhere.study.resuming import newest_checkpoint
from whatwhere.study.settings import StudySettings, Variant
from whatwhere.study.trainer import (
    ProgressFile,
    check_devices,
    checkpointing,
    deterministic,
    is_first_process,
    make_trainer,
    quiet,
)
from whatwhere.study.training import Classifier, DivergedError

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


@dataclass(frozen=True)
class Training(Trial):
    """A trial in a folder of its own, which belongs to no study."""

    @property
    def folder(self) -> Path:
        """Where the training keeps everything."""
        return self.run


def run_trial(trial: Trial) -> dict[str, Any]:
    """Run or resume a trial to its record; what goes wrong is in the record, not raised.

    Where Lightning starts further processes, they run the command of this one, and so this
    function too. The first of them writes; the others return what they know.

    Raises:
        StudyError: no other trial would go right either: the disk is full, or the folder or the
            data have gone or changed.
    """
    known = trial.result()
    if known is not None and known["status"] in DONE:
        return known
    trial.folder.mkdir(parents=True, exist_ok=True)
    of_study = (trial.run / "study.json").exists()
    started = perf_counter()
    failure = ""
    try:
        with quiet(), deterministic(trial.settings.deterministic):
            record = _train_and_measure(trial)
    except LostDataError:
        raise
    except DivergedError as error:
        record = empty_record(trial, status="diverged", reason=str(error))
        record["epochs"] = error.history
    except Exception as error:  # the study goes on without the trial, and says so
        if (ended := ends_study(error, trial.run)) is not None:
            raise ended from error
        failure = traceback.format_exc()
        forbidden = without_determinism(error)
        reason = f"{type(error).__name__}: {error}" if forbidden is None else forbidden
        if trial.settings.devices.processes > 1 and "onnection" in reason:
            reason = f"another process of this training was lost ({reason})"
        record = empty_record(trial, status="failed", reason=reason)
    record["seconds"] = perf_counter() - started
    if is_first_process():
        if of_study and not (trial.run / "study.json").exists():
            raise gone(trial.run)  # trainers make missing folders anew
        if failure:
            (trial.folder / "error.txt").write_text(failure, encoding="utf-8")
        write_json(trial.folder / "result.json", record)
        if record["status"] in DONE:
            shutil.rmtree(trial.folder / "training", ignore_errors=True)
    return record


def empty_record(trial: Trial, *, status: str, reason: str | None = None) -> dict[str, Any]:
    """What every record has, before it is filled in."""
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
    settings = trial.settings
    study_data = same_data(settings.data, trial.fingerprint)
    check_devices(settings, study_data)
    backbone = backbone_of(settings, study_data)

    def build() -> nn.Module:
        return build_network(
            backbone,
            trial.variant,
            where=settings.where,
            start=settings.start,
            shape=study_data.shape,
            seed=trial.seed,
        )

    classifier, trainer, resumed = _fit(trial, build(), study_data)
    record = empty_record(trial, status="finished")
    record["resumed"] = resumed
    record["epochs"] = classifier.history
    record["test"] = classifier.final
    network = _whole(trainer, classifier, build)
    if network is None:
        return record
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


def _fit(
    trial: Trial, network: nn.Module, study_data: StudyData
) -> tuple[Classifier, lightning.Trainer, int]:
    settings = trial.settings
    batches = Batches(study_data, settings, seed=trial.seed)
    steps = len(training_loader(study_data.train, settings, seed=trial.seed))
    classifier = Classifier(
        network,
        settings,
        classes=len(study_data.classes),
        steps=settings.epochs * steps,
        seed=trial.seed,
    )
    trainer = make_trainer(
        settings,
        device=trial.device,
        logs=trial.run / "tensorboard",
        name=trial.name,
        callbacks=[
            *checkpointing(trial.folder / "training", settings.checkpoint_every),
            ProgressFile(trial.folder / "progress.json", settings.epochs, steps),
        ],
    )
    resumes = _count_start(trial) if is_first_process() else 0
    saved = newest_checkpoint(trial.folder / "training", remove=is_first_process())
    trainer.fit(
        classifier,
        datamodule=batches,
        ckpt_path=saved,
        weights_only=True,
    )
    trainer.test(classifier, datamodule=batches, verbose=False)
    return classifier, trainer, resumes


def _whole(
    trainer: lightning.Trainer, classifier: Classifier, build: Callable[[], nn.Module]
) -> nn.Module | None:
    """The trained network as it was built, without what several processes need; in the first."""
    if trainer.world_size == 1:
        return classifier.network
    state = trainer.strategy.lightning_module_state_dict()  # of all parts: every process takes part
    if not is_first_process():
        return None
    network = build()
    own = {k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")}
    network.load_state_dict(own)
    return network


def _count_start(trial: Trial) -> int:
    # How often the trial was taken up again, over all processes that died with it.
    path = trial.folder / "starts.json"
    starts: int = read_told(path).get("starts", 0)
    write_json(path, {"starts": starts + 1})
    return starts


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
