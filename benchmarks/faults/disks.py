"""Disks that are full, or may only be read: a small file system in a namespace of its own."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.faults.outcome import Outcome
from benchmarks.faults.study import Study

SHARES = (0.005, 0.1, 0.25, 0.4, 0.6, 0.75, 0.85, 0.95, 0.99)
ROOMY = "64m"


@contextmanager
def mounted(study: Study, size: int) -> Iterator[int]:
    """A file system of so many bytes in the study's place, which only its own processes see."""
    study.out.mkdir(parents=True)
    holder = subprocess.Popen(
        [
            *("unshare", "--user", "--map-root-user", "--mount", "sh", "-c"),
            f"mount -t tmpfs -o size={size} none {study.out} && echo mounted && exec cat",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    try:
        if holder.stdout.readline() != "mounted\n":
            raise RuntimeError("no file system can be mounted here")
        study.wrap = _inside(holder.pid)
        study.root = Path(f"/proc/{holder.pid}/root")
        yield holder.pid
    finally:
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()


def _inside(process: int) -> list[str]:
    return ["nsenter", f"--target={process}", "--user", "--mount", "--preserve-credentials"]


def _remount(study: Study, process: int, options: str) -> None:
    command = ["mount", "-o", f"remount,{options}", str(study.out)]
    subprocess.run([*_inside(process), *command], check=True)


def full(folder: Path, undisturbed: Study) -> Outcome:
    """The disk takes a share of what the study writes; then there is room, and it goes on."""
    total = sum(path.stat().st_size for path in undisturbed.folder.rglob("*") if path.is_file())
    total += _largest_checkpoint(undisturbed)
    outcome = Outcome("the disk is full", f"after {_listed(SHARES)} of what a study writes")
    for share in SHARES:
        study = Study(folder / f"full{share}", undisturbed.data)
        with mounted(study, max(8192, int(share * total))) as process:
            first = study.run()
            outcome.times += 1
            outcome.ended(study, first)
            if first.code not in (0, 2):
                study.problems.append(f"expected the exit code 2 or 0, got {first.code}")
            outcome.moments["ended well" if first.code == 0 else _written(study)] += 1
            _remount(study, process, f"size={ROOMY}")
            outcome.ended(study, study.run(), expect=0)
            outcome.finish(study, undisturbed)
    return outcome


def full_at_the_end(folder: Path, undisturbed: Study) -> Outcome:
    """All trials are done, and there is no room for the results; or for them, but no report."""
    outcome = Outcome("the disk is full when results are written", "no room; none for the report")
    study = Study(folder / "full-end", undisturbed.data)
    with mounted(study, 2**26) as process:
        study.run()
        results, report = study.folder / "results.json", study.folder / "report.html"
        for room in (0, results.stat().st_size + 32_768):
            for path in (results, report, results.with_suffix(".csv")):
                path.unlink(missing_ok=True)
            used = shutil.disk_usage(study.folder).used
            _remount(study, process, f"size={used + room}")
            outcome.times += 1
            outcome.ended(study, study.run(), expect=2)
            outcome.moments["without results" if not results.exists() else "without report"] += 1
            if report.exists():
                study.problems.append("there is a report, for which there was no room")
            _remount(study, process, f"size={ROOMY}")
            outcome.ended(study, study.run(), expect=0)
        outcome.finish(study, undisturbed)
    return outcome


def _largest_checkpoint(undisturbed: Study) -> int:
    weights = max(path.stat().st_size for path in undisturbed.folder.rglob("*.safetensors"))
    return 3 * weights  # with AdamW's two moments


def _listed(shares: tuple[float, ...]) -> str:
    return ", ".join(f"{100 * share:g}%" for share in shares)


def _written(study: Study) -> str:
    if not (study.folder / "study.json").exists():
        return "before the first trial"
    if len(study.records()) == 6:
        return "writing results"
    return "writing a trial's files"


def limited(folder: Path, undisturbed: Study) -> Outcome:
    """No file may grow beyond a limit, as where a quota or the shell sets one."""
    outcome = Outcome("no file may grow beyond a limit", "RLIMIT_FSIZE, 1,000,000 bytes")
    study = Study(folder / "limited", undisturbed.data, wrap=("prlimit", "--fsize=1000000"))
    outcome.times = 1
    outcome.ended(study, study.run(), expect=2)
    study.wrap = ()
    outcome.ended(study, study.run(), expect=0)
    outcome.finish(study, undisturbed)
    return outcome


def readable_only(folder: Path, undisturbed: Study) -> Outcome:
    """A folder on a disk that may only be read: a new one, and that of a study half done."""
    outcome = Outcome("the output folder may only be read", "a new study; one half done")
    study = Study(folder / "readable", undisturbed.data)
    with mounted(study, 2**26) as process:
        _remount(study, process, "ro")
        outcome.times += 1
        outcome.ended(study, study.run(), expect=2)
        _remount(study, process, "rw")
        begun = study.begin(lambda it: len(it.records()) >= 2)
        os.killpg(begun.pid, 9)
        study.end(begun)
        _remount(study, process, "ro")
        outcome.times += 1
        outcome.ended(study, study.run(), expect=2)
        _remount(study, process, "rw")
        outcome.ended(study, study.run(), expect=0)
        outcome.finish(study, undisturbed)
    return outcome


def every(folder: Path, undisturbed: Study) -> Iterator[Outcome]:
    """All faults of this file."""
    if shutil.which("unshare") is not None and shutil.which("nsenter") is not None:
        yield full(folder, undisturbed)
        yield full_at_the_end(folder, undisturbed)
        yield readable_only(folder, undisturbed)
    yield limited(folder, undisturbed)
