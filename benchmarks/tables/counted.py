"""Parameters and multiply-accumulates of a network, on tensors without values."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from whatwhere import attend, cost, paper
from whatwhere.surgery import Report, sites


@dataclass(frozen=True)
class Count:
    """What one network costs, for an image of 224×224 pixels."""

    parameters: int
    macs: int

    def __add__(self, other: "Count") -> "Count":
        return Count(self.parameters + other.parameters, self.macs + other.macs)

    def __sub__(self, other: "Count") -> "Count":
        return Count(self.parameters - other.parameters, self.macs - other.macs)


def count(build: Callable[[], nn.Module], *shape: int) -> Count:
    """The count of a module for one input, an image if no shape is given."""
    with torch.device("meta"):
        module = build()
        x = torch.zeros(shape if shape else (1, 3, 224, 224))
    return Count(cost.parameters(module), cost.macs(module, x))


@cache
def named(name: str) -> Count:
    """The count of a network of ``whatwhere.paper``."""
    return count(lambda: paper.build(name))


@cache
def gated(network: str, gate: str, **options: Any) -> Count:
    """The count of a plain network of ``whatwhere.paper`` with gates not of its papers."""

    def build() -> nn.Module:
        model = paper.build(network)
        _attend(model, gate, **options)
        return model

    return count(build)


def after_blocks(network: str, make: Callable[[int], nn.Module]) -> Count:
    """The count of modules alone, one for the channels of each residual branch's end."""
    total = Count(0, 0)
    with torch.device("meta"):
        model = paper.build(network)
    for site in sites(model, kind="blocks"):
        channels, resolution = site.channels, site.resolution
        total += count(lambda c=channels: make(c), 1, channels, *resolution)
    return total


def _attend(model: nn.Module, gate: str, **options: Any) -> Report:
    return attend(model, gate, **{"where": "blocks", "start": "paper", **options})
