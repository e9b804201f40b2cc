"""The table of docs/faults.md from what was tried."""

from collections import Counter
from pathlib import Path
from typing import Any

from whatwhere.files import write_text


def write_page(record: dict[str, Any], page: Path) -> None:
    """Put the tables into the page, between their marks."""
    text = page.read_text(encoding="utf-8")
    for name, content in {"tried": table(record), "bits": bits(record)}.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end {name} -->\n"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}{content}{end}{rest.partition(end)[2]}"
    write_text(page, text)


def bits(record: dict[str, Any]) -> str:
    """Which trainings gave the same bits."""
    answers = {True: "the same", False: "**not the same**"}
    lines = [
        "",
        "| data | backbone | variant | twice | with the option | stopped and resumed |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['data']} | {row['backbone']} | {row['variant']} | {answers[row['twice']]} | "
            f"{answers[row['deterministic']]} | {answers[row['resumed']]} |"
            for row in record.get("bits", [])
        ),
    ]
    return "\n".join([*lines, "", ""])


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
    lines += [f"- {row['fault']}: `{row['line']}`" for row in rows if row["line"]]
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
