"""The table of docs/faults.md from what was tried."""

from collections import Counter
from pathlib import Path
from typing import Any

from whatwhere.files import write_text

BEGIN, END = "<!-- tried -->\n", "<!-- end -->\n"


def write_page(record: dict[str, Any], page: Path) -> None:
    """Put the table into the page, between its marks."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    write_text(page, f"{before}{BEGIN}{table(record)}{END}{after}")


def table(record: dict[str, Any]) -> str:
    """Every fault with its counts."""
    rows = _merged(list(record["faults"].values()))
    lines = [
        "",
        "| fault | how | times | said in a line | studies ended, and equal | records kept |",
        "|---|---|---:|---:|---:|---:|",
        *(
            f"| {row['fault']} | {row['how']} | {row['times']} | {row['said']} | "
            f"{row['studies']} | {row['records']} |"
            for row in rows
        ),
        f"| all | | {_sum(rows, 'times')} | {_sum(rows, 'said')} | {_sum(rows, 'studies')} | "
        f"{_sum(rows, 'records')} |",
        "",
    ]
    problems = [problem for row in rows for problem in row["problems"]]
    lines += [f"Problems: {len(problems)}.", *(f"- {problem}" for problem in problems), ""]
    for row in rows:
        if row["moments"]:
            told = ", ".join(
                f"{count} {moment}" for moment, count in sorted(row["moments"].items())
            )
            lines.append(f"- {row['fault']}: {told}")
    lines += ["", "What was said, an example each:", ""]
    lines += [f"- {row['fault']}: `{_short(row['line'])}`" for row in rows if row["line"]]
    return "\n".join([*lines, "", f"With torch {record['torch']} on a CPU.", "", ""])


def _merged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # One kind may have been tried in several goes, with other seeds.
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["fault"] not in found:
            found[row["fault"]] = {**row, "moments": Counter(row["moments"])}
            continue
        into = found[row["fault"]]
        for name in ("times", "said", "studies", "records", "problems"):
            into[name] = into[name] + row[name]
        into["how"] += f"; {row['how']}"
        into["moments"] += Counter(row["moments"])
    return list(found.values())


def _sum(rows: list[dict[str, Any]], name: str) -> int:
    return sum(row[name] for row in rows)


def _short(line: str) -> str:
    words = [
        "…/" + word.rpartition("/")[2] if word.startswith("/") else word for word in line.split()
    ]
    return " ".join(words)
