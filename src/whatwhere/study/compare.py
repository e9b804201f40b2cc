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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas
import torch
from rich.console import Console

import whatwhere
from whatwhere.files import remove_parts, write_json, write_text
from whatwhere.study.build import backbone_of, load_data
from whatwhere.study.data import StudyData
from whatwhere.study.engines import Engine, cluster_engine
from whatwhere.study.faults import ends_study, interrupted_by_sigterm
from whatwhere.study.known import check_data, known_study
from whatwhere.study.locks import HeldError, locked
from whatwhere.study.plan import control_variant, measure
from whatwhere.study.remote import issue
from whatwhere.study.report import write_report
from whatwhere.study.rounds import run_parts, run_rounds
from whatwhere.study.runner import threads_for, workers_for
from whatwhere.study.settings import CONTROL, StudyError, StudySettings, parse_variants
from whatwhere.study.statistics import compare_variants
from whatwhere.study.trainer import check_devices, started_processes
from whatwhere.study.trial import Trial
from whatwhere.study.verdict import verdict

LOCK_WITHIN = 2.0  # a worker that looks whether the study lives has its lock for a moment
PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "torchmetrics",
    "numpy",
    "scipy",
    "statsmodels",
)


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
    if cluster is not None and settings.devices.processes > 1:
        raise StudyError(
            "expected one device per trial with --cluster, got --devices "
            f"{settings.devices.devices}; without a cluster a trial takes all of a machine"
        )
    console.print(f"reading the data: {settings.data.source}")
    study_data = load_data(settings.data)
    workers = _workers(settings, study_data, workers)
    try:
        run.mkdir(parents=True, exist_ok=True)
        with interrupted_by_sigterm(), locked(run / ".lock", timeout=LOCK_WITHIN):
            return _compare(settings, study_data, run, workers, cluster, command, console)
    except KeyboardInterrupt:
        console.print("interrupted: the same command goes on from here")
        raise
    except HeldError as error:
        raise StudyError(
            f"another study is at work in {run}: {error}; wait for it, or choose another --out"
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
    cluster: str | None,
    command: str,
    console: Console,
) -> dict[str, Any]:
    remove_parts(run)
    known = known_study(settings, run)
    check_data(known, study_data, run)
    plan = _plan(settings, study_data, known, console)
    first = len(plan["variants"]) * settings.seeds
    threads = threads_for(first, workers, cluster) if known is None else known["threads"]
    write_json(run / "study.json", {"settings": settings.fixed(), "threads": threads, **plan})
    ticket = None if cluster is None else issue(run, study_data.fingerprint, threads=threads)

    def engine_for(count: int) -> Engine:
        if cluster is None or ticket is None:
            return workers_for(count, asked=workers, threads=threads)
        return cluster_engine(cluster, ticket)

    trials, stopped = run_rounds(settings, plan, run, engine_for, console)
    parts = run_parts(settings, trials, engine_for, console)
    if lost := [trial.name for trial in (*trials, *parts) if trial.result() is None]:
        raise StudyError(
            f"the records of {', '.join(lost)} are gone or damaged; the same command runs these "
            "trials again"
        )
    results = _results(settings, plan, study_data, trials, run.name, command)
    results["parts"] = [trial.result() for trial in parts]
    results["stopping"] = None if stopped is None else stopped.as_dict()
    results["comparisons"] = [each.as_dict() for each in compare_variants(results)]
    results["verdict"] = str(verdict(results))
    write_json(run / "results.json", results)
    write_text(run / "results.csv", _table(results))
    report = write_report(run)
    console.print(f"\n{results['verdict']}\n\nreport: {report}")
    return results


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
    return {
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
            "until_sure": settings.until_sure,
            "max_seeds": None if settings.until_sure is None else settings.budget(),
            "seeds": sorted({trial.seed for trial in trials}),
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
