"""Signals at random moments: to the study, to its worker, to both."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.outcome import Outcome
from benchmarks.faults.study import Ended, Study, members, wait_for, worker_of

PER_STUDY = 4  # disturbances before a study is let run to its end
TARGETS = ("study", "worker", "group")


def kills(folder: Path, undisturbed: Study, seconds: float, *, count: int, seed: int) -> Outcome:
    """SIGKILL at moments drawn evenly from an undisturbed study's duration.

    Each study is disturbed several times, begun again each time, and at last let run to its end. A
    third of the signals go to the worker alone, of which the study itself must take notice.
    """
    drawn = random.Random(seed)
    outcome = Outcome("SIGKILL at a random moment", f"seed {seed}")
    number = 0
    while outcome.times < count:
        study = Study(folder / f"kills{seed}-{number}", undisturbed.data)
        number += 1
        for _ in range(min(PER_STUDY, count - outcome.times)):
            target = drawn.choice(("study", "study", "worker"))
            if not _disturb(study, drawn.uniform(0, seconds), target, signal.SIGKILL, outcome):
                break
        _finish(study, undisturbed, outcome)
    return outcome


def within_training(folder: Path, undisturbed: Study, *, count: int, seed: int) -> Outcome:
    """SIGKILL within a second of a checkpoint: most of a small study's time is its beginning."""
    drawn = random.Random(seed)
    outcome = Outcome("SIGKILL soon after a checkpoint", f"seed {seed}, within 1 s")
    number = 0
    while outcome.times < count:
        study = Study(folder / f"within{seed}-{number}", undisturbed.data)
        number += 1
        for _ in range(min(PER_STUDY, count - outcome.times)):
            before = _written(study)
            process = study.begin(lambda it: _written(it) - before)  # noqa: B023
            if wait_for(lambda: process.poll() is not None, drawn.uniform(0, 1)):  # noqa: B023
                outcome.ended(study, study.end(process))
                break
            os.killpg(process.pid, signal.SIGKILL)
            outcome.times += 1
            outcome.moments[_phase(study)] += 1
            _after(study, process, signal.SIGKILL, outcome)
        _finish(study, undisturbed, outcome)
    return outcome


def _written(study: Study) -> set[tuple[str, float]]:
    found = set()
    for path in study.checkpoints():
        try:
            found.add((str(path), path.stat().st_mtime))
        except FileNotFoundError:
            continue  # replaced by the next one
    return found


def stops(folder: Path, undisturbed: Study, seconds: float, *, count: int, seed: int) -> Outcome:
    """SIGTERM and SIGINT at random moments, to the study, its worker, or all its processes."""
    drawn = random.Random(seed)
    outcome = Outcome("SIGTERM or SIGINT at a random moment", f"seed {seed}")
    number = 0
    while outcome.times < count:
        study = Study(folder / f"stops{seed}-{number}", undisturbed.data)
        number += 1
        for _ in range(min(PER_STUDY, count - outcome.times)):
            chosen = drawn.choice((signal.SIGTERM, signal.SIGINT))
            target = drawn.choice(TARGETS)
            if not _disturb(study, drawn.uniform(0, seconds), target, chosen, outcome):
                break
        _finish(study, undisturbed, outcome)
    return outcome


def repeated(folder: Path, undisturbed: Study) -> Outcome:
    """The worker is killed whenever it is there, as the system does where memory is short."""
    outcome = Outcome("every worker is killed soon after its start", "SIGKILL, five times")
    study = Study(folder / "repeated", undisturbed.data)
    process = study.start()
    killed: set[int] = set()
    while process.poll() is None:
        worker = worker_of(process.pid)
        if worker is not None and worker not in killed:
            killed.add(worker)
            _send(worker, signal.SIGKILL)
        time.sleep(0.1)
    outcome.times = len(killed)
    outcome.ended(study, study.end(process), expect=2)
    _finish(study, undisturbed, outcome)
    return outcome


def _disturb(
    study: Study, moment: float, target: str, chosen: signal.Signals, outcome: Outcome
) -> bool:
    """Begin the study and disturb it; whether there is anything left to do for it."""
    process = study.start()
    if target == "worker":  # counted from its start
        wait_for(lambda: worker_of(process.pid) is not None or process.poll() is not None)
        moment /= 2
    if wait_for(lambda: process.poll() is not None, moment):
        outcome.moments["after its end"] += 1
        outcome.ended(study, study.end(process))
        return False
    phase = "the worker, " + _phase(study) if target == "worker" else _phase(study)
    worker = worker_of(process.pid)
    if target == "worker" and worker is not None:
        _send(worker, chosen)
    elif target == "group":
        os.killpg(process.pid, chosen)
    else:
        _send(process.pid, chosen)
    outcome.times += 1
    outcome.moments[phase] += 1
    if target == "worker" and worker is not None:
        ended = study.end(process)
        outcome.ended(study, ended, expect=0)
        return False
    _after(study, process, chosen, outcome)
    return True


def _after(
    study: Study, process: "subprocess.Popen[str]", chosen: signal.Signals, outcome: Outcome
) -> None:
    if chosen == signal.SIGKILL:
        process.wait()
        if not wait_for(lambda: not members(process.pid), 120):
            study.problems.append("workers outlived their study by two minutes")
        study.look()
        return
    ended: Ended = study.end(process)
    began = "reading the data" in ended.text
    if ended.code == 0:
        study.problems.append(f"{chosen.name} ended the study with success")
    if began and ended.code > 0 and not ended.clear:
        study.problems.append(f"{chosen.name} gave a trace: {ended.text[-300:]}")
    outcome.said += began and ended.line != ""
    outcome.note(ended)


def _phase(study: Study) -> str:
    if not (study.folder / "study.json").exists():
        return "before the first trial"
    if (study.folder / "results.json").exists():
        return "writing results"
    if study.checkpoints():
        return "in training"
    return "between trials, or before a checkpoint"


def _finish(study: Study, undisturbed: Study, outcome: Outcome) -> None:
    if not (study.folder / "report.html").exists():
        outcome.ended(study, study.run(), expect=0)
    outcome.finish(study, undisturbed)


def _send(process: int, chosen: signal.Signals) -> None:
    try:
        os.kill(process, chosen)
    except ProcessLookupError:
        return


def every(
    folder: Path, undisturbed: Study, seconds: float, count: int, seed: int
) -> Iterator[Outcome]:
    """Kills alone."""
    yield kills(folder, undisturbed, seconds, count=count, seed=seed)
    yield within_training(folder, undisturbed, count=max(2, count // 3), seed=seed)


def other_signals(
    folder: Path, undisturbed: Study, seconds: float, count: int, seed: int
) -> Iterator[Outcome]:
    """A third as many of the signals that ask, and a worker that can't live."""
    yield repeated(folder, undisturbed)
    yield stops(folder, undisturbed, seconds, count=max(2, count // 3), seed=seed)
