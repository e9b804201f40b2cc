"""The tables of docs/statistics.md from what was simulated; the words between them are its own."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.coverage.worlds import WORLDS
from whatwhere.files import write_text
from whatwhere.study.power import detectable
from whatwhere.study.statistics import LEVEL

Cell = dict[str, Any]
TABLE = re.compile(r"(<!-- table: ([a-z-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def write_tables(page: Path, cells: Sequence[Cell]) -> None:
    """Replace every table of the page between its marks."""
    write_text(page, with_tables(page.read_text(encoding="utf-8"), cells))


def with_tables(text: str, cells: Sequence[Cell]) -> str:
    """The page's text with its tables made from the cells.

    Raises:
        ValueError: a table of a name that there is none of.
    """

    def made(found: re.Match[str]) -> str:
        if found[2] not in TABLES:
            raise ValueError(f"expected a table of {', '.join(TABLES)}, got {found[2]!r}")
        return f"{found[1]}\n{TABLES[found[2]](cells)}\n\n{found[4]}"

    return TABLE.sub(made, text)


def percent(part: int, whole: int) -> str:
    """A share in percent with one decimal."""
    return f"{100 * part / whole:.1f}"


def _coverage(cells: Sequence[Cell]) -> str:
    """Coverage by world and seeds; the number of variants has no part in it."""
    seeds, rows = _seeds(cells), []
    for world in _worlds(cells, "none"):
        row = [WORLDS[world].title]
        for count in seeds:
            chosen = [c for c in _of(cells, "none", world) if c["seeds"] == count]
            row.append(percent(_sum(chosen, "covering"), _sum(chosen, "intervals")))
        rows.append(row)
    return _table(["accuracies", *(f"{count} seeds" for count in seeds)], rows)


def _claims(truth: str, key: str) -> Callable[[Sequence[Cell]], str]:
    def table(cells: Sequence[Cell]) -> str:
        seeds, rows = _seeds(cells), []
        for world in _worlds(cells, truth):
            for variants in sorted({c["variants"] for c in _of(cells, truth, world)}):
                row = [WORLDS[world].title, str(variants)]
                for count in seeds:
                    [cell] = [
                        c
                        for c in _of(cells, truth, world)
                        if (c["seeds"], c["variants"]) == (count, variants)
                    ]
                    row.append(percent(cell.get(key, 0), cell["studies"]))
                rows.append(row)
        return _table(["accuracies", "variants", *(f"{count} seeds" for count in seeds)], rows)

    return table


def _until_sure(cells: Sequence[Cell]) -> str:
    rows = [
        [
            WORLDS[cell["world"]].title,
            str(cell["variants"]),
            f"±{cell['until_sure']:g}",
            f"{cell['seeds_taken'] / cell['studies']:.1f}",
            percent(cell.get("sure", 0), cell["studies"]),
            percent(cell["covering_over_plain"], cell["intervals_over_plain"]),
            percent(cell.get("helps", 0), cell["studies"]),
            percent(cell.get("worth", 0), cell["studies"]),
        ]
        for cell in cells
        if "until_sure" in cell
    ]
    heads = ["accuracies", "variants", "asked", "seeds taken", "sure", "coverage", "helps", "worth"]
    return _table(heads, rows)


def _detectable(_: Sequence[Cell]) -> str:
    variants = (1, 2, 3, 6)
    rows = [
        [str(seeds), *(f"{detectable(seeds, LEVEL / count):.1f}" for count in variants)]
        for seeds in (2, 3, 4, 5, 7, 10, 20)
    ]
    return _table(["seeds", "1 variant", *(f"{count} variants" for count in variants[1:])], rows)


TABLES: dict[str, Callable[[Sequence[Cell]], str]] = {
    "coverage": _coverage,
    "helps": _claims("none", "helps"),
    "hurts": _claims("none", "hurts"),
    "uncorrected": _claims("none", "uncorrected"),
    "worth": _claims("size", "worth"),
    "half": _claims("half", "helps"),
    "until-sure": _until_sure,
    "detectable": _detectable,
}


def _of(cells: Sequence[Cell], truth: str, world: str) -> list[Cell]:
    return [cell for cell in cells if cell.get("truth") == truth and cell["world"] == world]


def _worlds(cells: Sequence[Cell], truth: str) -> list[str]:
    return [world for world in WORLDS if _of(cells, truth, world)]


def _seeds(cells: Sequence[Cell]) -> list[int]:
    return sorted({cell["seeds"] for cell in cells if "truth" in cell})


def _sum(cells: Sequence[Cell], key: str) -> int:
    return sum(cell[key] for cell in cells)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rules = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [heads, rules, *rows])
