"""How a trial's process runs: the first or not, quietly, deterministic if asked."""

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning_utilities.core.rank_zero import rank_zero_only


def is_first_process() -> bool:
    """Whether this process writes the record; true where a training has one process."""
    rank: int = rank_zero_only.rank  # type: ignore[attr-defined]  # Lightning sets it
    return rank == 0


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's advice on matters the study decides itself, nor traces of threads."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Which says that a process was lost, before it ends this one and all others.
    logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script").setLevel("INFO")
    with warnings.catch_warnings():
        for pattern in (
            ".*does not have many workers.*",
            ".*smaller than the logging interval.*",
            ".*Checkpoint directory .* exists and is not empty.*",
            ".*LeafSpec.*is deprecated.*",
            ".*sync_dist=True.*",  # what is logged is the same in every process already
            ".*lr_scheduler.step.*before.*optimizer.step.*",
        ):
            warnings.filterwarnings("ignore", message=pattern)
        before = threading.excepthook
        threading.excepthook = _of_threads
        try:
            yield
        finally:
            threading.excepthook = before


def _of_threads(told: threading.ExceptHookArgs) -> None:
    # TensorBoard's writer is a thread; what ends it, a full disk, say, is raised at the next write.
    if not isinstance(told.exc_value, OSError):
        threading.__excepthook__(told)


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Where wanted, refuse operations that may give other bits another time.

    >>> with deterministic(True):
    ...     torch.are_deterministic_algorithms_enabled()
    True
    >>> torch.are_deterministic_algorithms_enabled()
    False
    """
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its start
    before = torch.get_deterministic_debug_mode()
    benchmark = torch.backends.cudnn.benchmark
    torch.set_deterministic_debug_mode("error")
    torch.backends.cudnn.benchmark = False  # which kernel is fastest may differ between two runs
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
        torch.backends.cudnn.benchmark = benchmark
