"""One training in a folder of its own: the trial of a study, without the study.

Every process of the training runs this, whether Lightning starts them, torchrun or SLURM.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from whatwhere.files import read_json, remove_parts, write_json
from whatwhere.study.build import load_data
from whatwhere.study.conditions import is_first_process
from whatwhere.study.faults import ends_study
from whatwhere.study.locks import HeldError, locked
from whatwhere.study.settings import StudyError, StudySettings, changes, parse_variants
from whatwhere.study.trainer import (
    check_devices,
    check_started,
    restart_advice,
)
from whatwhere.study.trial import Training, run_trial


def train(
    settings: StudySettings, folder: Path, *, seed: int, console: Console | None = None
) -> dict[str, Any]:
    """Train one network, or go on with it, to its record.

    Args:
        settings: with one variant.
        folder: where ``result.json``, ``model.safetensors`` and TensorBoard's logs come to be.
        seed: of initial weights, data order and augmentation.
        console: where a line at the start and the end goes; by default standard error.

    Returns:
        The content of ``result.json``.

    Raises:
        StudyError: the folder holds another training, or another process is at work in it.
        DeviceError: the devices can't be had, or can't share the batches.
    """
    first = is_first_process()
    if console is None:
        console = Console(
            stderr=True, quiet=not first, markup=False, highlight=False, soft_wrap=True
        )
    check_started(settings.devices)
    data = load_data(settings.data)
    check_devices(settings, data)
    folder.mkdir(parents=True, exist_ok=True)
    (variant,) = [v for v in parse_variants(settings.variants) if v.name in settings.variants]
    training = Training(folder, settings, variant, seed)
    try:
        with locked(folder / ".lock", timeout=0) if first else nullcontext():
            asked = {
                **settings.fixed(),
                "variant": variant.name,
                "seed": seed,
                "fingerprint": data.fingerprint,
            }
            _check_folder(folder, asked)
            if first:
                remove_parts(folder)
                write_json(folder / "training.json", asked)
            console.print(
                f"{variant.name} on {data.name}, seed {seed}, on {settings.devices.processes} "
                f"device{'s' if settings.devices.processes > 1 else ''}: {folder}"
            )
            advice = restart_advice()
            if advice is not None:
                console.print(advice)
            record = run_trial(training)
    except KeyboardInterrupt:
        console.print("interrupted: the same command goes on from here")
        raise
    except SystemExit as error:  # Lightning's, after a signal; SIGTERM's is with success
        console.print("interrupted: the same command goes on from here")
        raise SystemExit(143 if error.code is None else error.code) from error
    except HeldError as error:
        raise StudyError(
            f"another training is at work in {folder}: {error}; wait for it, or choose another "
            "--out"
        ) from error
    except OSError as error:
        if (ended := ends_study(error, folder)) is not None:
            raise ended from error
        raise
    console.print(_line(record))
    return record


def _check_folder(folder: Path, asked: dict[str, Any]) -> None:
    known = read_json(folder / "training.json")
    if known is None:
        if (folder / "study.json").exists():
            raise StudyError(f"{folder} holds a study; choose another --out")
        return
    differences = changes(known, asked)
    if differences:
        raise StudyError(
            f"{folder} holds a training with other settings: {'; '.join(differences)}. Choose "
            "another --out"
        )


def _line(record: dict[str, Any]) -> str:
    if record["status"] != "finished":
        return f"{record['status']}: {record['reason']}{_advice(record)}"
    return (
        f"{100 * record['test']['accuracy']:.1f}% of the test samples, {record['seconds']:.0f} s: "
        f"{record['checkpoint']}"
    )


def _advice(record: dict[str, Any]) -> str:
    if record["status"] == "diverged":
        return ""
    return "\nthe same command goes on from the last checkpoint"
