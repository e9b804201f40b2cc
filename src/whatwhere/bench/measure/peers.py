"""Other people's CBAM, as users meet it: the modules that ours is measured against.

``SeedCBAM`` is what tutorials teach (adaptive pools, 1×1 convolutions, ``torch.max`` over the
channels). ``AmaxCBAM`` is the faster eager form, with ``mean``, ``amax`` and linear layers; its
``amax`` splits the gradient of equal values, which is why the rest of this package never uses it.
timm's ``CbamModule`` is for images only and has a batch norm after its convolution: it is held to
a specification with that norm.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whatwhere.bench.measure.specification import KERNEL_SIZE, REDUCTION_RATIO, Weights
from whatwhere.bench.settings import Peer

POOLS: dict[int, tuple[Any, Any]] = {
    1: (nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d),
    2: (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
    3: (nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d),
}
CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class SeedCBAM(nn.Module):
    """The module of tutorials: both classes of it, and their multiplications."""

    def __init__(self, channels: int, *, ndim: int) -> None:
        super().__init__()
        average, maximum = POOLS[ndim]
        convolution = CONVOLUTIONS[ndim]
        hidden = max(1, channels // REDUCTION_RATIO)
        self.average = average(1)
        self.maximum = maximum(1)
        self.mlp = nn.Sequential(
            convolution(channels, hidden, 1, bias=False),
            nn.ReLU(),
            convolution(hidden, channels, 1, bias=False),
        )
        self.conv = convolution(2, 1, KERNEL_SIZE, padding=KERNEL_SIZE // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The gated x."""
        x = x * torch.sigmoid(self.mlp(self.average(x)) + self.mlp(self.maximum(x)))
        mean = torch.mean(x, dim=1, keepdim=True)
        largest, _ = torch.max(x, dim=1, keepdim=True)
        return x * torch.sigmoid(self.conv(torch.cat([mean, largest], dim=1)))


class AmaxCBAM(nn.Module):
    """Reductions by ``mean`` and ``amax``, linear layers."""

    def __init__(self, channels: int, *, ndim: int) -> None:
        super().__init__()
        hidden = max(1, channels // REDUCTION_RATIO)
        self.axes = tuple(range(2, ndim + 2))
        self.reduce = nn.Linear(channels, hidden, bias=False)
        self.expand = nn.Linear(hidden, channels, bias=False)
        convolution = CONVOLUTIONS[ndim]
        self.conv = convolution(2, 1, KERNEL_SIZE, padding=KERNEL_SIZE // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The gated x."""
        descriptors = (x.mean(self.axes), x.amax(self.axes))
        first, second = (self.expand(F.relu(self.reduce(d))) for d in descriptors)
        gate = torch.sigmoid(first + second)
        x = x * gate.reshape(*gate.shape, *(1,) * len(self.axes))
        maps = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.conv(maps))


def has_norm(peer: Peer) -> bool:
    """Whether the peer is the function with a batch norm after its convolution."""
    return peer == "timm"


def build_peer(peer: Peer, channels: int, *, ndim: int, weights: Weights) -> nn.Module | str:
    """The peer with these weights, in float32; or why there is none."""
    module: nn.Module
    if peer == "seed":
        module = SeedCBAM(channels, ndim=ndim)
    elif peer == "amax":
        module = AmaxCBAM(channels, ndim=ndim)
    elif ndim != 2:
        return "timm's CbamModule takes images only"
    else:
        from timm.layers.cbam import CbamModule

        module = CbamModule(channels)
    return weights.fill(module)
