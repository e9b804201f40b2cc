"""The trials of a study, round by round: the seeds asked for and, --until-sure, more; and parts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from whatwhere.study.engines import Engine
from whatwhere.study.runner import run_trials
from whatwhere.study.settings import StudySettings, Variant
from whatwhere.study.statistics import compare_variants
from whatwhere.study.stopping import Progress, progress
from whatwhere.study.trial import Trial


def run_rounds(
    settings: StudySettings,
    plan: Mapping[str, Any],
    run: Path,
    engine_for: Callable[[int], Engine],
    console: Console,
) -> tuple[list[Trial], Progress | None]:
    """Run the seeds asked for and, until sure, more: the trials, and why there are no more.

    A study that resumes passes the same rounds again, whose trials are done. ``engine_for`` gives
    what runs so many trials.
    """
    trials: list[Trial] = []
    stopped = None
    seeds = range(settings.seeds)
    while True:
        added = _trials(settings, plan, run, seeds)
        done = sum(trial.done() for trial in added)
        engine = engine_for(len(added) - done)
        console.print(f"{len(added)} trials, {done} of them done, {engine}")
        run_trials(added, engine, console)
        trials += added
        if settings.until_sure is None:
            break
        so_far = {
            "settings": {"until_sure": settings.until_sure},
            "variants": plan["variants"],
            "trials": [trial.result() for trial in trials],
        }
        stopped = progress(
            compare_variants(so_far),
            seeds=seeds.stop,
            until_sure=settings.until_sure,
            max_seeds=settings.budget(),
        )
        if stopped.next_seeds is None:
            break
        console.print(f"not sure yet: going on to {stopped.next_seeds} seeds")
        seeds = range(seeds.stop, stopped.next_seeds)
    return trials, stopped


def run_parts(
    settings: StudySettings,
    trials: Sequence[Trial],
    engine_for: Callable[[int], Engine],
    console: Console,
) -> list[Trial]:
    """Run the same trials on each share of the training samples asked for, small ones first."""
    parts = [
        replace(trial, fraction=fraction)
        for fraction in sorted(settings.fractions)
        for trial in trials
    ]
    if parts:
        console.print(f"and on parts of the training samples: {len(parts)} trials")
        run_trials(parts, engine_for(sum(not trial.done() for trial in parts)), console)
    return parts


def _trials(
    settings: StudySettings, plan: Mapping[str, Any], run: Path, seeds: range
) -> list[Trial]:
    variants = [
        Variant(row["name"], row["role"], row["gate"], row["options"], row["width"])
        for row in plan["variants"]
    ]
    devices = max(1, torch.cuda.device_count())
    # Seed by seed, so that a study that is stopped early has whole pairs.
    pairs = [(variant, seed) for seed in seeds for variant in variants]
    return [
        Trial(run, settings, variant, seed, index % devices, fingerprint=plan["fingerprint"])
        for index, (variant, seed) in enumerate(pairs)
    ]
