"""What changes under a running study: data, folder, clock; and data that are bad from the start."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.faults.outcome import Outcome
from benchmarks.faults.study import OPTIONS, Study, write_bars

# A clock that runs backwards: three seconds for each that passes.
CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
static int (*real)(clockid_t, struct timespec *);
int clock_gettime(clockid_t id, struct timespec *t) {
    static struct timespec start, begun;
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(id, t);
    if (id != CLOCK_REALTIME) return code;
    struct timespec now;
    real(CLOCK_MONOTONIC, &now);
    if (!begun.tv_sec) { begun = now; start = *t; }
    t->tv_sec = start.tv_sec - 3 * (now.tv_sec - begun.tv_sec);
    return code;
}
int gettimeofday(struct timeval *restrict v, void *restrict zone) {
    struct timespec t;
    int code = clock_gettime(CLOCK_REALTIME, &t);
    v->tv_sec = t.tv_sec;
    v->tv_usec = t.tv_nsec / 1000;
    return code;
}
time_t time(time_t *where) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (where) *where = t.tv_sec;
    return t.tv_sec;
}
"""


def _planned(study: Study) -> bool:
    return (study.folder / "study.json").exists()


def data_changes(folder: Path, undisturbed: Study) -> Outcome:
    """The data are replaced, or gone, when the worker comes to read them; then put back."""
    outcome = Outcome("the data change or vanish in mid-study", "replaced; moved; then put back")
    for name in ("replaced", "moved"):
        data = shutil.copy(undisturbed.data, folder / f"{name}.npz")
        study = Study(folder / f"data-{name}", Path(data))
        process = study.begin(_planned)
        if name == "replaced":
            write_bars(study.data, seed=1)
        else:
            study.data.unlink()
        outcome.times += 1
        outcome.ended(study, study.end(process), expect=2)
        outcome.ended(study, study.run(), expect=2)  # and so does the study's own process
        shutil.copy(undisturbed.data, study.data)
        outcome.ended(study, study.run(), expect=0)
        outcome.finish(study, undisturbed)
    return outcome


def folder_goes(folder: Path, undisturbed: Study) -> Outcome:
    """The study's folder is removed, or moved away, while trials run."""
    outcome = Outcome("the output folder is removed in mid-study", "removed; moved and put back")
    for name in ("removed", "moved"):
        study = Study(folder / f"folder-{name}", undisturbed.data)
        process = study.begin(lambda it: len(it.records()) >= 2)
        away = study.out.with_name(f"{study.out.name}-away")
        study.out.rename(away)
        if name == "removed":
            shutil.rmtree(away)
        ended = process.wait(timeout=300)
        log = study.log.read_text()
        outcome.times += 1
        if ended != 2 or "Traceback" in log or "was removed" not in log:
            study.problems.append(f"expected a word and the exit code 2, got {ended}: {log[-300:]}")
        outcome.said += 1
        outcome.line = log.strip().splitlines()[-1]
        if name == "moved":
            shutil.rmtree(study.out, ignore_errors=True)
            away.rename(study.out)
        outcome.ended(study, study.run(), expect=0)
        outcome.finish(study, undisturbed)
    return outcome


def clock_backwards(folder: Path, undisturbed: Study) -> Outcome | None:
    """The system's clock runs backwards, through a kill and a resumption."""
    if shutil.which("cc") is None:
        return None
    outcome = Outcome("the clock goes backwards", "three seconds a second; killed and resumed")
    source = folder / "clock.c"
    source.write_text(CLOCK)
    library = source.with_suffix(".so")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    environment = {"LD_PRELOAD": str(library)}
    study = Study(folder / "clock", undisturbed.data, environment=environment)
    process = study.begin(lambda it: it.records() and it.checkpoints())
    os.killpg(process.pid, signal.SIGKILL)
    study.end(process)
    outcome.times = 1
    outcome.ended(study, study.run(), expect=0)
    outcome.finish(study, undisturbed)
    return outcome


def two_at_once(folder: Path, undisturbed: Study) -> Outcome:
    """The same command, started again while it runs."""
    outcome = Outcome("a second study in the same folder", "started while the first trains")
    study = Study(folder / "two", undisturbed.data)
    first = study.begin(Study.records)
    second = Study(study.out, study.data, tag="-second")
    outcome.times = 1
    outcome.ended(second, second.run(), expect=2)
    study.problems += second.problems
    outcome.ended(study, study.end(first))
    outcome.finish(study, undisturbed)
    return outcome


def losses(folder: Path, undisturbed: Study) -> Outcome:
    """The loss is not a number, or the data are not."""
    outcome = Outcome("NaN: the loss, the data", "--learning-rate 1e30; NaN in sequences")
    study = Study(folder / "loss", undisturbed.data, (*OPTIONS, "--learning-rate", "1e30"))
    for _ in range(2):  # the second time nothing runs again
        outcome.ended(study, study.run(), expect=1)
    outcome.times += 1
    found = [json.loads(record)["status"] for record in study.seen.values()]
    if found != ["diverged"] * 6:
        study.problems.append(f"expected six diverged trials, got {found}")
    outcome.finish(study, None)
    path = folder / "nan.npz"
    sequences = np.random.default_rng(0).normal(size=(64, 2, 16))
    sequences[5, 0, 3] = np.nan
    np.savez(path, train_sequences=sequences, train_labels=np.arange(64) % 2)
    bad = Study(folder / "nan", path)
    outcome.times += 1
    outcome.ended(bad, bad.run(), expect=2)
    outcome.finish(bad, None)
    return outcome


def images(folder: Path) -> Outcome:
    """A folder of images, some of which can't be read: a few, too many, more of them later."""
    outcome = Outcome("images are corrupt", "3 of 60; 30 of 60; 3 more in mid-study")
    data = folder / "images"
    random = np.random.default_rng(0)
    for number in range(60):
        kind = data / ("across" if number % 2 else "down")
        kind.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 150, (16, 16))
        pixels[6:9] += 100 if number % 2 else 0
        Image.fromarray(pixels.astype(np.uint8)).save(kind / f"{number:02}.png")
    files = sorted(data.glob("*/*.png"))
    whole = {path: path.read_bytes() for path in files}
    few = (files[0], files[20], files[40])
    for path in few:
        path.write_bytes(whole[path][:60])
    options = (*OPTIONS, "--size", "16")
    study = Study(folder / "images-few", data, options)
    outcome.ended(study, study.run(), expect=0)
    skipped = json.loads((study.folder / "results.json").read_text())["data"]["skipped"]
    if len(skipped) != len(few):
        study.problems.append(f"expected {len(few)} files skipped, got {skipped}")
    outcome.finish(study, None)
    many = Study(folder / "images-many", data, (*options, "--max-unreadable", "2"))
    outcome.ended(many, many.run(), expect=2)
    outcome.finish(many, None)
    later = Study(folder / "images-later", data, options)
    process = later.begin(_planned)
    for path in files[1:4]:
        path.write_bytes(os.urandom(200))
    outcome.ended(later, later.end(process), expect=2)
    for path in files[1:4]:
        path.write_bytes(whole[path])
    outcome.ended(later, later.run(), expect=0)
    outcome.finish(later, study)
    outcome.times = 3
    return outcome


def every(folder: Path, undisturbed: Study) -> Iterator[Outcome]:
    """All faults of this file."""
    yield data_changes(folder, undisturbed)
    yield images(folder)
    yield folder_goes(folder, undisturbed)
    yield two_at_once(folder, undisturbed)
    yield losses(folder, undisturbed)
    if (outcome := clock_backwards(folder, undisturbed)) is not None:
        yield outcome
