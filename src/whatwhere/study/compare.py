"""The main job: train with and without, over seeds, and say whether it helps and what it costs.

A study is a folder. ``study.json`` holds its settings and costs, ``trials/`` a record per trial,
and ``results.json``, ``results.csv`` and ``report.html`` are made from these at the end, and again
whenever the same command runs.
"""

import importlib.metadata
import os
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas
import torch
from rich.console import Console

import whatwhere
from whatwhere.files import read_json, remove_parts, write_json, write_text
from whatwhere.study.build import backbone_of, load_data
from whatwhere.study.data import StudyData
from whatwhere.study.engines import Engine, cluster_engine
from whatwhere.study.locks import HeldError, locked
from whatwhere.study.plan import control_variant, measure
from whatwhere.study.remote import issue
from whatwhere.study.report import write_report
from whatwhere.study.runner import run_trials, threads_for, workers_for
from whatwhere.study.settings import (
    CONTROL,
    StudyError,
    StudySettings,
    Variant,
    parse_variants,
)
from whatwhere.study.statistics import compare_variants
from whatwhere.study.trial import Trial
from whatwhere.study.verdict import verdict

LOCK_WITHIN = 2.0  # a worker that looks whether the study lives has its lock for a moment
PACKAGES = ("torch", "torchvision", "timm", "lightning", "torchmetrics", "numpy", "scipy")


def compare(
    settings: StudySettings,
    run: Path,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    command: str = "whatwhere.study.compare",
    console: Console | None = None,
) -> dict[str, Any]:
    """Run a study, or go on with it, to its report.

    Args:
        settings: what to compare on what.
        run: the study's folder, made if missing.
        workers: worker processes; by default as many as pay on this machine.
        cluster: run the trials on one: a Dask scheduler's address or file, "ray" or ray://...
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
    if cluster is not None and workers is not None:
        raise StudyError("expected --workers or --cluster, got both: a cluster has its own workers")
    console.print(f"reading the data: {settings.data.source}")
    study_data = load_data(settings.data)
    try:
        run.mkdir(parents=True, exist_ok=True)
        with locked(run / ".lock", timeout=LOCK_WITHIN):
            return _compare(settings, study_data, run, workers, cluster, command, console)
    except KeyboardInterrupt:
        console.print("interrupted: the same command goes on from here")
        raise
    except HeldError as error:
        raise StudyError(
            f"another study is at work in {run}: {error}; wait for it, or choose another --out"
        ) from error


def _compare(
    settings: StudySettings,
    study_data: StudyData,
    run: Path,
    workers: int | None,
    cluster: str | None,
    command: str,
    console: Console,
) -> dict[str, Any]:
    remove_parts(run)
    known = _known_study(settings, run)
    _check_data(known, study_data, run)
    plan = _plan(settings, study_data, known, console)
    trials = _trials(settings, plan["variants"], run)
    threads = threads_for(len(trials), workers, cluster) if known is None else known["threads"]
    write_json(run / "study.json", {"settings": settings.fixed(), "threads": threads, **plan})
    done = sum(trial.done() for trial in trials)
    if cluster is None:
        engine: Engine = workers_for(len(trials) - done, asked=workers, threads=threads)
    else:
        engine = cluster_engine(cluster, issue(run, study_data.fingerprint, threads=threads))
    console.print(f"{len(trials)} trials, {done} of them done, {engine}")
    run_trials(trials, engine, console)
    parts = _part_trials(settings, trials)
    if parts:
        console.print(f"and on parts of the training samples: {len(parts)} trials")
        run_trials(parts, engine, console)
    results = _results(settings, plan, study_data, trials, run.name, command)
    results["parts"] = [trial.result() for trial in parts]
    write_json(run / "results.json", results)
    write_text(run / "results.csv", _table(results))
    report = write_report(run)
    console.print(f"\n{results['verdict']}\n\nreport: {report}")
    return results


def _known_study(settings: StudySettings, run: Path) -> dict[str, Any] | None:
    known: Any = read_json(run / "study.json")
    if known is None:
        return None
    if not isinstance(known, dict) or not {"settings", "threads", "variants"} <= set(known):
        raise StudyError(
            f"expected a study's settings in {run / 'study.json'}, got something else; choose "
            "another --out"
        )
    asked = settings.fixed()
    names = sorted(set(asked) | set(known["settings"]))
    differences = [
        f"{name} was {known['settings'].get(name)!r} and is now {asked.get(name)!r}"
        for name in names
        if known["settings"].get(name) != asked.get(name)
    ]
    if differences:
        raise StudyError(
            f"{run} holds a study with other settings: {'; '.join(differences)}. Seeds and "
            "variants can be added to a study; for other settings choose another --out"
        )
    return known


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


def _trials(settings: StudySettings, rows: Sequence[dict[str, Any]], run: Path) -> list[Trial]:
    variants = [
        Variant(row["name"], row["role"], row["gate"], row["options"], row["width"]) for row in rows
    ]
    devices = max(1, torch.cuda.device_count())
    # Seed by seed, so that a study that is stopped early has whole pairs.
    pairs = [(variant, seed) for seed in range(settings.seeds) for variant in variants]
    return [
        Trial(run, settings, variant, seed, device=index % devices)
        for index, (variant, seed) in enumerate(pairs)
    ]


def _part_trials(settings: StudySettings, trials: Sequence[Trial]) -> list[Trial]:
    # The same trials on each share of the training samples, small ones first.
    return [
        replace(trial, fraction=fraction)
        for fraction in sorted(settings.fractions)
        for trial in trials
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
            "trials_on": _hosts(trials),
        },
        "settings": {
            **settings.fixed(),
            "precision": settings.used_precision(),
            "variants": list(settings.variants),
            "seeds": list(range(settings.seeds)),
            "fractions": list(settings.fractions),
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


def _hosts(trials: Sequence[Trial]) -> dict[str, int]:
    # How many trials ran where.
    records = [trial.result() for trial in trials]
    told = [{} if record is None else record.get("ran_on", {}) for record in records]
    names = [" ".join(filter(None, (each.get("host"), each.get("accelerator")))) for each in told]
    return dict(Counter(name for name in names if name))


def _table(results: dict[str, Any]) -> str:
    costs = {row["name"]: row for row in results["variants"]}
    rows = [
        {
            "variant": trial["variant"],
            "seed": trial["seed"],
            "fraction": trial["fraction"],
            "status": trial["status"],
            **{f"test_{k}": v for k, v in (trial["test"] or {}).items()},
            "seconds": trial["seconds"],
            "parameters": costs[trial["variant"]]["parameters"],
            "macs": costs[trial["variant"]]["macs"],
            "latency_ms": costs[trial["variant"]]["latency_ms"]["median"],
            "latency_ratio": costs[trial["variant"]]["latency_ratio"]["median"],
            "training_memory_mb": costs[trial["variant"]]["training_memory_mb"],
        }
        for trial in [*results["trials"], *results["parts"]]
    ]
    table: str = pandas.DataFrame(rows).to_csv(index=False)
    return table
