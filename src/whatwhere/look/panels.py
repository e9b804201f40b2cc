"""What pictures of gates are made of: images with maps on them, curves, frames and bars."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from matplotlib.colors import Normalize
from torch import Tensor

from whatwhere.look.maps import GateMap

QUIET = "#555555"
FRAMES = 12  # of a clip, evenly chosen
LEAST_SPAN = 0.05  # a scale narrower than this would make noise look like structure
ALPHA = 0.65  # of a map on an image
CAM_COLOURS = "viridis"  # another than the gates', whose scale is not Grad-CAM's

# Left, top, right and bottom of what the network sees of a picture, in the picture's pixels.
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Drawn:
    """One gate as it is drawn: its values on the samples and its place among those of its kind.

    ``values`` are on the CPU in float32; of gates with a value for each channel and position, the
    mean over channels.
    """

    gate: GateMap
    values: Tensor
    depth: int
    of: int


@dataclass(frozen=True)
class Cam:
    """A Grad-CAM (N, 1, *s) as it is drawn, on a scale of its own."""

    title: str
    values: Tensor


@dataclass(frozen=True)
class Looks:
    """Samples as they are to be seen.

    Attributes:
        display: (n, 1 or 3, *S') in [0, 1], of any size, or sequences (n, C, L) as they are.
        titles: one text per sample.
        box: the part of a picture that the network sees; None for all of it.
        volume: whether the positions are those of a volume, not of a clip.
    """

    display: Tensor
    titles: Sequence[str]
    box: Box | None = None
    volume: bool = False


@dataclass(frozen=True)
class Colours:
    """What colours stand for, the same in all maps of a figure."""

    name: str
    scale: Normalize

    def on(self, axes: Any, values: Tensor, **options: Any) -> None:
        """Draw a map (H, W)."""
        axes.imshow(values.numpy(), cmap=self.name, norm=self.scale, **options)


def resized(values: Tensor, size: Sequence[int]) -> Tensor:
    """A map (1, *positions), brought linearly to the positions of the input.

    >>> import torch
    >>> resized(torch.tensor([[0.0, 1.0]]), (4,))
    tensor([[0.0000, 0.2500, 0.7500, 1.0000]])
    """
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    return F.interpolate(values[None], size=tuple(size), mode=mode, align_corners=False)[0]


def placed(values: Tensor, size: Sequence[int], box: Box | None) -> Tensor:
    """A map (1, *positions) at the positions of a picture; NaN where the network did not look.

    >>> import torch
    >>> placed(torch.ones(1, 2, 2), (2, 4), (1, 0, 3, 2))
    tensor([[nan, 1., 1., nan],
            [nan, 1., 1., nan]])
    """
    if box is None:
        return resized(values, size)[0]
    left, top, right, bottom = map(round, box)
    height, width = size[-2:]
    seen = resized(values, (*size[:-2], bottom - top, right - left))[0]
    return F.pad(seen, (left, width - right, top, height - bottom), value=float("nan"))


def image(axes: Any, picture: Tensor) -> None:
    """An image (C, H, W) in [0, 1], in its own aspect."""
    axes.imshow(as_image(picture), cmap="gray", vmin=0, vmax=1)
    bare(axes)


def overlay(axes: Any, picture: Tensor, values: Tensor, colours: Colours) -> None:
    """A map (H, W) on the grey image it is of."""
    axes.imshow(as_image(picture.mean(0, keepdim=True)), cmap="gray", vmin=0, vmax=1)
    colours.on(axes, values, alpha=ALPHA)
    bare(axes)


def curve(axes: Any, sample: Tensor) -> None:
    """A sequence (C, L), a line for each channel."""
    axes.plot(sample.T.numpy(), lw=0.8)
    axes.set_xlim(-0.5, sample.shape[1] - 0.5)
    bare(axes)


def curve_on_map(axes: Any, sample: Tensor, values: Tensor, colours: Colours) -> None:
    """A sequence (C, L) on its map (L,)."""
    extent = (-0.5, sample.shape[1] - 0.5, sample.min().item(), sample.max().item())
    colours.on(axes, values[None], aspect="auto", extent=extent, alpha=0.8)
    axes.plot(sample.T.numpy(), lw=0.8, color="white")
    bare(axes)


def band(axes: Any, values: Tensor, colours: Colours) -> None:
    """Values (L,) as a strip of colours."""
    colours.on(axes, values[None], aspect="auto")
    bare(axes)


def frames(
    axes: Any,
    clip: Tensor,
    *,
    values: Tensor | None = None,
    whens: Sequence[tuple[str, Tensor]] = (),
    share: float = 0.35,
    colours: Colours | None = None,
) -> None:
    """Frames (C, T, H, W) side by side, in their own aspect.

    Args:
        values: maps (T, H, W) on top of them.
        whens: labels, and weights (T,) as strips under them, in the same axes to be aligned.
        share: the height of a strip, of a frame's.
        colours: of maps and strips.
    """
    height, width = clip.shape[-2:]
    gap = max(1, width // 24)
    shown = clip if values is None else clip.mean(0, keepdim=True)
    axes.imshow(as_image(_side_by_side(shown, gap)), cmap="gray", vmin=0, vmax=1)
    if values is not None and colours is not None:
        colours.on(axes, _side_by_side(values[None], gap)[0], alpha=ALPHA)
    bottom = height - 0.5
    for label, weights in whens:
        low, high = bottom + share * height, bottom + 0.15 * share * height
        for moment, weight in enumerate(weights):
            left = moment * (width + gap) - 0.5
            if colours is not None:
                colours.on(axes, weight.reshape(1, 1), extent=(left, left + width, low, high))
        axes.annotate(
            label, (-0.5, (low + high) / 2), xytext=(-4, 0), textcoords="offset points"
        ).set(fontsize=7, ha="right", va="center", annotation_clip=False, parse_math=False)
        bottom = low
    axes.set_xlim(-0.5, clip.shape[1] * (width + gap) - gap - 0.5)
    axes.set_ylim(bottom, -0.5)
    bare(axes)


def as_image(picture: Tensor) -> Any:
    """(C, H, W) as what imshow takes: colours if C is 3, else the mean of the channels."""
    picture = picture.clamp(0, 1)
    if picture.shape[0] == 3:
        return picture.permute(1, 2, 0).nan_to_num(1.0).numpy()
    return picture.mean(0).numpy()


def title(drawn: Drawn) -> str:
    """Kind, depth and name."""
    return f"{numbered(drawn)}\n{shortened(drawn.gate.name)}"


def numbered(drawn: Drawn) -> str:
    """Kind and depth, as in "where 2 of 3"."""
    kind = drawn.gate.kind
    return f"{kind} {drawn.depth + 1} of {drawn.of}" if drawn.of > 1 else kind


def shortened(name: str) -> str:
    """A gate's name in at most 24 letters: its site, and which of the site's gates it is.

    >>> shortened("stages.0.0.bn2.attention.gates.spatial")
    'stages.0.0.bn2 spatial'
    >>> shortened("encoder.stages.2.layers.1.attention")
    'encoder.sta…s.2.layers.1'
    """
    site, _, gate = name.partition(".attention")
    text = f"{site} {gate.removeprefix('.gates').removeprefix('.')}".strip()
    return text if len(text) <= 24 else f"{text[:11]}…{text[-12:]}"


def side(axes: Any, text: str) -> None:
    """A label to the left."""
    axes.set_ylabel(text, fontsize=7, rotation=0, ha="right", va="center", parse_math=False)


def bare(axes: Any) -> None:
    """Without ticks and frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def cam_colours(cam: Cam, row: int) -> Colours:
    """From 0, which does not speak for the class, to the sample's largest value."""
    largest = cam.values[row].max().item()
    return Colours(CAM_COLOURS, Normalize(0, largest if largest > 0 else 1.0))


def _side_by_side(clip: Tensor, gap: int) -> Tensor:
    """(C, T, H, W) as (C, H, T·(W + gap) - gap)."""
    padded = F.pad(clip, (0, gap), value=float("nan"))
    return padded.permute(0, 2, 1, 3).flatten(2)[..., :-gap]
