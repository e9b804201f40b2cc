"""The gates over the frames of a video, as a GIF and an MP4: maps on the frames, strips below."""

from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from whatwhere.look import panels
from whatwhere.look.maps import maps
from whatwhere.look.panels import Box, Drawn, placed, resized
from whatwhere.look.pictures import colour_bar, colours_of, drawn_of
from whatwhere.look.spread import evenly

MOST = 3  # where gates beside the frames, evenly by depth
SPEED = 6  # frames a second
CODECS = ("libx264", "libopenh264", "mpeg4")

Pixels = NDArray[np.uint8]


def film(
    model: nn.Module,
    x: Tensor,
    display: Tensor,
    *,
    title: str = "",
    box: Box | None = None,
) -> list[Pixels]:
    """What the where and when gates do to a video, frame by frame.

    Each picture has a frame, and beside it the maps of at most 3 where gates, evenly by depth, on
    it; below it the weights of the when gates over all frames, with a mark at this one. All are
    on one colour scale, that of all frames.

    Args:
        model: the network; it stays as found.
        x: (1, C, T, H, W) for a network of clips, or (T, C, H, W), the frames for one of images.
        display: the frames to be looked at, (1 or 3, T, H', W') in [0, 1].
        title: a text above.
        box: the part of a frame that the network sees; None for all of it.

    Returns:
        T pictures (height, width, 3), uint8, with even sides.

    Raises:
        ValueError: no gate keeps positions or frames, or display has other frames than x.
    """
    clip = x.ndim == 5
    count = x.shape[2] if clip else x.shape[0]
    if display.ndim != 4 or display.shape[1] != count or (clip and len(x) != 1):
        raise ValueError(
            f"film: expected one clip (1, C, T, H, W), or frames (T, C, H, W), and display "
            f"(C, T, H, W) with as many, got {tuple(x.shape)} and {tuple(display.shape)}"
        )
    gates = drawn_of(maps(model, x))
    whens = [drawn for drawn in gates if drawn.gate.kind == "when"] if clip else []
    wheres = [drawn for drawn in gates if drawn.gate.kind in ("where", "joint")]
    wheres = [wheres[place] for place in evenly(len(wheres), MOST)]
    if not wheres and not whens:
        raise ValueError("film: expected a gate that keeps positions or frames, got none")
    strips = [resized(drawn.values[0].flatten(1), (count,))[0] for drawn in whens]
    covers = [_cover(drawn, display, clip, box) for drawn in wheres]
    return list(_pictures(display, wheres, covers, whens, strips, title))


def gif(pictures: Sequence[Pixels]) -> bytes:
    """The pictures as a GIF that goes on and on, 6 of them a second."""
    from PIL import Image

    # This way of choosing 256 colours keeps those of the scale, which few pixels have.
    first, *others = [
        Image.fromarray(each).quantize(method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        for each in pictures
    ]
    content = BytesIO()
    first.save(
        content,
        format="GIF",
        save_all=True,
        append_images=others,
        duration=round(1000 / SPEED),
        loop=0,
    )
    return content.getvalue()


def mp4(pictures: Sequence[Pixels]) -> bytes:
    """The pictures as an MP4, H.264 where PyAV has an encoder for it, else MPEG-4, 6 a second.

    Raises:
        ImportError: PyAV is not installed.
    """
    import av

    codec = next(name for name in CODECS if name in av.codecs_available)
    content = BytesIO()
    with av.open(content, mode="w", format="mp4") as container:
        stream: Any = container.add_stream(codec, rate=SPEED)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 2_000_000
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return content.getvalue()


def _cover(drawn: Drawn, display: Tensor, clip: bool, box: Box | None) -> Tensor:
    """The map (T, H, W) at the frames' size."""
    if clip:
        return placed(drawn.values[0], display.shape[1:], box)
    return torch.stack([placed(values, display.shape[2:], box) for values in drawn.values])


def _pictures(
    display: Tensor,
    wheres: Sequence[Drawn],
    covers: Sequence[Tensor],
    whens: Sequence[Drawn],
    strips: Sequence[Tensor],
    title: str,
) -> Iterator[Pixels]:
    colours = colours_of([*wheres, *whens])
    aspect = display.shape[-2] / display.shape[-1]
    columns = 1 + len(wheres)
    width = 2.4 * columns + 1.0
    heights = [2.4 * aspect + 0.3] + [0.35] * len(whens)
    figure = Figure(figsize=(width, sum(heights) + 0.5), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=9, parse_math=False)
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    tops = [figure.add_subplot(grid[0, column]) for column in range(columns)]
    lines = [figure.add_subplot(grid[line, :]) for line in range(1, len(heights))]
    for axes, when, weights in zip(lines, whens, strips, strict=True):
        panels.band(axes, weights, colours)
        panels.side(axes, panels.title(when))
    colour_bar([*tops, *lines], colours, [*wheres, *whens])
    for moment in range(display.shape[1]):
        marks = [axes.axvline(moment, color="black", lw=2) for axes in lines]
        for axes in tops:
            axes.clear()
        panels.image(tops[0], display[:, moment])
        tops[0].set_title(f"frame {moment + 1} of {display.shape[1]}", fontsize=7.5)
        for axes, drawn, cover in zip(tops[1:], wheres, covers, strict=True):
            panels.overlay(axes, display[:, moment], cover[moment], colours)
            axes.set_title(panels.title(drawn), fontsize=7.5, parse_math=False)
        canvas.draw()
        picture = np.asarray(canvas.buffer_rgba())[..., :3]
        yield picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2].copy()
        for mark in marks:
            mark.remove()
