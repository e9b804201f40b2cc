"""``python -m benchmarks.coverage``: simulate, and write the tables of docs/statistics.md."""

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.coverage.page import write_tables
from benchmarks.coverage.simulate import simulate
from benchmarks.coverage.worlds import WORLDS
from whatwhere.files import read_json, write_json

ROOT = Path(__file__).parents[2]
SEEDS = (2, 3, 5, 10)
VARIANTS = (1, 3, 6)
# Which worlds are drawn for which truth, and for --until-sure.
TRUTHS = {
    "none": tuple(WORLDS),
    "size": ("gaussian", "unstable"),
    "half": ("gaussian",),
}
SURE_WORLDS = ("gaussian", "counted", "heavy", "unstable")
WIDTHS = (3.0, 2.0, 1.0)
MAX_SEEDS = 40


def cells(studies: int) -> list[dict[str, Any]]:
    """What is to be simulated, each by one call."""
    found = [
        {"world": world, "truth": truth, "seeds": seeds, "variants": variants, "count": studies}
        for truth, worlds in TRUTHS.items()
        for world in worlds
        for variants in VARIANTS
        for seeds in SEEDS
        if truth != "half" or variants > 1
    ]
    return found + [
        {
            "world": world,
            "width": width,
            "seeds": 3,
            "max_seeds": MAX_SEEDS,
            "variants": variants,
            "count": studies,
        }
        for world in SURE_WORLDS
        for variants in (1, 3)
        for width in WIDTHS
    ]


def main() -> None:
    """Read the command line, simulate, write benchmarks/results/coverage.json and the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--studies", type=int, default=2000, help="a cell (%(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (%(default)s)")
    parser.add_argument("--tables-only", action="store_true", help="from what was simulated before")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/coverage.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/statistics.md")
    chosen = parser.parse_args()
    if not chosen.tables_only:
        _simulate(cells(chosen.studies), chosen.jobs, chosen.json)
    write_tables(chosen.page, read_json(chosen.json))


def _simulate(asked: list[dict[str, Any]], jobs: int | None, path: Path) -> None:
    started = time.perf_counter()
    found: dict[int, dict[str, Any]] = {}
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(simulate, cell): index for index, cell in enumerate(asked)}
        for done in as_completed(running):
            found[running[done]] = done.result()
            write_json(path, [found[index] for index in sorted(found)])
            seconds = time.perf_counter() - started
            print(f"\r{len(found)} of {len(asked)} cells, {seconds:.0f} s", end="", flush=True)
    print()


if __name__ == "__main__":
    main()
