"""docs/reach.md from what was measured."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.reach.catalog import TITLES
from benchmarks.reach.row import NOT_WITHOUT
from benchmarks.reach.share import CONVOLUTIONS

Record = dict[str, Any]
HEAD = """\
# On which networks it works

`attend(model, "cbam")` on other people's networks, their source untouched, with random weights.
`python -m benchmarks.reach` writes this page; it measures what is installed of the libraries, keeps
each row when it is done, and goes on from there if it is stopped.

- **where**: the kind of place that `where="auto"` found; \\* if `example=` had to be given
- **sites**: how many places got a gate
- **parameters**: those of the plain network, and how many the gates add
- **unchanged**: the largest absolute difference of any output before and after, in eval mode:
  contiguous / in channels_last. Weights and norm statistics are random; no branch is scaled by zero
- **trains**: a backward pass in training mode gives every parameter of a gate a finite gradient,
  and every gate one that isn't zero (in one of three passes, where paths are dropped at random)
- **compiles**: `torch.compile(fullgraph=True, backend="aot_eager")`: no graph break, same output
- **exports**: `torch.export.export`, same output

*no* has its reason below the table; — stands for what the plain network can't do either.
"""


def page(results: Record) -> str:
    """The whole page."""
    libraries = results["libraries"]
    parts = [HEAD, f"Measured with torch {results['torch']} on a CPU.\n", _summary(libraries)]
    if results["timm"] is not None:
        parts.append(_share(results["timm"]["names"]))
    for library, title in TITLES.items():
        if library in libraries:
            parts.append(_library(title, libraries[library]))
    return "\n".join(parts)


def _summary(libraries: Record) -> str:
    lines = [
        "| library | networks | attended | unchanged | train | compile | export |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for library, title in TITLES.items():
        if library not in libraries:
            continue
        version, rows = libraries[library]["version"], libraries[library]["rows"]
        if version is None:
            lines.append(f"| {title} | not installed | | | | | |")
            continue
        attended = [row for row in rows if row["status"] == "attended"]
        able = {
            step: [row for row in attended if not row[step].startswith(NOT_WITHOUT)]
            for step in ("trains", "compiles", "exports")
        }
        counts = [
            str(len(rows)),
            str(len(attended)),
            _of(attended, lambda row: _worst(row) == 0),
            _of(able["trains"], lambda row: row["trains"] == "yes"),
            _of(able["compiles"], lambda row: row["compiles"] == "yes"),
            _of(able["exports"], lambda row: row["exports"] == "yes"),
        ]
        lines.append(f"| {title} {version} | {' | '.join(counts)} |")
    note = "The last three are of those networks that can without gates.\n"
    return "\n".join([*lines, "", note])


def _of(rows: Sequence[Record], good: Callable[[Record], bool]) -> str:
    return f"{sum(good(row) for row in rows)} of {len(rows)}"


def _worst(row: Record) -> float:
    found = (row["difference"], row["difference_channels_last"])
    return max(value for value in found if value is not None)


def _library(title: str, library: Record) -> str:
    if library["version"] is None:
        return f"## {title}\n\nNot installed.\n"
    lines = [
        f"## {title}",
        "",
        "| model | where | sites | parameters | unchanged | trains | compiles | exports |",
        "|---|---|---:|---:|---|---|---|---|",
    ]
    notes: list[str] = []
    for row in library["rows"]:
        if row["status"] == "attended":
            cells = _cells(row, notes)
        else:
            notes.append(f"{row['name']}: {row['reason']}")
            cells = ["no", "", "", "", "", "", ""]
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    reasons = [f"- {note}" for note in notes]
    return "\n".join([*lines, "", *reasons, *([""] if reasons else [])])


def _cells(row: Record, notes: list[str]) -> list[str]:
    def answer(step: str) -> str:
        if row[step] == "yes":
            return "yes"
        if row[step].startswith(NOT_WITHOUT):
            return "—"
        notes.append(f"{row['name']}, {step}: {row[step]}")
        return "no"

    last = row["difference_channels_last"]
    unchanged = f"{row['difference']:.0e}" if row["difference"] else "0"
    if last is not None:
        unchanged += f" / {last:.0e}" if last else " / 0"
    if _worst(row) != 0:
        notes.append(f"{row['name']}, unchanged: up to rounding only, by {_worst(row):.1e}")
    percent = 100 * row["added"] / row["parameters"]
    return [
        row["where"] + (" \\*" if row["needs_example"] else ""),
        str(row["sites"]),
        f"{row['parameters']:,} + {row['added']:,} ({percent:.2g} %)",
        unchanged,
        answer("trains"),
        answer("compiles"),
        answer("exports"),
    ]


def _share(facts: Sequence[Record]) -> str:
    convolutional = [fact for fact in facts if fact["convolutional"]]
    others = [fact for fact in facts if fact["convolutional"] is False]
    unknown = [fact for fact in facts if fact["convolutional"] is None]
    attended = [fact for fact in convolutional if fact["attended"]]
    places = Counter(fact["where"] for fact in attended)
    found = ", ".join(f"{count} by {place}" for place, count in places.most_common())
    few = sorted(fact["name"] for fact in attended if fact["sites"] < 3)
    lines = [
        "## All of timm",
        "",
        f"Of timm's {len(facts)} model names, {len(convolutional)} are conv or conv-hybrid "
        f"networks: at least {CONVOLUTIONS} of their convolutions are wider than 1 and have "
        "stride 1, so that stems, patch embeddings and the sampling between the stages of a "
        "transformer don't count. `attend` succeeds on",
        "",
        f"    {len(attended)} of {len(convolutional)}"
        f" ({100 * len(attended) / max(1, len(convolutional)):.1f} %): {found}",
        "",
        f"and on {sum(fact['attended'] for fact in others)} of the {len(others)} others. Each was "
        "built and attended to on the meta device; none was left out for its size.",
        "",
    ]
    if unknown:
        lines += ["Not built:", "", *_reasons(unknown)]
    failed = [fact for fact in convolutional if not fact["attended"]]
    if failed:
        lines += ["Failures:", "", *_reasons(failed)]
    if few:
        lines += [f"Fewer than three sites: {', '.join(few)}.", ""]
    return "\n".join(lines)


def _reasons(facts: Sequence[Record]) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for fact in facts:
        by_reason.setdefault(fact["reason"][:160], []).append(fact["name"])
    ordered = sorted(by_reason.items(), key=lambda item: -len(item[1]))
    return [*(f"- {', '.join(names)}: {reason}" for reason, names in ordered), ""]
