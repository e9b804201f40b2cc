"""What a row of the table is about: how to build a network, and what to call it with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

# A tuple is positional arguments, a dict keyword arguments: as attend's example=.
Arguments = tuple[Any, ...] | dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A network: random weights, and made without any download."""

    name: str
    build: Callable[[], nn.Module]
    example: Callable[[], Arguments]
    training: Callable[[], Arguments] | None = None  # where training takes targets as well


def image(side: int = 224, *, channels: int = 3, batch: int = 2) -> Callable[[], Arguments]:
    """A batch of random images, as the one argument."""
    return volume(side, side, channels=channels, batch=batch)


def volume(*size: int, channels: int, batch: int = 2) -> Callable[[], Arguments]:
    """A batch of random tensors of any number of position axes, as the one argument."""
    return lambda: (torch.randn(batch, channels, *size),)
