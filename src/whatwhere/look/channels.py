"""The what gates: sorted weights, and the feature maps of the most and the least used channels."""

from collections.abc import Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator
from torch import Tensor

from whatwhere.look.maps import channels_seen
from whatwhere.look.panels import LEAST_SPAN, QUIET, Drawn, bare, shortened

BAR = "#0072B2"
COLUMNS = 4  # of gates on a page
ALIKE = 1e-4  # weights closer than this are told apart by rounding
SHOWN = 2  # most used channels whose maps are drawn, and as many least used
SHOWN_ALONE = 6  # of a gate that has the page to itself


def bars(axes: Any, weights: Tensor, *, start: float, span: float) -> None:
    """Sorted weights (C,), up and down from where they started."""
    heights = (weights.sort(descending=True).values - start).tolist()
    axes.bar(range(len(heights)), heights, width=1.0, bottom=start, color=BAR)
    axes.axhline(start, color=QUIET, lw=0.7)
    axes.set_ylim(start - span, start + span)
    axes.tick_params(labelsize=6, length=2)
    axes.set_xticks([])
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.margins(x=0.01)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def bars_in(figure: Any, whats: Sequence[Drawn], row: int) -> None:
    """The sorted weights of each what gate of one sample, all on one scale."""
    lines = 1 if len(whats) <= 4 else 2
    panels = figure.subplots(lines, -(-len(whats) // lines), squeeze=False, sharey=True).flatten()
    starts = [drawn.gate.start for drawn in whats]
    span = _span(whats)
    for axes, drawn in zip(panels, whats, strict=False):
        bars(axes, drawn.values[row].flatten(), start=drawn.gate.start, span=span)
        axes.set_ylim(min(starts) - span, max(starts) + span)
        label = axes.annotate(
            f"what {drawn.depth + 1}", (1, 1), xycoords="axes fraction", ha="right", va="top"
        )
        label.set(fontsize=6.5, in_layout=False)
    for axes in panels[len(whats) :]:
        axes.set_axis_off()


def inches(whats: Sequence[Drawn]) -> float:
    """The height that ``channels_in`` takes."""
    with_maps = any(used(drawn, 0, 1) for drawn in whats)
    return (2.2 if with_maps else 1.3) * -(-len(whats) // COLUMNS)


def channels_in(figure: Any, whats: Sequence[Drawn]) -> None:
    """Each what gate of a single sample: its bars, under them the maps of its extreme channels."""
    lines, columns = -(-len(whats) // COLUMNS), min(len(whats), COLUMNS)
    cells = figure.subfigures(lines, columns, squeeze=False).flatten()
    span = _span(whats)
    extremes = [used(drawn, 0, SHOWN if len(whats) > 1 else SHOWN_ALONE) for drawn in whats]
    for cell, drawn, chosen in zip(cells, whats, extremes, strict=False):
        shape = [["bars"] * max(len(chosen), 1)]
        if any(extremes):  # "." is an empty place, so that the bars of all are as high
            shape.append([str(channel) for channel, _, _ in chosen] if chosen else ["."])
        panels = cell.subplot_mosaic(shape, height_ratios=[1.2, 0.8][: len(shape)])
        bars(panels["bars"], drawn.values[0].flatten(), start=drawn.gate.start, span=span)
        name = f"what {drawn.depth + 1} of {drawn.of}" if drawn.of > 1 else "what"
        panels["bars"].set_title(
            f"{name}, {drawn.values[0].numel()} channels\n{shortened(drawn.gate.name)}",
            fontsize=7.5,
            parse_math=False,
        )
        for channel, weight, features in chosen:
            channel_map(panels[str(channel)], features)
            panels[str(channel)].set_title(f"#{channel}\n{weight:.3f}", fontsize=6.5)


def used(drawn: Drawn, row: int, count: int) -> list[tuple[int, float, Tensor]]:
    """The most used channels of a sample, from the top, and the least used: (number, weight, map).

    Empty where the feature map is not known or not of the gate's channels, or has one position;
    and where all channels are used alike.
    """
    features = drawn.gate.features
    if features is None or not channels_seen(drawn.gate) or features[0, 0].numel() < 2:
        return []
    weights = drawn.values[row].flatten()
    if weights.max() - weights.min() < ALIKE:
        return []
    order = weights.argsort(descending=True, stable=True).tolist()
    count = min(count, len(order) // 2)
    chosen = order[:count] + order[len(order) - count :]
    maps = features[row].cpu().float()
    return [(channel, weights[channel].item(), maps[channel]) for channel in chosen]


def channel_map(axes: Any, features: Tensor) -> None:
    """The feature map of one channel: (L,), (H, W) or, of (T, H, W), the middle frame."""
    if features.ndim == 1:
        axes.plot(features.numpy(), lw=0.7, color=QUIET)
        axes.margins(x=0)
    else:
        plane = features[features.shape[0] // 2] if features.ndim == 3 else features
        axes.imshow(plane.numpy(), cmap="gray")
    bare(axes)


def _span(whats: Sequence[Drawn]) -> float:
    far = max((drawn.values - drawn.gate.start).abs().max().item() for drawn in whats)
    return 1.1 * max(far, LEAST_SPAN)
