"""Drawing the gates of a network over the samples they were computed on."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor, nn

from whatwhere.gates import Kind
from whatwhere.look import layouts
from whatwhere.look.cam import answers
from whatwhere.look.cam import grad_cam as grad_cam_of
from whatwhere.look.maps import GateMap, maps
from whatwhere.look.panels import LEAST_SPAN, Box, Cam, Colours, Drawn, Looks
from whatwhere.look.spread import evenly

MOST = 8  # gates of a kind that a figure shows
SEQUENTIAL = "cividis"  # reads the same for every kind of colour vision
DIVERGING = "PuOr_r"  # and so do purple and orange


def figure(
    model: nn.Module,
    x: Tensor,
    *,
    display: Tensor | None = None,
    titles: Sequence[str] | None = None,
    box: Box | None = None,
    volume: bool = False,
    grad_cam: bool = True,
    plain: nn.Module | None = None,
    target: int | None = None,
    only: Sequence[str] | None = None,
) -> Figure:
    """Draw what every gate does to one sample or a few.

    The where and joint gates are maps on top of the input, by depth; what gates the sorted
    weights of the channels, up and down from the value at which they started; when gates strips
    under the frames. Beside them is Grad-CAM. All gates' maps share one colour scale, whose bar
    has their smallest and largest value and the start marked. Of more than 8 gates of a kind 8
    are shown, evenly by depth; of a gate with a value for each channel and position, the mean
    over channels.

    One sample fills a page, with the feature maps of the most and the least used channels; of
    several, each is a row.

    Args:
        model: the network; it stays as found.
        x: (n, C, *S) as the network takes them, on its device.
        display: the same to be looked at, in [0, 1], (n, 1 or 3, *S') of any height and width;
            if not given, each sample is stretched so. Sequences are drawn as they are.
        titles: one text per sample.
        box: left, top, right and bottom of the part of ``display`` that x is, in its pixels; all
            of it if not given.
        volume: draw (n, C, D, H, W) as the middle slices of volumes, not as frames.
        grad_cam: draw what the answer rests on as well, which needs a classifier and captum.
        plain: another network, as without gates, for its Grad-CAM of the same class.
        target: the class of Grad-CAM; if not given, each sample's answer of ``model``.
        only: the names of the gates to draw, as in ``maps``; all if not given. The colours then
            span the values of these. None of them, (), leaves Grad-CAM, for which the network
            needs no gates.

    Raises:
        ValueError: no gates, or arguments that do not fit the samples or each other.
        ImportError: captum is not installed.

    >>> import torch
    >>> from whatwhere import CBAM
    >>> drawn = figure(CBAM(3, start="identity"), torch.rand(2, 3, 16, 16), grad_cam=False)
    >>> [axes.get_title() for axes in drawn.axes][:2]
    ['input', 'where\\ngates.spatial']
    """
    looks = _looks(x, display, titles, box, volume)
    if not grad_cam and (plain is not None or target is not None):
        raise ValueError("figure: plain and target are for Grad-CAM, got grad_cam=False")
    bare = only is not None and len(only) == 0
    if bare and not grad_cam:
        raise ValueError("figure: expected gates or Grad-CAM to draw, got neither")
    gates, left_out = _choose([] if bare else _only(drawn_of(maps(model, x)), only))
    cams = _cams(model, x, plain, target) if grad_cam else []
    mapped = [drawn for drawn in gates if drawn.gate.kind != "what"]
    colours = colours_of(mapped)
    laid, axes = layouts.draw(layouts.Sheet(gates, cams, looks, colours))
    if left_out:
        laid.suptitle(left_out, fontsize=9, color="#555555", parse_math=False)
    if axes:
        colour_bar(axes, colours, mapped)
    return laid


def _looks(
    x: Tensor,
    display: Tensor | None,
    titles: Sequence[str] | None,
    box: Box | None,
    volume: bool,
) -> Looks:
    if x.ndim not in (3, 4, 5):
        raise ValueError(f"figure: expected x of shape (n, C, *S), got {tuple(x.shape)}")
    if volume and x.ndim != 5:
        raise ValueError(f"figure: expected volumes (n, C, D, H, W), got {tuple(x.shape)}")
    if display is None:
        display = x.detach() if x.ndim == 3 else _stretched(x)
    # Images may have any height and width; frames and lengths have to be the same.
    same = {3: display.shape[2:], 4: (), 5: display.shape[2:3]}[x.ndim]
    fits = display.ndim == x.ndim and same == x.shape[2 : 2 + len(same)]
    if not fits or display.shape[0] != x.shape[0]:
        raise ValueError(
            f"figure: expected display to have the samples, and the length or frames, of x "
            f"{tuple(x.shape)}, got {tuple(display.shape)}"
        )
    names = [""] * len(x) if titles is None else list(titles)
    if len(names) != len(x):
        raise ValueError(f"figure: expected {len(x)} titles, got {len(names)}")
    return Looks(display.cpu().float(), names, box, volume)


def drawn_of(found: Mapping[str, GateMap]) -> list[Drawn]:
    """The gates with their values as they are drawn, each with its place among its kind."""
    groups: dict[str, list[str]] = {}
    for name, gate in found.items():
        groups.setdefault(_group(gate.kind), []).append(name)
    drawn = []
    for name, gate in found.items():
        values = gate.values.cpu().float()
        if gate.kind != "what":
            values = values.mean(1, keepdim=True)
        group = groups[_group(gate.kind)]
        drawn.append(Drawn(gate, values, depth=group.index(name), of=len(group)))
    return drawn


def _only(gates: list[Drawn], names: Sequence[str] | None) -> list[Drawn]:
    if names is None:
        return gates
    known = [drawn.gate.name for drawn in gates]
    if set(names) - set(known):
        raise ValueError(
            f"figure: expected only to be names of gates, of {', '.join(known)}, got {list(names)}"
        )
    return [drawn for drawn in gates if drawn.gate.name in names]


def _group(kind: Kind) -> str:
    return "where" if kind == "joint" else kind


def _choose(gates: list[Drawn]) -> tuple[list[Drawn], str]:
    """At most ``MOST`` gates of a kind, evenly by depth, and words for what is left out."""
    kept: set[str] = set()
    words = []
    for group in ("where", "what", "when"):
        names = [drawn.gate.name for drawn in gates if _group(drawn.gate.kind) == group]
        kept.update(names[place] for place in evenly(len(names), MOST))
        if len(names) > MOST:
            words.append(f"{MOST} of {len(names)} {group} gates")
    chosen = [drawn for drawn in gates if drawn.gate.name in kept]
    return chosen, f"{', '.join(words)}, evenly by depth" if words else ""


def _cams(model: nn.Module, x: Tensor, plain: nn.Module | None, target: int | None) -> list[Cam]:
    wanted = answers(model, x) if target is None else [target] * len(x)
    cams = [Cam("Grad-CAM", grad_cam_of(model, x, target=wanted).cpu().float())]
    if plain is not None:
        values = grad_cam_of(plain, x, target=wanted).cpu().float()
        cams.append(Cam("Grad-CAM, plain net", values))
    return cams


def colours_of(gates: Sequence[Drawn]) -> Colours:
    """From as far below the start as above it, as far as any of the maps goes.

    Where every gate started as the identity, two hues part what it raises from what it lowers.
    """
    if not gates:
        return Colours(SEQUENTIAL, Normalize(0, 1))
    span = max((drawn.values - drawn.gate.start).abs().max().item() for drawn in gates)
    span = max(span, LEAST_SPAN)
    low = min(drawn.gate.start for drawn in gates) - span
    high = max(drawn.gate.start for drawn in gates) + span
    if all(drawn.gate.start == drawn.gate.neutral for drawn in gates):
        return Colours(DIVERGING, Normalize(low, high))
    bottom = min(drawn.gate.bottom for drawn in gates)
    top = max(drawn.gate.top for drawn in gates)
    return Colours(SEQUENTIAL, Normalize(max(low, bottom), min(high, top)))


def colour_bar(axes: list[Any], colours: Colours, gates: Sequence[Drawn]) -> None:
    """The scale with the smallest and the largest value that is drawn, and where gates started."""
    scale: Any = colours.scale
    bar = (
        axes[0]
        .get_figure(root=False)
        .colorbar(ScalarMappable(scale, colours.name), ax=axes, fraction=0.03, pad=0.02, aspect=30)
    )
    starts = sorted({drawn.gate.start for drawn in gates})
    low = min(drawn.values.min().item() for drawn in gates)
    high = max(drawn.values.max().item() for drawn in gates)
    marks = {start: f"start {start:g}" for start in starts}
    room = 0.06 * (scale.vmax - scale.vmin)
    for value, word in ((low, "min"), (high, "max")):
        if all(abs(value - other) > room for other in marks):
            marks[value] = f"{word} {value:.3g}"
    bar.set_ticks(list(marks), labels=list(marks.values()))
    bar.ax.tick_params(labelsize=7, length=3)
    for start in starts:
        bar.ax.axhline(start, color="black", lw=1.0)
    bar.ax.plot([0.5, 0.5], [low, high], color="black", lw=0.8)


def _stretched(samples: Tensor) -> Tensor:
    flat = samples.detach().flatten(1)
    shape = (-1,) + (1,) * (samples.ndim - 1)
    low, high = flat.min(1).values.reshape(shape), flat.max(1).values.reshape(shape)
    return (samples.detach() - low) / (high - low).where(high > low, 1.0)
