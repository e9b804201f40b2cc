"""The numbers of the page's tables, as text ready to be shown."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from whatwhere.study.statistics import Comparison, Results, accuracies
from whatwhere.study.verdict import points

NONE = "–"
STATE_MEANINGS = {
    "live": "differs from input to input",
    "constant": "the same for every input: a fixed weighting, which a convolution can learn alone",
    "dead": "almost 0: it blocks what passes through",
    "saturated": "at an end of its range nearly everywhere: it passes hardly any gradient",
    "unmoved": "still where it started: training did not use it",
}
FACTS = {
    "data": ("source", "shape", "counts", "truth", "chance_accuracy"),
    "machine": ("processor", "cores", "accelerator", "trials_on"),
}


def variant_rows(results: Results, comparisons: Sequence[Comparison]) -> list[dict[str, str]]:
    """One row per variant: accuracy, differences and cost."""
    baselines = {v["name"] for v in results["variants"] if v["role"] == "baseline"}
    rows = []
    for variant in results["variants"]:
        name = variant["name"]
        versus = [each for each in comparisons if each.variant == name]
        rows.append(
            {
                "name": name,
                "role": variant["role"],
                "description": variant["description"],
                "accuracy": _accuracy(list(accuracies(results, name).values())),
                "over_baseline": _difference(each for each in versus if each.against in baselines),
                "over_control": _difference(
                    each for each in versus if each.against not in baselines
                ),
                "sites": str(variant["sites"]),
                "parameters": _grouped(variant["parameters"]),
                "macs": _macs(variant["macs"]),
                "latency": _latency(variant["latency_ms"]),
                "ratio": _ratio(variant["latency_ratio"]),
                "memory": _memory(variant["training_memory_mb"]),
            }
        )
    return rows


def by_fraction(results: Results, variant: str) -> dict[float, list[float]]:
    """Test accuracies in points of a variant's finished trials, by share of the samples."""
    trials = [*results.get("parts", []), *results["trials"]]
    shares = sorted({trial.get("fraction", 1.0) for trial in trials})
    return {
        share: list(
            accuracies(
                {"trials": [t for t in trials if t.get("fraction", 1.0) == share]}, variant
            ).values()
        )
        for share in shares
    }


def fraction_rows(results: Results) -> list[dict[str, Any]]:
    """A row per share of the training samples, with every variant's accuracy; none if no parts."""
    if not results.get("parts"):
        return []
    found = {v["name"]: by_fraction(results, v["name"]) for v in results["variants"]}
    samples = results["data"]["counts"]["train"]
    return [
        {
            "share": f"{100 * share:g}%",
            "samples": _grouped(round(share * samples)),
            "accuracies": [_accuracy(shares[share]) for shares in found.values()],
        }
        for share in next(iter(found.values()))
    ]


def gate_tables(results: Results) -> list[dict[str, Any]]:
    """One table per variant with gates: a row per gate in order of depth, over finished seeds."""
    tables = []
    for variant in results["variants"]:
        sites: dict[str, list[Mapping[str, Any]]] = {}
        trials = [t for t in results["trials"] if t["variant"] == variant["name"]]
        finished = [trial for trial in trials if trial["status"] == "finished"]
        for trial in finished:
            for gate in trial["gates"]:
                sites.setdefault(gate["site"], []).append(gate)
        if sites:
            rows = [_gate_row(site, gates) for site, gates in sites.items()]
            tables.append(
                {
                    "variant": variant["name"],
                    "seeds": len(finished),
                    "rows": rows,
                    "has_hits": any(row["hits"] != NONE for row in rows),
                    "warnings": _warnings(sites.values()),
                }
            )
    return tables


def facts(results: Results) -> dict[str, dict[str, str]]:
    """Data, settings, versions and machine as rows of names and values."""
    found = {
        group: {key: _plain(results[group].get(key)) for key in keys}
        for group, keys in FACTS.items()
    }
    found["data"]["classes"] = f"{len(results['data']['classes'])}: " + _shortened(
        results["data"]["classes"]
    )
    found["settings"] = {key: _plain(value) for key, value in results["settings"].items()}
    found["versions"] = {"whatwhere": results["whatwhere"]} | {
        key: _plain(value) for key, value in results["versions"].items()
    }
    return found


def _gate_row(site: str, gates: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    states = Counter(gate["state"] for gate in gates)
    hits = [gate["hits"] for gate in gates if gate["hits"] is not None]
    return {
        "site": site,
        "kind": gates[0]["kind"],
        "mean": _mean_of(gates, "mean"),
        "spread": _mean_of(gates, "spread"),
        "over_inputs": _mean_of(gates, "spread_over_inputs"),
        "moved": _mean_of(gates, "moved"),
        "states": [
            (state, state if len(states) == 1 else f"{state} {count} of {len(gates)}")
            for state, count in states.most_common()
        ],
        "hits": NONE
        if not hits
        else f"{100 * _mean(hits, 'rate'):.0f}% (chance {100 * _mean(hits, 'chance'):.0f}%)",
    }


def _warnings(sites: Iterable[Sequence[Mapping[str, Any]]]) -> list[tuple[str, str]]:
    states = Counter(gate["state"] for gates in sites for gate in gates)
    total = states.total()
    return [
        (state, f"{states[state]} of {total} trained gates")
        for state in STATE_MEANINGS
        if state != "live" and states[state]
    ]


def _accuracy(values: list[float]) -> str:
    if not values:
        return NONE
    mean = f"{statistics.fmean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1f}"


def _difference(comparisons: Iterable[Comparison]) -> list[tuple[str, str]]:
    found = []
    for each in comparisons:
        paired = each.paired
        if paired.low is None or paired.high is None:
            found.append((_minus(points(paired.mean)[0]), "no interval"))
        else:
            mean, low, high = map(_minus, points(paired.mean, paired.low, paired.high))
            found.append((mean, f"{low} to {high}"))
    return found


def _latency(latency: Mapping[str, float] | None) -> str:
    return NONE if latency is None else f"{latency['median']:.2f}"


def _ratio(ratio: Mapping[str, float] | None) -> tuple[str, str]:
    if ratio is None:
        return NONE, ""
    return f"×{ratio['median']:.2f}", f"{ratio['low']:.2f} to {ratio['high']:.2f}"


def _macs(macs: int | None) -> str:
    if macs is None:
        return NONE
    unit, name = (1e9, "G") if macs >= 1e9 else (1e6, "M")
    return f"{macs / unit:.4g} {name}"


def _memory(memory: float | None) -> str:
    return NONE if memory is None else f"{memory:.0f}"


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    return statistics.fmean(row[key] for row in rows)


def _mean_of(gates: Sequence[Mapping[str, Any]], key: str) -> str:
    return f"{_mean(gates, key):.3f}"


def _grouped(number: int) -> str:
    return f"{number:,}".replace(",", "\u202f")  # a narrow space, which reads in every language


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _plain(value: Any) -> str:
    if value is None or value == []:
        return "none"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(each) for each in value)
    return str(value)


def _shortened(names: Sequence[str]) -> str:
    shown = 12
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
