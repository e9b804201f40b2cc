"""Go through the cases, each in a process of its own, keep what is measured, write the page."""

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from whatwhere.bench.machine import stamp
from whatwhere.bench.measure.job import run_job
from whatwhere.bench.settings import Case, Plan
from whatwhere.bench.summary import summarise_records
from whatwhere.bench.tables import page
from whatwhere.files import read_json, remove_parts, write_json, write_text


def run(plan: Plan, out: Path, *, command: str, fresh: bool = False) -> dict[str, Any]:
    """Measure what is not measured yet, and write ``results.json`` and ``results.md``.

    Args:
        plan: what to measure, and how.
        out: the folder of the records; made if need be.
        command: what was typed, for the page.
        fresh: measure everything again.

    Returns:
        The content of ``results.json``. Its "refused" lists the cases in which a variant does
        not agree with the reference; those have no times, and the whole has no summary.

    Raises:
        ValueError: there is nothing to measure.
        RuntimeError: a measuring process died.
    """
    if not plan.cases:
        raise ValueError("bench: expected at least one section to measure, got none")
    folder = out / "records"
    folder.mkdir(parents=True, exist_ok=True)
    remove_parts(out)
    console = Console(stderr=True)
    wanted = stamp(plan.settings)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler tells of every start
    with _bars(console) as (bars, task):
        bars.update(task, total=len(plan.cases))
        for case in plan.cases:
            path = folder / f"{case.name}.json"
            if fresh or not is_kept(path, wanted):
                path.unlink(missing_ok=True)
                _run_in_process(case, plan, path, bars, task)
                bars.console.print(_line(case, read_json(path)), markup=False, highlight=False)
            bars.advance(task)
    records = [read_json(folder / f"{case.name}.json") for case in plan.cases]
    results = {"command": command, **summarise_records(records), "records": records}
    write_json(out / "results.json", results)
    write_text(out / "results.md", page(results))
    return results


def is_kept(path: Path, wanted: dict[str, Any]) -> bool:
    """Whether a record is whole, of the same kind of run, and not of a refused case."""
    try:
        record = read_json(path)
    except ValueError:
        return False  # not one of ours
    return (
        isinstance(record, dict)
        and record.get("status") == "measured"
        and record.get("stamp") == wanted
    )


def _run_in_process(case: Case, plan: Plan, path: Path, bars: Progress, task: TaskID) -> None:
    """Measure one case where no other case's compiled code and memory are in the way."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run_job, args=(case, plan.settings, path, sender))
    process.start()
    sender.close()
    try:
        while True:
            try:
                stage = receiver.recv()
            except EOFError:
                break
            bars.update(task, description=f"{case.name}: {stage}")
        process.join()
    finally:
        if process.is_alive():  # interrupted
            process.terminate()
            process.join()
    if process.exitcode != 0 or not path.exists():
        raise RuntimeError(
            f"measuring {case.name} ended with exit code {process.exitcode} and no record; what "
            "was measured before is kept, and the same command goes on from there"
        )


def _line(case: Case, record: dict[str, Any]) -> str:
    if record["status"] == "refused":
        worst = record["disagreements"][0]
        return (
            f"{case.name}: refused: {worst['variant']}, {worst['value']}: error "
            f"{worst['error']:.1e}, allowed {worst['allowed']:.0e}"
        )
    return f"{case.name}: {record['seconds']:.0f} s"


@contextmanager
def _bars(console: Console) -> Iterator[tuple[Progress, TaskID]]:
    with Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
        console=console,
        refresh_per_second=1,  # drawing takes time from what is measured
    ) as bars:
        yield bars, bars.add_task("benchmark")
