"""Embedded set for *where*: a handwritten digit somewhere among fragments of other digits."""

import numpy as np
import torch

from whatwhere.study.data.assemble import Found
from whatwhere.study.data.base import DataError, DataSettings, Truth
from whatwhere.study.data.canvas import (
    SEEDS,
    SIZES,
    Scenes,
    add_noise,
    clutter,
    digits_of,
    found,
    place,
)
from whatwhere.study.data.splitting import SplitName

SIZE = 48
SIDES = (14, 18)  # of a digit, in pixels, both included
PIECES_PER_PIXEL = 8 / 40**2


def find(settings: DataSettings) -> Found:
    """The 5,000 digits, 3,500, 500 and 1,000, each once, on a canvas of its own."""
    size = SIZE if settings.size is None else settings.size
    if size < SIDES[1]:
        raise DataError(f"digits: expected size to be at least {SIDES[1]}, got {size}")
    return found("digits", {split: make(split, size) for split in SIZES})


def make(split: SplitName, size: int) -> Scenes:
    """The canvases of one split, in the order of ``digits_of``."""
    rng = np.random.default_rng(SEEDS[split])
    digits = digits_of(split)
    owners = np.arange(len(digits.labels))
    sides = rng.integers(SIDES[0], SIDES[1] + 1, len(owners))
    tops, lefts = rng.integers(0, size - sides + 1, (2, len(owners)))
    shown = place(digits.boxes, sides=sides, tops=tops, lefts=lefts, size=size)
    pieces = round(PIECES_PER_PIXEL * size**2)
    strewn = clutter(owners, digits, size=size, pieces=pieces, side=sum(SIDES) // 2, rng=rng)
    pixels = add_noise(np.maximum(strewn, shown.pixels), rng)
    truth = Truth(where=torch.from_numpy(shown.ink), when=None)
    return Scenes(pixels[:, None], digits.labels, truth)
