"""Embedded set for *when* and *where*: a digit passes through three of a clip's twelve frames."""

import numpy as np
import torch

from whatwhere.study.data.assemble import Found
from whatwhere.study.data.base import DataError, DataSettings, Truth
from whatwhere.study.data.canvas import (
    SEEDS,
    Scenes,
    add_noise,
    clutter,
    digits_of,
    found,
    place,
)
from whatwhere.study.data.splitting import SplitName

SIZE = 24
FRAMES = 12
SHOWN = 3  # consecutive frames with the digit
SIDES = (13, 16)  # of a digit, in pixels, both included
STEP = 1  # most that a digit moves from frame to frame, on each axis
WAY = STEP * (SHOWN - 1)
PIECES = 4  # fragments in each frame
CLIPS: dict[SplitName, int] = {"train": 2000, "val": 400, "test": 800}


def find(settings: DataSettings) -> Found:
    """2,000, 400 and 800 clips (1, T, H, W), each with a digit of its own."""
    size = SIZE if settings.size is None else settings.size
    if size < SIDES[1] + WAY:
        raise DataError(f"clips: expected size to be at least {SIDES[1] + WAY}, got {size}")
    return found("clips", {split: make(split, size) for split in CLIPS})


def make(split: SplitName, size: int) -> Scenes:
    """The clips of one split, of the first digits of ``digits_of``."""
    rng = np.random.default_rng(SEEDS[split])
    digits = digits_of(split)
    owners = np.arange(CLIPS[split])
    sides = rng.integers(SIDES[0], SIDES[1] + 1, len(owners))
    # Straight ways whose every step is on the canvas.
    steps = rng.integers(-STEP, STEP + 1, (2, len(owners)))
    corners = rng.integers(WAY * (steps < 0), size - sides - WAY * (steps > 0) + 1)
    first = rng.integers(0, FRAMES - SHOWN + 1, len(owners))
    strewn = clutter(
        np.repeat(owners, FRAMES), digits, size=size, pieces=PIECES, side=sum(SIDES) // 2, rng=rng
    )
    frames = strewn.reshape(-1, FRAMES, size, size)
    where = np.zeros(frames.shape, np.bool_)
    for moment in range(SHOWN):
        tops, lefts = corners + moment * steps
        shown = place(digits.boxes[owners], sides=sides, tops=tops, lefts=lefts, size=size)
        at = (owners, first + moment)
        frames[at] = np.maximum(frames[at], shown.pixels)
        where[at] = shown.ink
    numbers = np.arange(FRAMES)
    when = (numbers >= first[:, None]) & (numbers < first[:, None] + SHOWN)
    truth = Truth(where=torch.from_numpy(where), when=torch.from_numpy(when))
    return Scenes(add_noise(frames, rng)[:, None], digits.labels[owners], truth)
