"""Trials in worker processes: as many as pay on the machine, with progress, through failures."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass

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
from whatwhere.study.faults import children_without_sigint, end_at_sigterm, gone
from whatwhere.study.launch import run_trial
from whatwhere.study.settings import StudyError
from whatwhere.study.trial import Trial

LOST_WORKERS_ALLOWED = 5


@dataclass(frozen=True)
class Workers:
    """How many processes, with how many threads each."""

    processes: int
    threads: int


def threads_for(trials: int, asked: int | None = None) -> int:
    """Threads of each worker, when so many trials share the cores evenly.

    A study keeps the number: with another one, sums come out in another order.
    """
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


def run_trials(trials: Sequence[Trial], workers: Workers, console: Console) -> None:
    """Run every trial that is not done; finished ones are not repeated.

    A worker that is killed takes no other trial with it: the pool is made anew, and the trials
    that were running go on from their last epoch.

    Raises:
        StudyError: workers keep dying, say for lack of memory.
    """
    pending = {trial.name: trial for trial in trials if not trial.done()}
    lost = 0
    with _bars(console) as bars:
        study = bars.add_task("study", total=len(trials), completed=len(trials) - len(pending))
        while pending:
            try:
                _run_pool(pending, workers, bars, study)
            except BrokenProcessPool as error:
                lost += 1
                if lost >= LOST_WORKERS_ALLOWED:
                    raise StudyError(
                        f"worker processes died {lost} times, the last while running "
                        f"{', '.join(pending)}. Is there enough memory? Fewer --workers or a "
                        "smaller --batch-size may help; finished trials are kept, and the same "
                        "command resumes."
                    ) from error
                bars.console.print("a worker process died; its trials go on from their last epoch")


def _run_pool(pending: dict[str, Trial], workers: Workers, bars: Progress, study: TaskID) -> None:
    """Run the trials in one pool, taking each out of ``pending`` as it comes to its record."""
    rows: dict[str, TaskID] = {}
    with _threads(workers.threads), children_without_sigint():
        pool = ProcessPoolExecutor(
            workers.processes,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(workers.threads,),
        )
        running: dict[Future[None], Trial] = {
            pool.submit(run_trial, trial): trial for trial in pending.values()
        }
    try:
        while running:
            done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            _check_there(running.values())
            _show(list(running.values()), bars, rows)
            for future in done:
                trial = running.pop(future)
                future.result()
                del pending[trial.name]
                bars.advance(study)
                bars.console.print(_line(trial))
    finally:
        for row in rows.values():
            bars.remove_task(row)
        if running:  # interrupted: what runs now resumes from its last epoch another time
            for child in multiprocessing.active_children():
                child.kill()  # not terminate: a trainer catches that, and goes on for a while
        pool.shutdown(wait=True, cancel_futures=True)


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


def _line(trial: Trial) -> str:
    record = trial.result()
    if record is None:
        return f"{trial.name}: no record"
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


@contextmanager
def _threads(threads: int) -> Iterator[None]:
    # Worker processes read these when they import torch, before any code of ours runs.
    wanted = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start_worker(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be kept from them
    end_at_sigterm()
    torch.set_num_threads(threads)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    # A killed study leaves no process behind that still writes into its folder.
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
