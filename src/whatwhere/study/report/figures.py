"""The page's figures, drawn without pyplot and returned as data URIs, or None if empty."""

import base64
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from whatwhere.study.report.tables import by_fraction
from whatwhere.study.statistics import Results, accuracies

# Okabe and Ito's colours, apart for every kind of colour vision; grey is the plain network.
GREY = "#555555"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": "#333333",
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "axes.grid": True,
    "grid.color": "#e7e7e4",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "text.parse_math": False,
    "svg.hashsalt": "whatwhere",
}


def tradeoff(results: Results) -> str | None:
    """Accuracy against time: every seed a dot, the mean with standard deviation and noise."""
    timed = [v for v in results["variants"] if v["latency_ratio"] is not None]
    timed = [variant for variant in timed if accuracies(results, variant["name"])]
    if not timed:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.2, 4.0), layout="constrained")
        axes = figure.add_subplot()
        for variant in timed:
            _tradeoff_point(axes, variant, results)
        axes.set(xlabel="time of a forward pass, plain network = 1", ylabel="test accuracy, %")
        axes.margins(0.12)
        _legend(figure, [axes])
        return _encoded(figure)


def _tradeoff_point(axes: Any, variant: Mapping[str, Any], results: Results) -> None:
    colour, marker = looks(results)[variant["name"]]
    values = list(accuracies(results, variant["name"]).values())
    ratio = variant["latency_ratio"]
    x, mean = ratio["median"], statistics.fmean(values)
    axes.plot([x] * len(values), values, marker, color=colour, alpha=0.35, ms=4, ls="none")
    axes.errorbar(
        x,
        mean,
        xerr=[[max(x - ratio["low"], 0)], [max(ratio["high"] - x, 0)]],
        yerr=statistics.stdev(values) if len(values) > 1 else None,
        fmt=marker,
        color=colour,
        ms=7,
        capsize=3,
        lw=1.2,
        label=variant["name"],
    )


def seeds(results: Results) -> str | None:
    """Every seed's accuracy in every variant, one line per seed: what the pairing compares."""
    names = [v["name"] for v in results["variants"] if accuracies(results, v["name"])]
    if not names:
        return None
    styles = looks(results)
    by_name = {name: accuracies(results, name) for name in names}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.2, 4.0), layout="constrained")
        axes = figure.add_subplot()
        for seed in sorted({seed for found in by_name.values() for seed in found}):
            line = [
                (i, by_name[name][seed]) for i, name in enumerate(names) if seed in by_name[name]
            ]
            axes.plot(*zip(*line, strict=True), color="#b5b5b0", lw=1, zorder=1)
        for index, name in enumerate(names):
            values = list(by_name[name].values())
            colour, marker = styles[name]
            axes.plot([index] * len(values), values, marker, color=colour, ms=6, ls="none")
            axes.hlines(statistics.fmean(values), index - 0.2, index + 0.2, color=colour, lw=2)
        axes.set_xticks(range(len(names)), [name.replace(":", "\n") for name in names])
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylabel("test accuracy, %")
        axes.grid(visible=False, axis="x")
        return _encoded(figure)


def fractions(results: Results) -> str | None:
    """Accuracy against the share of the training samples, if there are trials on parts of them."""
    if not results.get("parts"):
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.2, 4.0), layout="constrained")
        axes = figure.add_subplot()
        for name, (colour, marker) in looks(results).items():
            found = by_fraction(results, name)
            for fraction, values in found.items():
                places = [fraction] * len(values)
                axes.plot(places, values, marker, color=colour, alpha=0.35, ms=4, ls="none")
            means = {each: statistics.fmean(values) for each, values in found.items() if values}
            axes.plot(list(means), list(means.values()), marker, ls="-", color=colour, label=name)
        axes.set_xscale("log")
        shares = by_fraction(results, results["variants"][0]["name"])
        axes.set_xticks(list(shares), [f"{100 * share:g}%" for share in shares])
        axes.minorticks_off()
        axes.set(xlabel="share of the training samples", ylabel="test accuracy, %")
        _legend(figure, [axes])
        return _encoded(figure)


