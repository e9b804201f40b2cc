"""The panels a picture of gates is made of: images, sequences, clips and bars.

Both layouts take the gates to draw, the samples as they are to be seen and one colour scale, and
return the figure with the axes that use the scale.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from whatwhere.gates import Kind

COLOURS = "cividis"  # reads the same for every kind of colour vision
BAR = "#0072B2"
QUIET = "#555555"
FRAMES = 12  # of a clip, evenly chosen
LEAST_SPAN = 0.05  # a scale narrower than this would make noise look like structure


@dataclass(frozen=True)
class Drawn:
    """One gate as it is drawn: its values on the samples and its place among those of its kind."""

    site: str
    kind: Kind
    values: Tensor
    start: float
    bottom: float
    top: float
    depth: int
    of: int


def evenly(count: int, most: int) -> list[int]:
    """At most ``most`` of the numbers below ``count``, evenly spread, first and last among them.

    >>> evenly(3, 8), evenly(16, 4)
    ([0, 1, 2], [0, 5, 10, 15])
    """
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def rows(
    gates: Sequence[Drawn], display: Tensor, titles: Sequence[str], scale: Normalize
) -> tuple[Figure, list[Any]]:
    """A row per image or sequence: the input, the maps by depth, the sorted what weights."""
    sequence = display.ndim == 3
    maps = [gate for gate in gates if gate.kind != "what"]
    whats = [gate for gate in gates if gate.kind == "what"]
    width, height = (2.2, 1.3) if sequence else (1.35, 1.45)
    widths = [1.0] * (1 + len(maps)) + ([2.8] if whats else [])
    figure = Figure(
        figsize=(max(width * sum(widths) + 0.8, 4), height * len(display) + 0.6),
        layout="constrained",
    )
    grid = figure.add_gridspec(len(display), len(widths), width_ratios=widths)
    mapped = []
    for row, sample in enumerate(display):
        axes: Any = figure.add_subplot(grid[row, 0])
        _input(axes, sample)
        axes.set_ylabel(titles[row], fontsize=8, parse_math=False)
        if row == 0:
            axes.set_title("input", fontsize=8)
        for column, gate in enumerate(maps, start=1):
            axes = figure.add_subplot(grid[row, column])
            _map(axes, sample, gate.values[row], scale)
            if row == 0:
                axes.set_title(_title(gate), fontsize=7, parse_math=False)
            mapped.append(axes)
        if whats:
            inner = figure.add_subfigure(grid[row, len(widths) - 1])
            _bars(inner, whats, row)
    return figure, mapped


def clips(
    gates: Sequence[Drawn], display: Tensor, titles: Sequence[str], scale: Normalize
) -> tuple[Figure, list[Any]]:
    """A block per clip: its frames, the when gates under them, the where maps, the what weights."""
    frames = evenly(display.shape[2], FRAMES)
    whens = [gate for gate in gates if gate.kind == "when"]
    maps = [gate for gate in gates if gate.kind in ("where", "joint")]
    whats = [gate for gate in gates if gate.kind == "what"]
    heights = [1.0] + [0.35] * len(whens) + [1.0] * len(maps) + ([1.0] if whats else []) + [0.25]
    figure = Figure(
        figsize=(0.75 * len(frames) + 2.2, 0.72 * sum(heights) * len(display) + 0.4),
        layout="constrained",
    )
    grid = figure.add_gridspec(len(heights) * len(display), 1, height_ratios=heights * len(display))
    mapped = []
    for index, clip in enumerate(display):
        top = index * len(heights)
        axes: Any = figure.add_subplot(grid[top])
        _strip(axes, clip[:, frames])
        axes.set_title(titles[index], fontsize=8, loc="left", parse_math=False)
        _side(axes, "input")
        for line, gate in enumerate(whens + maps, start=top + 1):
            axes = figure.add_subplot(grid[line])
            if gate.kind == "when":
                weights = _resized(gate.values[index].flatten(1), (clip.shape[1],))
                axes.imshow(weights[:, frames].numpy(), cmap=COLOURS, norm=scale, aspect="auto")
            else:
                _strip(axes, clip[:, frames].mean(0, keepdim=True))
                values = _resized(gate.values[index], tuple(clip.shape[1:]))[0, frames]
                _strip(axes, values[None], cmap=COLOURS, norm=scale, alpha=0.7)
            _side(axes, _title(gate))
            mapped.append(axes)
        if whats:
            inner = figure.add_subfigure(grid[top + len(heights) - 2])
            _bars(inner, whats, index)
    return figure, mapped


def _input(axes: Any, sample: Tensor) -> None:
    if sample.ndim == 2:
        axes.plot(sample.T.numpy(), lw=0.8)
        axes.margins(x=0)
    else:
        axes.imshow(_picture(sample), cmap="gray", vmin=0, vmax=1)
    _bare(axes)


def _map(axes: Any, sample: Tensor, gate: Tensor, scale: Normalize) -> None:
    values = _resized(gate, tuple(sample.shape[1:]))[0]
    if sample.ndim == 2:
        low, high = sample.min().item(), sample.max().item()
        extent = (-0.5, sample.shape[1] - 0.5, low, high)
        axes.imshow(
            values[None].numpy(), cmap=COLOURS, norm=scale, aspect="auto", extent=extent, alpha=0.8
        )
        axes.plot(sample.T.numpy(), lw=0.8, color="white")
    else:
        axes.imshow(_picture(sample.mean(0, keepdim=True)), cmap="gray", vmin=0, vmax=1)
        axes.imshow(values.numpy(), cmap=COLOURS, norm=scale, alpha=0.7)
    _bare(axes)


def _bars(figure: Any, whats: Sequence[Drawn], row: int) -> None:
    """The sorted weights of each what gate, up and down from its start, all on one scale."""
    lines = 1 if len(whats) <= 4 else 2
    panels = figure.subplots(lines, -(-len(whats) // lines), squeeze=False, sharey=True).flatten()
    span = max((gate.values - gate.start).abs().max().item() for gate in whats)
    span = 1.1 * max(span, LEAST_SPAN)
    for axes, gate in zip(panels, whats, strict=False):
        weights = gate.values[row].flatten().sort(descending=True).values
        heights = (weights - gate.start).tolist()
        axes.bar(range(len(heights)), heights, width=1.0, bottom=gate.start, color=BAR)
        axes.axhline(gate.start, color=QUIET, lw=0.7)
        axes.set_ylim(min(g.start for g in whats) - span, max(g.start for g in whats) + span)
        label = axes.annotate(
            f"what {gate.depth + 1}", (1, 1), xycoords="axes fraction", ha="right", va="top"
        )
        label.set(fontsize=6.5, in_layout=False)
        axes.tick_params(labelsize=6, length=2)
        axes.set_xticks([])
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    for axes in panels[len(whats) :]:
        axes.set_axis_off()


def _strip(axes: Any, frames: Tensor, **options: Any) -> None:
    """Frames (C, T, H, W) side by side, a gap of one pixel between them."""
    padded = F.pad(frames, (0, 1), value=float("nan"))
    line = padded.permute(0, 2, 1, 3).flatten(2)[..., :-1]
    if options:
        axes.imshow(line[0].numpy(), **options)
    else:
        axes.imshow(_picture(line), cmap="gray", vmin=0, vmax=1)
    axes.set_aspect("auto")


def _picture(sample: Tensor) -> Any:
    """(C, H, W) as what imshow takes: colours if C is 3, else the mean of the channels."""
    sample = sample.clamp(0, 1)
    if sample.shape[0] == 3:
        return sample.permute(1, 2, 0).nan_to_num(1.0).numpy()
    return sample.mean(0).numpy()


def _resized(gate: Tensor, size: tuple[int, ...]) -> Tensor:
    """A map (1, *positions), brought linearly to the positions of the input."""
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    return F.interpolate(gate[None], size=size, mode=mode, align_corners=False)[0]


def _title(gate: Drawn) -> str:
    return f"{_numbered(gate)}\n{_shortened(gate.site)}"


def _numbered(gate: Drawn) -> str:
    return f"{gate.kind} {gate.depth + 1} of {gate.of}" if gate.of > 1 else gate.kind


def _shortened(site: str) -> str:
    return site if len(site) <= 20 else f"{site[:9]}…{site[-10:]}"


def _side(axes: Any, text: str) -> None:
    _bare(axes)
    axes.set_ylabel(text, fontsize=7, rotation=0, ha="right", va="center", parse_math=False)


def _bare(axes: Any) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
