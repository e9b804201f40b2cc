"""The page of a run: ``results.md``, from the content of ``results.json``."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from whatwhere.bench.settings import PASSES, QUIET
from whatwhere.bench.summary import (
    COMPILED_TO_OURS,
    EAGER_TO_OURS,
    MEDIAN,
    best_peer,
    smaller_is_better,
)

DISTURBED = "†"
PASS_NAMES = {"forward": "forward", "both": "forward + backward"}


def page(results: Mapping[str, Any]) -> str:
    """The whole page, in Markdown."""
    records = [record for record in results["records"] if record["status"] == "measured"]
    rows = [record for record in records if record["kind"] == "row"]
    parts = ["# Benchmark", _conditions(results)]
    if results["refused"]:
        parts.append(_refusal(results["refused"]))
    if results["summary"]:
        parts += ["## Means over shapes and layouts", _summary(results["summary"])]
    if rows and not results["refused"]:
        for which in PASSES:
            parts += [f"## Rows: {PASS_NAMES[which]}, in copies of x", _rows(rows, which)]
        parts += ["## Memory, in multiples of the bytes of x", _memory(rows)]
        parts += ["## Compile times", _first_calls(rows)]
        parts += _absent(rows)
    if results["overheads"]:
        parts += ["## Networks: time over the plain network", _networks(results["overheads"])]
    if results["growth"]:
        parts += ["## Growth of ours: nanoseconds per byte of x", _growth(results["growth"])]
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column to the left, the others to the right.

    >>> print(table(["a", "b"], [["x", "1"]]))
    | a | b |
    |---|---:|
    | x | 1 |
    """
    rule = "|---|" + "---:|" * (len(head) - 1)
    return "\n".join([_line(head), rule, *(_line(line) for line in lines)])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _conditions(results: Mapping[str, Any]) -> str:
    first = results["records"][0]
    machine, stamp = first["machine"], first["stamp"]
    commits = sorted({str(record["machine"]["commit"]) for record in results["records"]})
    versions = ", ".join(f"{name} {version}" for name, version in stamp["versions"].items())
    environment = ", ".join(f"{key}={value}" for key, value in stamp["environment"].items())
    seconds = sum(record["seconds"] for record in results["records"])
    lines = [
        f"    {results['command']}",
        "",
        f"- {machine['processor']}, {machine['cores']} cores, {machine['capability']}, "
        f"{machine['system']}; torch used {stamp['threads']} threads",
        f"- Python {machine['python']}, {versions}; commit {', '.join(commits)}",
        f"- environment: {environment or 'none of the variables that matter is set'}",
        f"- measured in {seconds / 60:.0f} minutes; a number is the median over rounds, a ratio's "
        "the median of those taken within a round",
        f"- rounds in which other processes kept more than {QUIET:g} cores busy don't count; "
        f"where too few are left all count, marked {DISTURBED}",
    ]
    return "\n".join(lines)


def _refusal(refused: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        [
            each["case"],
            each["variant"],
            each["value"],
            f"{each['error']:.1e}",
            f"{each['allowed']:g}",
        ]
        for each in refused
    ]
    head = ["case", "variant", "value", "error", "allowed"]
    return (
        "**No speed-up is printed: these variants do not compute what the float64 reference "
        "does.**\n\n" + table(head, lines)
    )


