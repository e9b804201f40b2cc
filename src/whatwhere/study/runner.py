"""All trials of a study on its engine: as many at once as pay, with progress, through failures."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from whatwhere.files import read_told
from whatwhere.study.engines import Engine, Workers
from whatwhere.study.faults import gone
from whatwhere.study.settings import StudyError
from whatwhere.study.trial import Trial

LOST_WORKERS_ALLOWED = 5
LOOK_EVERY = 0.5  # seconds between two looks at the trials' progress
RECORD_WITHIN = 90.0  # seconds in which another machine's record becomes visible here


def threads_for(trials: int, asked: int | None = None, cluster: str | None = None) -> int:
    """Threads of each trial, when so many share the cores evenly; one on a cluster's workers.

    A study keeps the number: with another one, sums come out in another order.
    """
    if cluster is not None:
        return 1  # its workers take as many trials at once as they have threads
    return max(1, _cores() // _processes(trials, asked))


def workers_for(trials: int, *, asked: int | None, threads: int) -> Workers:
    """One process per GPU, or as many as the cores take, up to the number of trials.

    Small networks gain nothing from a second thread that a second process would not use better.
    """
    return Workers(_processes(trials, asked), threads)


def _processes(trials: int, asked: int | None) -> int:
    best = torch.cuda.device_count() if torch.cuda.is_available() else _cores()
    return max(1, min(best if asked is None else asked, trials))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    cores = os.cpu_count()
    return 1 if cores is None else cores


def run_trials(trials: Sequence[Trial], engine: Engine, console: Console) -> None:
    """Run every trial that is not done; finished ones are not repeated.

    A worker that is killed takes no other trial with it: the pool is made anew, and the trials
    that were running go on from their last checkpoint.

    Raises:
        StudyError: workers keep dying, say for lack of memory, or a cluster can't be used.
    """
    pending = {trial.name: trial for trial in trials if not trial.done()}
    lost = 0
    with _bars(console) as bars:
        study = bars.add_task("study", total=len(trials), completed=len(trials) - len(pending))
        while pending:
            try:
                _run_pending(pending, engine, bars, study)
            except BrokenProcessPool as error:
                lost += 1
                if lost >= LOST_WORKERS_ALLOWED:
                    raise StudyError(
                        f"worker processes died {lost} times, the last while running "
                        f"{', '.join(pending)}. Is there enough memory? Fewer --workers or a "
                        "smaller --batch-size may help; finished trials are kept, and the same "
                        "command resumes."
                    ) from error
                bars.console.print(
                    "a worker process died; its trials go on from their last checkpoint"
                )


def _run_pending(pending: dict[str, Trial], engine: Engine, bars: Progress, study: TaskID) -> None:
    """Run the trials on one engine, taking each out of ``pending`` as it comes to its record."""
    rows: dict[str, TaskID] = {}
    try:
        with engine.start() as submit:
            running = {submit(trial): trial for trial in pending.values()}
            while running:
                done, _ = wait(running, timeout=LOOK_EVERY, return_when=FIRST_COMPLETED)
                _check_there(running.values())
                _show(list(running.values()), bars, rows)
                for future in done:
                    trial = running.pop(future)
                    future.result()
                    record = _record_of(trial)
                    del pending[trial.name]
                    bars.advance(study)
                    bars.console.print(_line(trial, record))
    finally:
        for row in rows.values():
            bars.remove_task(row)


def _record_of(trial: Trial) -> dict[str, Any]:
    # A network's file system may show another machine's file some time after it was written.
    deadline = time.monotonic() + RECORD_WITHIN
    while (record := trial.result()) is None:
        if time.monotonic() > deadline:
            raise StudyError(
                f"{trial.name} ended, and its record {trial.folder / 'result.json'} has not been "
                f"seen here for {RECORD_WITHIN:.0f} s; the same command resumes"
            )
        with suppress(FileNotFoundError):
            os.listdir(trial.folder)  # noqa: PTH208  # asks a network's server anew
        time.sleep(LOOK_EVERY)
    return record


def _check_there(trials: Iterable[Trial]) -> None:
    for run in {trial.run for trial in trials}:
        if not (run / "study.json").exists():
            raise gone(run)


def _show(trials: Sequence[Trial], bars: Progress, rows: dict[str, TaskID]) -> None:
    running = set()
    for trial in trials:
        told = read_told(trial.folder / "progress.json")
        if not told or trial.done():
            continue
        running.add(trial.name)
        text = f"{trial.name}, epoch {told['epoch']}/{told['epochs']}"
        if trial.name not in rows:
            rows[trial.name] = bars.add_task(text, total=told["steps"])
        bars.update(rows[trial.name], completed=told["step"], description=text)
    for name in set(rows) - running:
        bars.remove_task(rows.pop(name))


def _line(trial: Trial, record: dict[str, Any]) -> str:
    if record["status"] != "finished":
        return f"{trial.name}: {record['status']}: {record['reason']}"
    return (
        f"{trial.name}: {100 * record['test']['accuracy']:.1f}% of the test samples, "
        f"{record['seconds']:.0f} s"
    )


@contextmanager
def _bars(console: Console) -> Iterator[Progress]:
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as bars:
        yield bars
