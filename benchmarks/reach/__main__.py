"""``python -m benchmarks.reach``: measure what is not measured yet, write the tables."""

import argparse
import time
from pathlib import Path

import torch

from benchmarks.reach.catalog import LIBRARIES, entries, version
from benchmarks.reach.page import page
from benchmarks.reach.run import ROOT, measure_rows
from benchmarks.reach.share import timm_facts
from whatwhere.files import read_json, write_json, write_text

RESULTS = ROOT / "benchmarks" / "results"


def main() -> None:
    """Read the command line, measure, write benchmarks/results/reach.json and docs/reach.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reach", description=__doc__)
    parser.add_argument("--only", choices=LIBRARIES, nargs="+", help="these libraries alone")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time (%(default)s)")
    parser.add_argument("--limit", type=float, default=600, help="seconds a row (%(default)s)")
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    parser.add_argument("--records", type=Path, default=RESULTS / "reach" / "records")
    parser.add_argument("--json", type=Path, default=RESULTS / "reach.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "reach.md")
    chosen = parser.parse_args()
    libraries = list(LIBRARIES) if chosen.only is None else chosen.only
    kept = None if chosen.only is None else read_json(chosen.json)
    results = {"libraries": {}, "timm": None} if kept is None else kept
    for library in libraries:
        found = version(library)
        if found is None:
            results["libraries"][library] = {"version": None, "rows": []}
            continue
        started = time.perf_counter()
        if library == "timm":
            from benchmarks.reach.catalog.of_timm import smallest

            facts = timm_facts(chosen.records, jobs=chosen.jobs, fresh=chosen.fresh)
            results["timm"] = {"names": facts, "seconds": round(sum(f["seconds"] for f in facts))}
            names = smallest(facts)
        else:
            names = list(entries(library))
        records = measure_rows(
            [(library, name) for name in names],
            chosen.records,
            jobs=chosen.jobs,
            limit=chosen.limit,
            fresh=chosen.fresh,
        )
        rows = [{"name": name, **record} for (_, name), record in records.items()]
        sources = {row.pop("stamp")["source"] for row in rows}
        results["libraries"][library] = {"version": found, "sources": list(sources), "rows": rows}
        results["torch"] = torch.__version__
        print(f"{library}: {len(rows)} rows in {time.perf_counter() - started:.0f} s", flush=True)
        write_json(chosen.json, results)
        write_text(chosen.page, page(results))


if __name__ == "__main__":
    main()
