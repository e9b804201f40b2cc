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
from torch import nn

from whatwhere import checkpoints
from whatwhere.files import read_told, write_json
from whatwhere.study.build import (
    DataChangedError,
    backbone_of,
    build_network,
    load_unchanged,
    part_of,
)
from whatwhere.study.conditions import deterministic, is_first_process, quiet
from whatwhere.study.data import StudyData
from whatwhere.study.faults import ends_study, gone, without_determinism
from whatwhere.study.loaders import Batches, training_loader
from whatwhere.study.looks import draw_gates, gate_records
from whatwhere.study.machine import this_machine
from whatwhere.study.resuming import newest_checkpoint
from whatwhere.study.settings import StudySettings, Variant
from whatwhere.study.trainer import (
    ProgressFile,
    check_devices,
    checkpointing,
    make_trainer,
)
from whatwhere.study.training import Classifier, DivergedError

DONE = ("finished", "diverged")
RECORDED = ("id", "variant", "seed", "status", "reason", "epochs", "test", "picture", "seconds")


@dataclass(frozen=True)
class Trial:
    """One variant with one seed on all or a share of the training samples, in a study's folder.

    With ``fingerprint``, that of the data the study began with, it runs on no others.
    """

    run: Path
    settings: StudySettings
    variant: Variant
    seed: int
    device: int = 0
    fraction: float = 1.0
    fingerprint: str | None = None

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
    except DataChangedError:
        raise
    except DivergedError as error:
        record = empty_record(trial, status="diverged", reason=str(error))
        record["epochs"] = error.history
    except Exception as error:  # the study goes on without the trial, and says so
        if (ended := ends_study(error, trial.run)) is not None:
            raise ended from error
        failure = traceback.format_exc()
        record = empty_record(trial, status="failed", reason=_reason(error, trial.settings))
    record["seconds"] = perf_counter() - started
    if of_study and not (trial.run / "study.json").exists():
        raise gone(trial.run)  # trainers make missing folders anew
    if is_first_process():
        if failure:
            (trial.folder / "error.txt").write_text(failure, encoding="utf-8")
        write_json(trial.folder / "result.json", record)
        if record["status"] in DONE:
            shutil.rmtree(trial.folder / "training", ignore_errors=True)
    return record


def _reason(error: Exception, settings: StudySettings) -> str:
    if (forbidden := without_determinism(error)) is not None:
        return forbidden
    reason = f"{type(error).__name__}: {error}"
    if settings.devices.processes > 1 and "onnection" in reason:
        return f"another process of this training was lost ({reason})"
    return reason


def empty_record(trial: Trial, *, status: str, reason: str | None = None) -> dict[str, Any]:
    """What every record has, before it is filled in."""
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
    settings = trial.settings
    study_data = part_of(
        load_unchanged(settings.data, trial.fingerprint), trial.fraction, seed=trial.seed
    )
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
        record["gates"] = gate_records(network, study_data)
        if trial.seed == 0 and trial.fraction == 1:
            picture = trial.folder / "gates.png"
            draw_gates(network, study_data, picture)
            record["picture"] = str(picture.relative_to(trial.run))
    path = trial.folder / "model.safetensors"
    checkpoints.save(
        network,
        path,
        **backbone.recipe(width=trial.variant.width),
        facts={
            "backbone": trial.settings.backbone,
            "classes": study_data.classes,
            "shape": study_data.shape,
            "stored": study_data.stored,
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
    saved = newest_checkpoint(trial.folder / "training")
    trainer.fit(
        classifier,
        datamodule=batches,
        ckpt_path=None if saved is None else str(saved),
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
