"""Drawing the gates of a network over the samples they were computed on."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor, nn

from whatwhere.evaluation import evaluating
from whatwhere.gates import ACTIVATIONS, Kind
from whatwhere.look import panels
from whatwhere.look.panels import LEAST_SPAN, Drawn, evenly
from whatwhere.look.record import gates_in, record

MOST = 8  # gates of a kind that a figure shows


def gate_figure(
    model: nn.Module,
    samples: Tensor,
    *,
    display: Tensor | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Draw what every gate does to each of a few samples.

    A row per sample: the input, the where and joint maps by depth on top of it, and the weights
    of the what gates, sorted, up and down from the value at which they started. Clips become
    strips of frames with the when gates under them, and sequences lines on their maps. All maps
    share one colour scale, on whose bar the start is marked. Of more than 8 gates of a kind 8 are
    shown, evenly by depth.

    Args:
        model: the network; it stays as found.
        samples: (n, C, *S) as the network takes them, on its device.
        display: the same in [0, 1], to be looked at; if not given, each sample is stretched so.
        titles: one text per sample.

    Raises:
        ValueError: no gates, or a display or titles that don't fit the samples.

    >>> from whatwhere import CBAM
    >>> figure = gate_figure(CBAM(3, start="identity"), torch.rand(2, 3, 16, 16))
    >>> [axes.get_title() for axes in figure.axes][:2]
    ['input', 'where\\ngates.spatial']
    """
    display = _stretched(samples) if display is None else display
    if display.shape[0] != samples.shape[0] or display.shape[2:] != samples.shape[2:]:
        raise ValueError(
            f"gate_figure: expected display to have the samples and positions of samples "
            f"{tuple(samples.shape)}, got {tuple(display.shape)}"
        )
    names = [""] * len(samples) if titles is None else list(titles)
    if len(names) != len(samples):
        raise ValueError(f"gate_figure: expected {len(samples)} titles, got {len(names)}")
    gates, left_out = _choose(_gates_of(model, samples))
    scale = _scale([gate for gate in gates if gate.kind != "what"])
    draw = panels.clips if samples.ndim == 5 else panels.rows
    figure, maps = draw(gates, display.cpu().float(), names, scale)
    if left_out:
        figure.suptitle(left_out, fontsize=9, color="#555555", parse_math=False)
    if maps:
        _colour_bar(figure, maps, scale, gates)
    return figure


def _gates_of(model: nn.Module, samples: Tensor) -> list[Drawn]:
    known = gates_in(model)
    with evaluating(model), record(model) as recorded:
        model(samples)
    if not recorded:
        raise ValueError("gate_figure: expected a network with gates, got one without")
    groups: dict[str, list[str]] = {}
    for site in recorded:
        groups.setdefault(_group(known[site].kind), []).append(site)
    drawn = []
    for site, calls in recorded.items():
        gate = known[site]
        squash = ACTIVATIONS[gate.activation.name]
        values = calls[-1].cpu().float()
        if gate.kind != "what":
            values = values.mean(1, keepdim=True)  # of a gate for each channel, the map is left
        group = groups[_group(gate.kind)]
        drawn.append(
            Drawn(
                site=site,
                kind=gate.kind,
                values=values,
                start=gate.neutral if math.isinf(squash.top) else squash.zero,
                bottom=squash.bottom,
                top=squash.top,
                depth=group.index(site),
                of=len(group),
            )
        )
    return drawn


def _group(kind: Kind) -> str:
    return "where" if kind == "joint" else kind


def _choose(gates: list[Drawn]) -> tuple[list[Drawn], str]:
    """At most ``MOST`` gates of a kind, evenly by depth, and words for what is left out."""
    chosen, words = [], []
    for gate in gates:
        if gate.depth in evenly(gate.of, MOST):
            chosen.append(gate)
    for group in ("where", "what", "when"):
        count = next((gate.of for gate in gates if _group(gate.kind) == group), 0)
        if count > MOST:
            words.append(f"{MOST} of {count} {group} gates")
    return chosen, f"{', '.join(words)}, evenly by depth" if words else ""


def _scale(maps: Sequence[Drawn]) -> Normalize:
    """Colours from as far below the start as above it, as far as any of the maps goes."""
    if not maps:
        return Normalize(0, 1)
    span = max((gate.values - gate.start).abs().max().item() for gate in maps)
    span = max(span, LEAST_SPAN)
    low = min(gate.start for gate in maps) - span
    high = max(gate.start for gate in maps) + span
    bottom, top = min(gate.bottom for gate in maps), max(gate.top for gate in maps)
    return Normalize(max(low, bottom), min(high, top))


def _colour_bar(figure: Figure, maps: list[Any], scale: Normalize, gates: list[Drawn]) -> None:
    bar = figure.colorbar(
        ScalarMappable(scale, panels.COLOURS), ax=maps, fraction=0.03, pad=0.02, aspect=30
    )
    bar.ax.tick_params(labelsize=7)
    for start in sorted({gate.start for gate in gates if gate.kind != "what"}):
        bar.ax.axhline(start, color="white", lw=2.5)
        bar.ax.axhline(start, color="black", lw=1.2)
        bar.ax.annotate(
            f"start {start:g}",
            (0, start),
            xycoords=("axes fraction", "data"),
            xytext=(-3, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=7,
        )


def _stretched(samples: Tensor) -> Tensor:
    flat = samples.detach().flatten(1)
    shape = (-1,) + (1,) * (samples.ndim - 1)
    low, high = flat.amin(1).reshape(shape), flat.amax(1).reshape(shape)
    return (samples.detach() - low) / torch.where(high > low, high - low, 1.0)
