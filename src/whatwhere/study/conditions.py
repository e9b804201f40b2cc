"""How a trial's process runs: without advice, with deterministic operations if asked, telling."""

import logging
import math
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from whatwhere.files import write_json


class Progress(Callback):
    """Tells the study's process how far the trial is, through a small file."""

    def __init__(self, path: Path, epochs: int, batches: int) -> None:
        self.path = path
        self.total = epochs * batches
        self.epochs = epochs
        self._told = -math.inf

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the number of steps done, twice a second at most."""
        if perf_counter() - self._told > 0.5:
            self._told = perf_counter()
            write_json(
                self.path,
                {
                    "step": trainer.global_step,
                    "steps": self.total,
                    "epoch": trainer.current_epoch + 1,
                    "epochs": self.epochs,
                },
            )


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's advice on matters the study decides itself, nor traces of threads."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for pattern in (
            ".*does not have many workers.*",
            ".*smaller than the logging interval.*",
            ".*Checkpoint directory .* exists and is not empty.*",
            ".*LeafSpec.*is deprecated.*",
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