def curves(results: Results) -> str | None:
    """Learning curves: the mean over finished seeds, and every seed thin; unfinished dotted."""
    if not any(trial["epochs"] for trial in results["trials"]):
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.0, 3.8), layout="constrained")
        panels = figure.subplots(1, 3)
        titles = {
            "val_accuracy": "validation accuracy, %",
            "val_loss": "validation loss",
            "train_loss": "training loss",
        }
        for axes, (key, title) in zip(panels, titles.items(), strict=True):
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            for variant in results["variants"]:
                _curve(axes, results, variant["name"], key, scale=100 if "acc" in key else 1)
        _legend(figure, panels[:1])
        return _encoded(figure)


def _curve(axes: Any, results: Results, name: str, key: str, *, scale: float) -> None:
    colour, _ = looks(results)[name]
    by_epoch: dict[int, list[float]] = {}
    for trial in (each for each in results["trials"] if each["variant"] == name):
        line = [(e["epoch"], scale * _number(e[key])) for e in trial["epochs"]]
        finished = trial["status"] == "finished"
        if line:
            style = "-" if finished else ":"
            axes.plot(*zip(*line, strict=True), color=colour, alpha=0.35, lw=0.8, ls=style)
        for epoch, value in line if finished else []:
            by_epoch.setdefault(epoch, []).append(value)
    means = {epoch: statistics.fmean(values) for epoch, values in sorted(by_epoch.items())}
    marker = "o" if len(means) < 3 else None  # a line of one point can't be seen
    axes.plot(list(means), list(means.values()), color=colour, lw=2, label=name, marker=marker)


def hits(results: Results) -> str | None:
    """How often where and when gates point at the right place, by depth, against chance."""
    found: dict[str, dict[str, list[list[Mapping[str, float]]]]] = {}
    for variant in results["variants"]:
        for kind in ("where", "when"):
            rows = _hits_by_depth(results, variant["name"], kind)
            if rows:
                found.setdefault(kind, {})[variant["name"]] = rows
    if not found:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 3.6), layout="constrained")
        for index, (kind, variants) in enumerate(found.items()):
            axes = figure.add_subplot(1, len(found), index + 1)
            for name, rows in variants.items():
                _hit_line(axes, looks(results)[name], name, rows)
            axes.set_title(f"{kind} gates")
            axes.set(xlabel="gate, by depth", ylabel="peaks on the truth, %", ylim=(-3, 103))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.set_xlim(0.5, max(len(rows) for rows in variants.values()) + 0.5)
        _legend(figure, figure.axes)
        return _encoded(figure)


def _hit_line(
    axes: Any, look: tuple[str, str], name: str, rows: Sequence[Sequence[Mapping[str, float]]]
) -> None:
    colour, marker = look
    depth = range(1, len(rows) + 1)
    for place, row in zip(depth, rows, strict=True):
        rates = [100 * each["rate"] for each in row]
        axes.plot([place] * len(row), rates, marker, color=colour, alpha=0.35, ms=4, ls="none")
    rates = [100 * statistics.fmean(each["rate"] for each in row) for row in rows]
    chances = [100 * statistics.fmean(each["chance"] for each in row) for row in rows]
    axes.plot(depth, rates, marker=marker, color=colour, lw=1.6, label=name)
    axes.plot(depth, chances, color=GREY, lw=1.2, ls="--", marker="_", label="chance")


def _hits_by_depth(results: Results, name: str, kind: str) -> list[list[Mapping[str, float]]]:
    sites: dict[str, list[Mapping[str, float]]] = {}
    for trial in results["trials"]:
        if trial["variant"] == name and trial["status"] == "finished":
            for gate in trial["gates"]:
                if gate["kind"] == kind and gate["hits"] is not None:
                    sites.setdefault(gate["site"], []).append(gate["hits"])
    return list(sites.values())


def _legend(figure: Figure, panels: Sequence[Any]) -> None:
    """Below the panels, where a variant's name may be long, each label once."""
    shown: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        shown.update(zip(labels, handles, strict=True))
    columns = 4 if all(len(label) < 16 for label in shown) else 1
    figure.legend(shown.values(), shown.keys(), loc="outside lower left", ncols=columns)


def looks(results: Results) -> dict[str, tuple[str, str]]:
    """Colour and marker of every variant: grey for the baseline, one of its own for each other."""
    found, coloured = {}, 0
    for index, variant in enumerate(results["variants"]):
        if variant["role"] == "baseline":
            colour = GREY
        else:
            colour = COLOURS[coloured % len(COLOURS)]
            coloured += 1
        found[variant["name"]] = (colour, MARKERS[index % len(MARKERS)])
    return found


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _encoded(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
