"""The augmentation that suits each kind of data, and the view that evaluation gets."""

from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import v2

from whatwhere.study.data.base import Views

Kind = Literal["photographs", "pixels", "sequences"]


def views(kind: Kind, stored: tuple[int, ...], side: int | None = None) -> Views:
    """The two views of samples stored as (C, *S).

    Args:
        kind: "photographs" are cropped at random scales and mirrored; "pixels", which may be
            digits, scans or frames, where left and right can mean something, only shifted;
            "sequences" shifted in time.
        stored: shape of a stored sample.
        side: of the centre crop that the network sees; None for the whole sample.

    >>> views("pixels", (1, 12, 24, 24)).augment(torch.ones(1, 12, 24, 24)).shape
    torch.Size([1, 12, 24, 24])
    """
    if kind == "sequences":
        return Views(evaluate=_whole, augment=Roll(stored[-1] // 16))
    height, width = stored[-2:]
    if kind == "pixels":
        padding = max(1, min(height, width) // 16)
        shift = v2.RandomCrop((height, width), padding=padding, padding_mode="edge")
        return Views(evaluate=_whole, augment=shift)
    seen = (height, width) if side is None else (side, side)
    zoom = v2.RandomResizedCrop(seen, scale=(0.6, 1), antialias=True)
    return Views(
        evaluate=_whole if side is None else v2.CenterCrop(side),
        augment=v2.Compose([zoom, v2.RandomHorizontalFlip()]),
    )


class Roll:
    """Shift in time by up to ``most`` steps either way; what leaves at one end enters at the other.

    >>> Roll(0)(torch.tensor([[1.0, 2.0]]))
    tensor([[1., 2.]])
    """

    def __init__(self, most: int) -> None:
        self.most = most

    def __call__(self, x: Tensor) -> Tensor:
        """The rolled sequence."""
        steps = int(torch.randint(-self.most, self.most + 1, ()))
        return x.roll(steps, dims=-1)


def _whole(stored: Tensor) -> Tensor:
    return stored
