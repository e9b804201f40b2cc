"""Files that are damaged, gone or another study's, while nothing runs."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.faults.outcome import Outcome
from benchmarks.faults.study import Study


def half_done(folder: Path, undisturbed: Study) -> Study:
    """A study killed when two trials were finished and another had a checkpoint."""
    study = Study(folder / "half", undisturbed.data)
    while True:
        process = study.begin(lambda it: len(it.records()) >= 2 and it.checkpoints())
        os.killpg(process.pid, signal.SIGKILL)
        study.end(process)
        if study.checkpoints() and len(study.records()) >= 2:
            return study
        shutil.rmtree(study.out)
        study.seen.clear()


def _copy(half: Study, name: str) -> Study:
    out = shutil.copytree(half.out, half.out.with_name(name))
    return Study(out, half.data, seen=dict(half.seen))


def _truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10  # one bit, among the weights
    path.write_bytes(content)


def _overwritten(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def _removed(path: Path) -> None:
    path.unlink()


def _foreign(path: Path) -> None:
    path.write_text('{"status": "finished"}')


HARMS: tuple[Callable[[Path], None], ...] = (
    _truncated,
    _emptied,
    _flipped,
    _overwritten,
    _removed,
)


def _names(harms: tuple[Callable[[Path], None], ...]) -> str:
    return ", ".join(harm.__name__.removeprefix("_") for harm in harms)


def checkpoints(half: Study, undisturbed: Study) -> Outcome:
    """An unfinished trial's checkpoint is damaged: the trial begins anew."""
    outcome = Outcome("a checkpoint is damaged", _names(HARMS))
    for harm in HARMS:
        study = _copy(half, f"checkpoint{harm.__name__}")
        for path in study.checkpoints():
            harm(path)
        outcome.times += 1
        outcome.ended(study, study.run(), expect=0)
        outcome.finish(study, undisturbed)
    return outcome


def records(half: Study, undisturbed: Study) -> Outcome:
    """A finished trial's record is damaged: the trial runs again, to the same numbers."""
    harms = (_truncated, _emptied, _overwritten, _removed, _foreign)
    outcome = Outcome("a trial's result.json is damaged", f"{_names(harms)}, another trial's")
    for harm in (*harms, None):
        name = "_anothers" if harm is None else harm.__name__
        study = _copy(half, f"record{name}")
        first, second = sorted(study.seen)[:2]
        path = study.folder / "trials" / first / "result.json"
        if harm is None:
            path.write_bytes(study.seen[second])
        else:
            harm(path)
        study.forget(first)
        outcome.times += 1
        outcome.ended(study, study.run(), expect=0)
        outcome.finish(study, undisturbed)
    return outcome


def settings(half: Study, undisturbed: Study) -> Outcome:
    """study.json is damaged: refused, nothing touched, and as before once it is put back."""
    harms = (_truncated, _emptied, _overwritten, _removed, _foreign)
    outcome = Outcome("study.json is damaged", f"{_names(harms)}; then put back")
    study = _copy(half, "settings")
    path = study.folder / "study.json"
    content = path.read_bytes()
    for harm in harms:
        harm(path)
        outcome.times += 1
        outcome.ended(study, study.run(), expect=2)
        path.write_bytes(content)
    outcome.ended(study, study.run(), expect=0)
    outcome.finish(study, undisturbed)
    return outcome


def made_anew(half: Study, undisturbed: Study) -> Outcome:
    """What a study writes anew: its results, a trial's progress and count of starts, pictures."""
    outcome = Outcome("files that are written anew are damaged", "overwritten, removed")
    study = _copy(half, "anew")
    for path in study.folder.glob("trials/*/*.json"):
        if path.name != "result.json":
            _overwritten(path)
    for name in ("results.json", "results.csv", "report.html"):
        (study.folder / name).write_bytes(b"\xff{")
    for path in study.folder.glob("trials/*/gates.png"):
        _removed(path)
    shutil.rmtree(study.folder / "tensorboard")
    outcome.times += 1
    outcome.ended(study, study.run(), expect=0)
    outcome.finish(study, undisturbed)
    if "</html>" not in (study.folder / "report.html").read_text():
        outcome.problems.append("report.html was not written anew")
    json.loads((study.folder / "results.json").read_text())
    return outcome


def every(folder: Path, undisturbed: Study) -> Iterator[Outcome]:
    """All faults of this file."""
    half = half_done(folder, undisturbed)
    for fault in (checkpoints, records, settings, made_anew):
        yield fault(half, undisturbed)
