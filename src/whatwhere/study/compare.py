"""The main job: train with and without, over seeds, and say whether it helps and what it costs.

A study is a folder. ``study.json`` holds its settings and costs, ``trials/`` a record per trial,
and ``results.json``, ``results.csv`` and ``report.html`` are made from these at the end, and again
whenever the same command runs.
"""

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas
import torch
from filelock import FileLock, Timeout
from rich.console import Console

import whatwhere
from whatwhere.files import read_json, remove_parts, write_json, write_text
from whatwhere.study.build import backbone_of, load_data
from whatwhere.study.data import StudyData
from whatwhere.study.faults import ends_study, interrupted_by_sigterm
from whatwhere.study.plan import control_variant, measure
from whatwhere.study.report import write_report
from whatwhere.study.runner import run_trials, threads_for, workers_for
from whatwhere.study.settings import (
    CONTROL,
    StudyError,
    StudySettings,
    Variant,
    changes,
    parse_variants,
)
from whatwhere.study.statistics import compare_variants
from whatwhere.study.trainer import check_devices, started_processes
from whatwhere.study.trial import Trial
from whatwhere.study.verdict import verdict

STUDY_KEYS = ("settings", "threads", "fingerprint", "variants")
PACKAGES = ("torch", "torchvision", "timm", "lightning", "torchmetrics", "numpy", "scipy")


def compare(
    settings: StudySettings,
    run: Path,
    *,
    workers: int | None = None,
    command: str = "whatwhere.study.compare",
    console: Console | None = None,
) -> dict[str, Any]:
    """Run a study, or go on with it, to its report.

    Args:
        settings: what to compare on what.
        run: the study's folder, made if missing.
        workers: worker processes; by default as many as pay on this machine.
        command: how to say in the report what was run.
        console: where progress goes; by default standard error.

    Returns:
        The content of ``results.json``.

    Raises:
        StudyError: the folder holds another study, another process works in it, or the study
            can't be run as asked. Finished trials are never lost.
    """
    if console is None:
        console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    if run.resolve().is_relative_to(Path(settings.data.source).resolve()):
        raise StudyError(
            f"expected --out outside the data, got {run} inside {settings.data.source}"
        )
    console.print(f"reading the data: {settings.data.source}")
    study_data = load_data(settings.data)
    workers = _workers(settings, study_data, workers)
    try:
        run.mkdir(parents=True, exist_ok=True)
        with interrupted_by_sigterm(), FileLock(run / ".lock", timeout=0):
            return _compare(settings, study_data, run, workers, command, console)
    except KeyboardInterrupt:
        console.print("interrupted: the same command goes on from here")
        raise
    except Timeout as error:
        raise StudyError(
            f"another process is at work in {run}; wait for it, or choose another --out"
        ) from error
    except OSError as error:
        if (ended := ends_study(error, run)) is not None:
            raise ended from error
        raise


def _workers(settings: StudySettings, study_data: StudyData, asked: int | None) -> int | None:
    """One worker where every trial has several devices: they are its own while it runs."""
    started = started_processes()
    if settings.devices.num_nodes > 1 or (started is not None and started[1] > 1):
        raise StudyError(
            "expected compare in one process on one machine, where it starts those of its trials "
            f"itself, got {'--num-nodes above 1' if started is None else started[0]}; one "
            "training on several machines is whatwhere train"
        )
    if settings.devices.processes == 1:
        return asked
    if asked not in (None, 1):
        raise StudyError(f"expected --workers 1 with several --devices, got {asked}")
    check_devices(settings, study_data)
    return 1


def _compare(
    settings: StudySettings,
    study_data: StudyData,
    run: Path,
    workers: int | None,
    command: str,
    console: Console,
) -> dict[str, Any]:
    remove_parts(run)
    known = _known_study(settings, run)
    _check_data(known, study_data, run)
    plan = _plan(settings, study_data, known, console)
    trials = _trials(settings, plan, run)
    threads = threads_for(len(trials), workers) if known is None else known["threads"]
    write_json(run / "study.json", {"settings": settings.fixed(), "threads": threads, **plan})
    done = sum(trial.done() for trial in trials)
    chosen = workers_for(len(trials) - done, asked=workers, threads=threads)
    console.print(
        f"{len(trials)} trials, {done} of them done, in {chosen.processes} processes of "
        f"{chosen.threads} threads"
    )
    run_trials(trials, chosen, console)
    if lost := [trial.name for trial in trials if trial.result() is None]:
        raise StudyError(
            f"the records of {', '.join(lost)} are gone or damaged; the same command runs these "
            "trials again"
        )
    results = _results(settings, plan, study_data, trials, run.name, command)
    write_json(run / "results.json", results)
    write_text(run / "results.csv", _table(results))
    report = write_report(run)
    console.print(f"\n{results['verdict']}\n\nreport: {report}")
    return results


