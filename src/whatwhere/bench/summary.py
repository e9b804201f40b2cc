"""The arithmetic from records to numbers: means over rows, the best peer, overheads, growth."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from whatwhere.bench.settings import DTYPES, PASSES

MEDIAN = 1  # of quartiles
FLAT = 2.0
OURS_TO_COPY = "ours / copy"
KERNELS_TO_COPY = "our kernels / copy"
COMPILED_TO_OURS = "best compiled peer / ours"
EAGER_TO_OURS = "best eager peer / ours"
QUANTITIES = (OURS_TO_COPY, KERNELS_TO_COPY, COMPILED_TO_OURS, EAGER_TO_OURS)

# What this project set out to reach: (dtype, pass, quantity) -> bound of the geometric mean.
AIMS: dict[tuple[str, str, str], float] = {
    ("float32", "forward", OURS_TO_COPY): 2.1,
    ("float32", "both", OURS_TO_COPY): 6.0,
    ("float32", "forward", KERNELS_TO_COPY): 1.6,
    ("float32", "both", KERNELS_TO_COPY): 4.5,
    ("float32", "forward", COMPILED_TO_OURS): 2.2,
    ("float32", "both", COMPILED_TO_OURS): 2.5,
    ("float32", "forward", EAGER_TO_OURS): 5.0,
    ("float32", "both", EAGER_TO_OURS): 6.0,
    ("bfloat16", "forward", COMPILED_TO_OURS): 2.5,
    ("bfloat16", "both", COMPILED_TO_OURS): 2.5,
}


def summarise_records(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Everything that is computed from the records of one run.

    Returns:
        "refused": the cases with a variant that does not compute CBAM, and how far off it is.
        "summary": per dtype, pass and quantity the geometric mean over rows; none if any case was
        refused. "overheads": of networks, in percent. "growth": nanoseconds per byte.
    """
    refused = [
        {"case": record["case"], **wrong}
        for record in records
        if record["status"] == "refused"
        for wrong in record["disagreements"]
    ]
    measured = [record for record in records if record["status"] == "measured"]
    rows = [record for record in measured if record["kind"] == "row"]
    return {
        "refused": refused,
        "summary": [] if refused else means(rows),
        "overheads": [] if refused else overheads(measured),
        "growth": [each for r in measured if r["kind"] == "growth" for each in growth(r)],
    }


def means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Per dtype, pass and quantity: the geometric mean over rows, and the worst row.

    The worst is the largest of what should be small (ratios to a copy), and the smallest of what
    should be large. A quantity that no row has is left out.
    """
    found = []
    for dtype in DTYPES:
        of_dtype = [row for row in rows if row["dtype"] == dtype]
        for which in PASSES:
            for quantity in QUANTITIES:
                values = {row["case"]: ratio(row, which, quantity) for row in of_dtype}
                there = {case: value for case, value in values.items() if value is not None}
                if not there:
                    continue
                worst = (max if smaller_is_better(quantity) else min)(there, key=there.__getitem__)
                found.append(
                    {
                        "dtype": dtype,
                        "pass": which,
                        "quantity": quantity,
                        "mean": geometric_mean(list(there.values())),
                        "worst": there[worst],
                        "worst_case": worst,
                        "rows": len(there),
                        "of_rows": len(of_dtype),
                        "disturbed": sum(r["passes"][which]["disturbed"] for r in of_dtype),
                        "aim": AIMS.get((dtype, which, quantity)),
                    }
                )
    return found


def smaller_is_better(quantity: str) -> bool:
    """Whether the quantity is a ratio of ours to a copy, not of a peer to ours."""
    return quantity in (OURS_TO_COPY, KERNELS_TO_COPY)


def ratio(row: Mapping[str, Any], which: str, quantity: str) -> float | None:
    """One row's value of a quantity: medians of ratios that were taken round by round."""
    times = row["passes"][which]["times"]
    if smaller_is_better(quantity):
        name = "ours" if quantity == OURS_TO_COPY else "our kernels"
        return float(times[name]["to_copy"][MEDIAN]) if name in times else None
    best = best_peer(row, which, "compiled" if quantity == COMPILED_TO_OURS else "eager")
    return None if best is None else best[1]


def best_peer(row: Mapping[str, Any], which: str, kind: str) -> tuple[str, float] | None:
    """The fastest peer of a kind ("eager" or "compiled"), and its time as a multiple of ours."""
    times = row["passes"][which]["times"]
    peers = {
        name: float(times[name]["to_ours"][MEDIAN])
        for name, of_kind in row["variants"].items()
        if of_kind == kind
    }
    if not peers:
        return None
    name = min(peers, key=peers.__getitem__)
    return name, peers[name]


def geometric_mean(values: Sequence[float]) -> float:
    """exp of the mean of the logarithms.

    >>> round(geometric_mean([1.0, 4.0]), 6)
    2.0
    """
    return math.exp(math.fsum(math.log(value) for value in values) / len(values))


def overheads(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each network with gates: quartiles of its time over the plain one's, in percent."""
    found = []
    for record in records:
        if record["kind"] != "network":
            continue
        for which, timed in record["passes"].items():
            for name, times in timed["times"].items():
                percent = [100 * (value - 1) for value in times["to_plain"]]
                found.append(
                    {
                        "network": record["network"],
                        "batch": record["batch"],
                        "pass": which,
                        "variant": name,
                        "milliseconds": 1000 * times["seconds"][MEDIAN],
                        "percent": percent,
                        "rounds": timed["rounds"],
                        "others": timed["others"],
                        "disturbed": timed["disturbed"],
                    }
                )
    return found


def growth(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Per call: nanoseconds per byte of x at each shape, and the largest over the smallest."""
    found = []
    for call in ("copy", "forward", "both"):
        per_byte = [
            1e9 * point["times"][call]["seconds"][MEDIAN] / point["bytes"]
            for point in record["points"]
        ]
        spread = max(per_byte) / min(per_byte)
        found.append(
            {
                "axis": record["axis"],
                "layout": record["layout"],
                "call": call,
                "shapes": [point["shape"] for point in record["points"]],
                "ns_per_byte": per_byte,
                "disturbed": [point["disturbed"] for point in record["points"]],
                "spread": spread,
                "flat": spread <= FLAT,
            }
        )
    return found
