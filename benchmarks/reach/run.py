"""Go through the rows, each in a process of its own, and keep what is measured."""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

import whatwhere
from benchmarks.reach.catalog import LIBRARIES, version
from whatwhere.files import read_json, write_json

ROOT = Path(__file__).parents[2]
# What decides the numbers.
ROOMS = ("checks.py", "evaluation.py", "gates", "ops", "surgery")
MEASURING = ("network.py", "row.py", "share.py")
STEPS = ("reason", "trains", "compiles", "exports")
# One thread each; nothing is looked up in the network.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "YOLO_OFFLINE": "True",
    "TORCH_LOGS": "-all",
}


def stamp(library: str) -> dict[str, Any]:
    """What a record must share with the present code to be kept."""
    package = Path(whatwhere.__file__).parent
    files = [path for room in ROOMS for path in _files(package / room)]
    files += [Path(__file__).parent / name for name in MEASURING]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
    return {"source": digest, "torch": torch.__version__, library: version(library)}


def measure_rows(
    rows: Sequence[tuple[str, str]], folder: Path, *, jobs: int, limit: float, fresh: bool
) -> dict[tuple[str, str], dict[str, Any]]:
    """The record of each (library, name), measured now unless it was with the same code.

    Args:
        rows: which networks.
        folder: of the records; made if need be.
        jobs: how many processes at a time.
        limit: seconds that one row may take; what it had found by then is kept.
        fresh: measure everything again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stamps = {library: stamp(library) for library in LIBRARIES}

    def one(row: tuple[str, str]) -> dict[str, Any]:
        library, name = row
        path = folder / f"{library}-{re.sub(r'[^A-Za-z0-9.-]+', '_', name)}.json"
        kept = read_json(path)
        if fresh or kept is None or kept.get("stamp") != stamps[library]:
            kept = {**_measured(library, name, path, limit), "stamp": stamps[library]}
            write_json(path, kept)
            print(f"{library} {name}: {kept['status']}, {kept.get('seconds')} s", flush=True)
        return kept

    return dict(zip(rows, at_once(one, rows, jobs), strict=True))


def at_once(run: Callable[[Any], Any], each: Sequence[Any], jobs: int) -> list[Any]:
    """What a function that waits for a process returns for each, several at a time."""
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(run, each))


def start(module: str, *arguments: str, limit: float | None) -> str | None:
    """Run a module of this package in a process; why it did not end well, or None.

    What it prints, compilers' pages about their failures above all, is dropped.
    """
    command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.reach.{module}", *arguments]
    try:
        done = subprocess.run(
            command,
            check=False,
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        return f"not done after {limit:.0f} s"
    if done.returncode == 0:
        return None
    last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return f"the process ended with {done.returncode}: {last[:200]}"


def _measured(library: str, name: str, path: Path, limit: float) -> dict[str, Any]:
    path.unlink(missing_ok=True)
    ended = start("row", library, name, str(path), limit=limit)
    record: dict[str, Any] = {"status": "failed", "step": "reason"} | (read_json(path) or {})
    step = record.pop("step")
    if ended is not None and step is not None:
        record[step] = ended
        record |= dict.fromkeys(STEPS[STEPS.index(step) + 1 :], "not reached")
    return record


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.rglob("*.py"))
