"""Where a measurement was made, and of what: so that unlike things are never put in one table."""

import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import whatwhere
from whatwhere.bench.settings import Settings

PACKAGE = Path(whatwhere.__file__).parent
# What decides the numbers; a change of the tables made of them is none.
MEASURED = ("ops", "gates", "surgery", "bench/measure")
PACKAGES = ("torch", "torchvision", "timm", "numba", "numpy")
ENVIRONMENT = (
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "KMP_BLOCKTIME",
    "NUMBA_NUM_THREADS",
    "NUMBA_THREADING_LAYER",
    "THP_MEM_ALLOC_ENABLE",
    "MALLOC_CONF",
    "LD_PRELOAD",
)


def stamp(settings: Settings) -> dict[str, Any]:
    """What two records must share to be in one table, as JSON-able values."""
    return {
        "settings": settings.as_dict(),
        "source": source_digest(),
        "processor": processor(),
        "threads": torch.get_num_threads() if settings.threads is None else settings.threads,
        "versions": versions(),
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
    }


def describe() -> dict[str, Any]:
    """The machine and the commit, as JSON-able values."""
    return {
        "processor": processor(),
        "cores": _cores(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "commit": commit(),
    }


def versions() -> dict[str, str]:
    """Of what is installed of the packages that matter."""
    found = {"whatwhere": whatwhere.__version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def source_digest() -> str:
    """Of the files that decide the numbers."""
    digest = hashlib.sha256()
    for room in MEASURED:
        for path in sorted((PACKAGE / room).rglob("*.py")):
            digest.update(path.relative_to(PACKAGE).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def commit() -> str | None:
    """The commit of the checkout the package is in, with "+dirty" if files differ from it."""
    git = ["git", "-C", str(PACKAGE)]
    try:
        told = subprocess.run(
            [*git, "describe", "--always", "--dirty=+dirty", "--exclude=*", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None  # installed, not a checkout
    return told.stdout.strip()


def processor() -> str:
    """The CPU's model, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    named = platform.processor()
    return named if named != "" else platform.machine()


def _cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()