def _summary(summary: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for each in summary:
        aim = each["aim"]
        sign = "≤" if smaller_is_better(each["quantity"]) else "≥"
        rows = str(each["rows"])
        if each["rows"] < each["of_rows"]:
            rows += f" of {each['of_rows']}"
        if each["disturbed"]:
            rows += f", {each['disturbed']}{DISTURBED}"
        lines.append(
            [
                f"{each['quantity']}, {PASS_NAMES[each['pass']]}, {each['dtype']}",
                f"{each['mean']:.2f}",
                "" if aim is None else f"{sign} {aim:g}: {_verdict(each)}",
                f"{each['worst']:.2f} at {each['worst_case']}",
                rows,
            ]
        )
    return table(["geometric mean", "value", "aim", "worst row", "rows"], lines)


def _verdict(each: Mapping[str, Any]) -> str:
    met = (
        each["mean"] <= each["aim"]
        if smaller_is_better(each["quantity"])
        else each["mean"] >= each["aim"]
    )
    return "met" if met else "missed"


def _rows(rows: Sequence[Mapping[str, Any]], which: str) -> str:
    names = list(dict.fromkeys(name for r in rows for name in r["passes"][which]["times"]))
    names.remove("copy")
    lines = []
    for row in rows:
        timed = row["passes"][which]
        times = timed["times"]
        cells = [f"{times[name]['to_copy'][MEDIAN]:.2f}" if name in times else "" for name in names]
        others = "" if timed["others"] is None else f"{timed['others']:.2f}"
        lines.append(
            [
                row["case"],
                f"{1000 * times['copy']['seconds'][MEDIAN]:.3f}",
                *cells,
                *(_best(row, which, kind) for kind in ("compiled", "eager")),
                _rounds(timed),
                others,
            ]
        )
    head = ["row", "copy, ms", *names, COMPILED_TO_OURS, EAGER_TO_OURS, "rounds", "others' cores"]
    return table(head, lines)


def _rounds(timed: Mapping[str, Any]) -> str:
    return f"{timed['rounds']}{DISTURBED if timed['disturbed'] else ''}"


def _best(row: Mapping[str, Any], which: str, kind: str) -> str:
    best = best_peer(row, which, kind)
    return "" if best is None else f"{best[1]:.2f}"


def _memory(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row["memory"]))
    lines = []
    for row in rows:
        for kind, told in (
            ("saved", "kept for the backward pass"),
            ("forward", "peak, forward"),
            ("both", "peak, forward + backward"),
        ):
            memory = row["memory"]
            cells = [f"{memory[name][kind]:.2f}" if name in memory else "" for name in names]
            lines.append([f"{row['case']}, {told}", *cells])
    return table(["row", *names], lines)


def _first_calls(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(n for row in rows for n in row["first_call_seconds"]))
    lines = []
    for row in rows:
        first = row["first_call_seconds"]
        cells = [f"{sum(first[name].values()):.1f}" if name in first else "" for name in names]
        lines.append([row["case"], *cells])
    return (
        "Seconds of the first call of both passes, which compiles; compilers keep caches, so that "
        "a second run shows less.\n\n" + table(["row", *names], lines)
    )


def _absent(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for name, reason in row["absent"].items():
            reasons.setdefault(f"{name}: {reason}", []).append(row["case"])
    if not reasons:
        return []
    lines = [
        f"- {reason} ({'every row' if len(cases) == len(rows) else ', '.join(cases)})"
        for reason, cases in reasons.items()
    ]
    return ["## Not measured", "\n".join(lines)]


def _networks(overheads: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for each in overheads:
        low, median, high = each["percent"]
        others = "" if each["others"] is None else f"{each['others']:.2f}"
        lines.append(
            [
                f"{each['network']}, batch {each['batch']}, {each['pass']}: {each['variant']}",
                f"{each['milliseconds']:.1f}",
                f"{median:+.1f}% ({low:+.1f} to {high:+.1f})",
                _rounds(each),
                others,
            ]
        )
    return table(["network", "ms", "over plain (quartiles)", "rounds", "others' cores"], lines)


def _points(each: Mapping[str, Any]) -> list[str]:
    marks = (DISTURBED if disturbed else "" for disturbed in each["disturbed"])
    return [f"{value:.2f}{mark}" for value, mark in zip(each["ns_per_byte"], marks, strict=True)]


def _growth(growth: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for axis in dict.fromkeys((each["axis"], each["layout"]) for each in growth):
        of_axis = [each for each in growth if (each["axis"], each["layout"]) == axis]
        shapes = ["×".join(map(str, shape)) for shape in of_axis[0]["shapes"]]
        lines = [
            [
                PASS_NAMES.get(each["call"], each["call"]),
                *_points(each),
                f"{each['spread']:.2f}",
                "yes" if each["flat"] else "no",
            ]
            for each in of_axis
        ]
        head = [f"{axis[0]}, {axis[1]}", *shapes, "largest / smallest", "flat within 2×"]
        parts.append(table(head, lines))
    return "\n\n".join(parts)
