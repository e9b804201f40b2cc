"""How a file becomes what a network takes: shape, crop and normalisation, off its checkpoint."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

from whatwhere.checkpoints.files import describe
from whatwhere.study.data.pixels import fit, in_rgb

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class InputError(ValueError):
    """A file that is no input of the network, and why."""


@dataclass(frozen=True)
class Preparation:
    """What a network takes.

    Attributes:
        shape: (C, *S) of one sample.
        mean: of each channel, of values in [0, 1], or of sequences as they are.
        std: likewise.
        classes: the names of its answers; None if the checkpoint does not say.
        stored: the side to which images are fitted before the centre is cropped to ``shape``.
        assumed: what was not known and is a default, in words; empty if all was known.
    """

    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...] | None = None
    stored: int | None = None
    assumed: str = ""

    def __post_init__(self) -> None:
        if len(self.shape) not in (2, 3, 4) or min(self.shape) < 1:
            raise InputError(
                f"expected a shape of (C, L), (C, H, W) or (C, T, H, W), got {self.shape}"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.shape[0]:
                raise InputError(
                    f"expected a {name} for each of {self.shape[0]} channels, got {len(values)}"
                )
        if min(self.std) <= 0:
            raise InputError(f"expected every std above 0, got {self.std}")

    @property
    def ndim(self) -> int:
        """Position axes."""
        return len(self.shape) - 1

    @property
    def cut(self) -> float:
        """The share of an image's shorter side that the network sees."""
        return 1.0 if self.stored is None else self.shape[-1] / self.stored

    def channels(self, pixels: Tensor) -> Tensor:
        """Pixels (1 or 3, *S) with as many channels as the network takes.

        Raises:
            InputError: the network takes neither grey nor colour.
        """
        wanted = self.shape[0]
        if len(pixels) == wanted:
            return pixels
        if wanted == 3:
            return in_rgb(pixels)
        if wanted != 1:
            raise InputError(f"the network takes {wanted} channels, the file has {len(pixels)}")
        if pixels.ndim == 4:  # frames: torchvision takes their channels third from the end
            grey: Tensor = v2.rgb_to_grayscale(pixels.transpose(0, 1)).transpose(0, 1)
        else:
            grey = v2.rgb_to_grayscale(pixels)
        return grey

    def image(self, pixels: Tensor) -> Tensor:
        """uint8 pixels (1 or 3, H, W) as the network takes an image or a frame: normalised."""
        height, width = self.shape[-2:]
        pixels = self.channels(pixels)
        if height != width:
            pixels = v2.resize(pixels, [height, width], antialias=True)
        else:
            side = height if self.stored is None else self.stored
            pixels = v2.center_crop(fit(pixels, side), [height, width])
        return self.normalised(pixels / 255)

    def normalised(self, unit: Tensor) -> Tensor:
        """Values (C, *S) of the scale that mean and std are of, normalised."""
        positions = (1,) * (unit.ndim - 1)
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        return (unit - mean.view(-1, *positions)) / std.view(-1, *positions)


def preparation_of(
    checkpoint: str | os.PathLike[str],
    *,
    shape: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Preparation:
    """What the network of a checkpoint takes; those of ``compare`` say it themselves.

    Args:
        checkpoint: a file of ``whatwhere.save``.
        shape: (C, *S), instead of what the file says.
        mean: of each channel, likewise; if neither says, ImageNet's for images of 3 channels, and
            0.5 for others, but 0 for sequences.
        std: likewise; 0.5, and 1 for sequences.

    Raises:
        InputError: the file says no shape and none is given, or the numbers do not fit.
        ValueError: it is no checkpoint.
    """
    facts: dict[str, Any] = describe(checkpoint)["facts"]
    said = facts.get("shape") if shape is None else shape
    if said is None:
        raise InputError(
            f"{checkpoint} does not say what its network takes: pass the shape of one input, as "
            "in --shape 3x224x224"
        )
    channels, ndim = int(said[0]), len(said) - 1
    usual_mean, usual_std = _usual(channels, ndim)
    missing = [
        f"{name} {values}"
        for name, given, values in (("mean", mean, usual_mean), ("std", std, usual_std))
        if given is None and name not in facts
    ]
    classes = facts.get("classes")
    return Preparation(
        shape=tuple(map(int, said)),
        mean=tuple(facts.get("mean", usual_mean) if mean is None else mean),
        std=tuple(facts.get("std", usual_std) if std is None else std),
        classes=None if classes is None else tuple(map(str, classes)),
        stored=facts.get("stored") if shape is None else None,
        assumed=f"assumed {' and '.join(missing)}" if missing else "",
    )


def _usual(channels: int, ndim: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if ndim == 1:
        return (0.0,) * channels, (1.0,) * channels
    return IMAGENET if channels == 3 else ((0.5,) * channels, (0.5,) * channels)
