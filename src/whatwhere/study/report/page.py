"""Putting the page together: results in, one self-contained HTML file out."""

import base64
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from whatwhere.study.report import figures, tables
from whatwhere.study.statistics import Results, compare_variants
from whatwhere.study.verdict import verdict

NEEDED = (
    "whatwhere",
    "created",
    "command",
    "name",
    "fast",
    "versions",
    "machine",
    "settings",
    "data",
    "variants",
    "trials",
)


def write_report(run: Path) -> Path:
    """Write ``run/report.html`` from ``run/results.json`` and return its path.

    The page holds everything it shows: no script, no request. It replaces an earlier one at once,
    so a reader never sees half a page.

    Raises:
        ValueError: there is no results.json, or it is not what a study writes.
    """
    page = render(_read(run), run)
    target = run / "report.html"
    part = run / ".report.html.part"
    part.write_text(page, encoding="utf-8")
    part.replace(target)
    return target


def render(results: Results, run: Path) -> str:
    """The page as text; pictures are read from ``run``."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    source = files(__package__).joinpath("template.html").read_text(encoding="utf-8")
    comparisons = compare_variants(results)
    return environment.from_string(source).render(
        results=results,
        verdict=verdict(results),
        variants=tables.variant_rows(results, comparisons),
        compared=len(comparisons),
        gates=tables.gate_tables(results),
        states=tables.STATE_MEANINGS,
        unfinished=[
            trial
            for trial in [*results["trials"], *results.get("parts", [])]
            if trial["status"] != "finished"
        ],
        facts=tables.facts(results),
        pictures=_pictures(results, run),
        tradeoff=figures.tradeoff(results),
        seeds=figures.seeds(results),
        curves=figures.curves(results),
        fractions=figures.fractions(results),
        fraction_rows=tables.fraction_rows(results),
        hits=figures.hits(results),
    )


def _read(run: Path) -> dict[str, Any]:
    path = run / "results.json"
    if not path.is_file():
        raise ValueError(f"write_report: expected {path}, which a study writes; it isn't there")
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"write_report: expected {path} to be JSON, got {error}") from error
    missing = [key for key in NEEDED if not isinstance(results, dict) or key not in results]
    if missing:
        raise ValueError(f"write_report: expected {path} to have {', '.join(missing)}; it has not")
    return results


def _pictures(results: Results, run: Path) -> list[dict[str, Any]]:
    """The gates drawn in the first finished seed of every attention variant."""
    found = []
    for variant in results["variants"]:
        drawn = [
            trial
            for trial in results["trials"]
            if trial["variant"] == variant["name"] and trial["picture"] is not None
        ]
        if variant["role"] == "attention" and drawn:
            first = min(drawn, key=lambda trial: trial["seed"])
            path = run / first["picture"]
            encoded = base64.b64encode(path.read_bytes()).decode() if path.is_file() else None
            found.append(
                {
                    "variant": variant["name"],
                    "seed": first["seed"],
                    "path": first["picture"],
                    "source": None if encoded is None else f"data:image/png;base64,{encoded}",
                }
            )
    return found
