"""Pictures for the page: of the gates at one place, of what a variant looks at, and thumbnails."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from whatwhere import look
from whatwhere.inputs import Input
from whatwhere.serve.answers import Place

DPI = 110
THUMBNAIL = 144  # pixels


def place_picture(model: nn.Module, given: Input, place: Place | None) -> Image.Image:
    """The gates at one place on one input, as the network runs now, beside Grad-CAM.

    Without a place, Grad-CAM alone.
    """
    return _drawn(model, given, () if place is None else tuple(place.gates))


def variant_picture(model: nn.Module, given: Input, place: Place | None) -> Image.Image:
    """What a network looks at: the maps at one place, or where there are none its weights."""
    names: Sequence[str] = ()
    if place is not None:
        maps = [name for name, kind in place.gates.items() if kind != "what"]
        names = maps if maps else tuple(place.gates)
    return _drawn(model, given, names)


def thumbnail(given: Input) -> NDArray[np.uint8]:
    """A small picture (H, W, 3) of an input: of clips and volumes the middle, else all."""
    display = given.display
    if given.kind == "sequence":
        figure = Figure(figsize=(1.5, 1.5), dpi=THUMBNAIL / 1.5, layout="constrained")
        axes = figure.add_subplot()
        axes.plot(display.T.numpy(), lw=0.8)
        axes.set_axis_off()
        return np.asarray(_pixels(figure, THUMBNAIL / 1.5, margin=0).convert("RGB"))
    plane = display if display.ndim == 3 else display[:, display.shape[1] // 2]
    plane = plane if len(plane) == 3 else plane.mean(0, keepdim=True).expand(3, -1, -1)
    image = Image.fromarray((plane.permute(1, 2, 0) * 255).round().byte().numpy())
    scale = THUMBNAIL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # Small images keep their pixels, as they are what the network has to go by.
    smooth = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return np.asarray(image.resize(size, smooth))


def _drawn(model: nn.Module, given: Input, gates: Sequence[str]) -> Image.Image:
    x, display = given.x, given.display[None]
    if len(x) > 1:  # frames of a video, for a network of images: the middle one
        middle = len(x) // 2
        x, display = x[middle, None], given.display[None, :, middle]
    figure = look.figure(
        model,
        x,
        display=display,
        box=given.box,
        volume=given.kind == "volume",
        only=gates,
    )
    # Gradio's buttons are in the corner.
    return _pixels(figure, DPI, margin=0.45)


def _pixels(figure: Figure, dpi: float, *, margin: float) -> Image.Image:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", pad_inches=margin)
    with Image.open(buffer) as image:
        image.load()
        return image
