"""A small study to disturb, and what must hold of it afterwards."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
OPTIONS = (
    *("--variants", "none,cbam", "--control", "none", "--seeds", "3"),
    *("--epochs", "8", "--batch-size", "16", "--workers", "1"),
)
LIMIT = 900.0  # seconds that a study may take on a busy machine
SAID = ("interrupted: the same command", "whatwhere: ", "Left out, of ")


@dataclass(frozen=True)
class Ended:
    """How a process ended and what it printed."""

    code: int
    text: str

    @property
    def line(self) -> str:
        """The last line that says why, or nothing."""
        told = [line for line in self.text.splitlines() if line.startswith(SAID)]
        return told[-1] if told else ""

    @property
    def clear(self) -> bool:
        """Whether it ended well, or with a word and no trace."""
        return "Traceback" not in self.text and (self.code == 0 or self.line != "")


@dataclass
class Study:
    """One folder, its data, and every finished record seen in it so far."""

    out: Path
    data: Path
    options: Sequence[str] = OPTIONS
    wrap: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)
    root: Path = Path("/")  # how the folder is seen from here, if it is mounted elsewhere
    seen: dict[str, bytes] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    tag: str = ""  # of the log's name, where two run in one folder

    @property
    def log(self) -> Path:
        """What the last process printed."""
        return self.out.with_name(f"{self.out.name}{self.tag}.log")

    @property
    def folder(self) -> Path:
        """The study's folder as this process sees it."""
        return self.root / self.out.relative_to("/")

    def start(self) -> subprocess.Popen[str]:
        """Begin the study's command in a process group of its own, on one core."""
        cores = sorted(os.sched_getaffinity(0))
        core = str(cores[os.getpid() % len(cores)])
        command = ["taskset", "-c", core, sys.executable, "-m", "whatwhere", "compare"]
        log = self.log.open("w")
        return subprocess.Popen(
            [*self.wrap, *command, str(self.data), "--out", str(self.out), *self.options],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **self.environment},
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )

    def end(self, process: "subprocess.Popen[str]") -> Ended:
        """Wait for the process, and note what it finished."""
        try:
            code = process.wait(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
            self.problems.append(f"hung for {LIMIT:.0f} s")
        wait_for(lambda: not members(process.pid), 60)
        if left := members(process.pid):
            self.problems.append(f"left processes behind: {left}")
        self.look()
        return Ended(code, self.log.read_text(errors="replace"))

    def begin(self, until: Callable[["Study"], Any]) -> "subprocess.Popen[str]":
        """Start, and come back when something holds of the study, or when it has ended."""
        process = self.start()
        wait_for(lambda: until(self) or process.poll() is not None)
        return process

    def run(self) -> Ended:
        """The command from beginning to end."""
        return self.end(self.start())

    def records(self) -> dict[str, bytes]:
        """The finished trials' records, as they stand."""
        found = {}
        for path in self.folder.glob("trials/*/result.json"):
            content = path.read_bytes()
            try:
                record = json.loads(content)
            except ValueError:
                continue
            if isinstance(record, dict) and record.get("status") in ("finished", "diverged"):
                found[path.parent.name] = content
        return found

    def look(self) -> None:
        """Check that no record seen before has changed or gone."""
        now = self.records()
        for name, content in self.seen.items():
            if now.get(name) != content:
                self.problems.append(f"the finished record of {name} changed or is gone")
        self.seen |= now

    def forget(self, name: str) -> None:
        """Do without a record that the fault itself destroys."""
        self.seen.pop(name, None)

    def checkpoints(self) -> list[Path]:
        """The unfinished trials' checkpoints, the newest last."""
        return sorted(self.folder.glob("trials/*/training/*.ckpt"))

    def compare(self, undisturbed: "Study") -> None:
        """Check that the study's results are an undisturbed one's, bit for bit."""
        self.problems += differences(self.folder, undisturbed.folder)


def differences(run: Path, expected: Path) -> list[str]:
    """How a study's results differ from those of another."""
    told = [json.loads((each / "results.json").read_text())["trials"] for each in (run, expected)]
    mine, theirs = ({(t["variant"], t["seed"]): t for t in trials} for trials in told)
    problems = [
        f"{key} is counted {count} times"
        for key, count in Counter((t["variant"], t["seed"]) for t in told[0]).items()
        if count != 1
    ]
    if mine.keys() != theirs.keys():
        problems.append(f"expected the trials {sorted(theirs)}, got {sorted(mine)}")
    for key in mine.keys() & theirs.keys():
        for part in ("status", "test"):
            if mine[key][part] != theirs[key][part]:
                problems.append(f"{key}: {part} {mine[key][part]}, undisturbed {theirs[key][part]}")
        if _losses(mine[key]) != _losses(theirs[key]):
            problems.append(f"{key}: other losses than undisturbed")
        weights = [load_file(run / mine[key]["checkpoint"]) for run in (run, expected)]
        if not all(torch.equal(value, weights[1][name]) for name, value in weights[0].items()):
            problems.append(f"{key}: other weights than undisturbed")
    return problems


def _losses(trial: dict[str, Any]) -> list[list[float]]:
    return [[v for k, v in epoch.items() if k != "seconds"] for epoch in trial["epochs"]]


def members(group: int) -> list[int]:
    """The living processes of a process group, from Linux's process table."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(folder.name))
    return found


def worker_of(group: int) -> int | None:
    """The process of a study that runs trials, if there is one."""
    for process in members(group):
        try:
            if b"spawn_main" in Path(f"/proc/{process}/cmdline").read_bytes():
                return process
        except (FileNotFoundError, ProcessLookupError):
            continue
    return None


def wait_for(condition: Callable[[], Any], seconds: float = LIMIT) -> bool:
    """Look every few milliseconds until something holds; False if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def write_bars(path: Path, *, seed: int = 0) -> Path:
    """Two classes of 12×12 pictures, a bar across or down in noise, as an .npz file."""
    random = np.random.default_rng(seed)
    arrays = {}
    for split, count in (("train", 96), ("val", 32), ("test", 48)):
        labels = np.arange(count) % 2
        images = random.integers(0, 120, (count, 12, 12))
        images[labels == 1, 3:9, 5:7] += 60
        images[labels == 0, 5:7, 3:9] += 60
        arrays[f"{split}_images"] = images.astype(np.uint8)
        arrays[f"{split}_labels"] = labels[:, None]
    np.savez(path, **arrays)
    return path