def _known_study(settings: StudySettings, run: Path) -> dict[str, Any] | None:
    path = run / "study.json"
    try:
        known: Any = read_json(path)
    except ValueError as error:
        raise StudyError(f"{error}. {_restore(path)}") from error
    if known is None:
        if any(run.glob("trials/*/result.json")):
            raise StudyError(
                f"expected {path} beside the records of trials, got none. {_restore(path)}"
            )
        return None
    if not isinstance(known, dict) or not set(STUDY_KEYS) <= set(known):
        raise StudyError(
            f"expected a study's settings in {path}, got something else. {_restore(path)}"
        )
    differences = changes(known["settings"], settings.fixed())
    if differences:
        raise StudyError(
            f"{run} holds a study with other settings: {'; '.join(differences)}. Seeds and "
            "variants can be added to a study; for other settings choose another --out"
        )
    return known


def _restore(path: Path) -> str:
    return (
        f"Put {path.name} back from a copy, or choose another --out: without it nobody knows with "
        "what settings the trials ran, and they stay as they are"
    )


def _check_data(known: dict[str, Any] | None, study_data: StudyData, run: Path) -> None:
    if known is not None and known["fingerprint"] != study_data.fingerprint:
        raise StudyError(
            f"the data have changed since the study in {run} began (fingerprint "
            f"{known['fingerprint']}, now {study_data.fingerprint}); choose another --out"
        )


def _plan(
    settings: StudySettings,
    study_data: StudyData,
    known: dict[str, Any] | None,
    console: Console,
) -> dict[str, Any]:
    """The variants with their costs; measured once, and again only when variants are added."""
    wanted = parse_variants(settings.variants)
    planned = [] if known is None else known["variants"]
    rows = {row["name"]: row for row in planned}
    if all(variant.name in rows for variant in wanted):
        keep = {variant.name for variant in wanted} | {CONTROL}
        return {
            "fingerprint": study_data.fingerprint,
            "variants": [row for row in planned if row["name"] in keep],
        }
    backbone = backbone_of(settings, study_data)
    console.print("planning: building the variants")
    control = control_variant(backbone, wanted, settings, study_data)
    variants = [*wanted, *([] if control is None else [control])]
    console.print("measuring what each variant costs")
    return {
        "fingerprint": study_data.fingerprint,
        "variants": measure(backbone, variants, settings, study_data),
    }


def _trials(settings: StudySettings, plan: dict[str, Any], run: Path) -> list[Trial]:
    variants = [
        Variant(row["name"], row["role"], row["gate"], row["options"], row["width"])
        for row in plan["variants"]
    ]
    devices = max(1, torch.cuda.device_count())
    # Seed by seed, so that a study that is stopped early has whole pairs.
    pairs = [(variant, seed) for seed in range(settings.seeds) for variant in variants]
    return [
        Trial(run, settings, variant, seed, index % devices, plan["fingerprint"])
        for index, (variant, seed) in enumerate(pairs)
    ]


def _results(
    settings: StudySettings,
    plan: dict[str, Any],
    study_data: StudyData,
    trials: Sequence[Trial],
    name: str,
    command: str,
) -> dict[str, Any]:
    truth = study_data.truth
    known = [] if truth is None else [k for k in ("where", "when") if getattr(truth, k) is not None]
    results: dict[str, Any] = {
        "whatwhere": whatwhere.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "name": name,
        "fast": settings.fast,
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "settings": {
            **settings.fixed(),
            "precision": settings.used_precision(),
            "variants": list(settings.variants),
            "seeds": list(range(settings.seeds)),
        },
        "data": {
            "name": study_data.name,
            "source": settings.data.source,
            "classes": list(study_data.classes),
            "shape": list(study_data.shape),
            "counts": {s: len(getattr(study_data, s)) for s in ("train", "val", "test")},
            "skipped": [{"path": s.path, "reason": s.reason} for s in study_data.skipped],
            "truth": known,
            "chance_accuracy": float(study_data.test.labels.bincount().max())
            / len(study_data.test),
        },
        "variants": plan["variants"],
        "trials": [trial.result() for trial in trials],
    }
    results["comparisons"] = [each.as_dict() for each in compare_variants(results)]
    results["verdict"] = str(verdict(results))
    return results


def _table(results: dict[str, Any]) -> str:
    costs = {row["name"]: row for row in results["variants"]}
    rows = [
        {
            "variant": trial["variant"],
            "seed": trial["seed"],
            "status": trial["status"],
            **{f"test_{k}": v for k, v in (trial["test"] or {}).items()},
            "seconds": trial["seconds"],
            "parameters": costs[trial["variant"]]["parameters"],
            "macs": costs[trial["variant"]]["macs"],
            "latency_ms": costs[trial["variant"]]["latency_ms"]["median"],
            "latency_ratio": costs[trial["variant"]]["latency_ratio"]["median"],
            "training_memory_mb": costs[trial["variant"]]["training_memory_mb"],
        }
        for trial in results["trials"]
    ]
    table: str = pandas.DataFrame(rows).to_csv(index=False)
    return table
