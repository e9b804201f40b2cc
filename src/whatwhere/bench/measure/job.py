"""One case in the process made for it: set threads, measure, write the record."""

import multiprocessing
import multiprocessing.connection
import os
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from whatwhere.bench.machine import describe, stamp
from whatwhere.bench.measure.growth import measure_growth
from whatwhere.bench.measure.networks import measure_network
from whatwhere.bench.measure.row import measure_row
from whatwhere.bench.measure.timing import Say
from whatwhere.bench.settings import Case, GrowthCase, Row, Settings
from whatwhere.files import write_json


def run_job(case: Case, settings: Settings, path: Path, sender: Connection) -> None:
    """Measure a case and write its record; stages go to ``sender`` as text."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    started = perf_counter()
    record = measure(case, settings, sender.send)
    record["seconds"] = perf_counter() - started
    record["case"] = case.name
    record["stamp"] = stamp(settings)
    record["machine"] = describe()
    write_json(path, _finite(record))


def measure(case: Case, settings: Settings, say: Say) -> dict[str, Any]:
    """The record of a case."""
    if isinstance(case, Row):
        return {"kind": "row", **measure_row(case, settings, say)}
    if isinstance(case, GrowthCase):
        return {"kind": "growth", **measure_growth(case, settings, say)}
    return {"kind": "network", **measure_network(case, settings, say)}


def _finite(value: Any) -> Any:
    # JSON has no infinity, which an error is where a variant gave NaN.
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return sys.float_info.max if value == float("inf") else value


def _die_with_parent() -> None:
    # A killed run leaves no process behind that would disturb the next one's times.
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
