"""CBAM as its equations say, by itself: the float64 reference that every variant is held to.

It shares no code with ``whatwhere.ops``, so that a fault there cannot hide in both.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONVOLVE: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
REDUCTION_RATIO = 16
KERNEL_SIZE = 7


@dataclass(frozen=True)
class Weights:
    """One CBAM's parameters, and the statistics of its batch norm, which timm's alone has.

    reduce is (C/16, C), expand (C, C/16), conv (1, 2, 7, ...); norm is (2, 1), a weight and a
    bias; statistics is (2, 1), a mean and a variance.
    """

    reduce: Tensor
    expand: Tensor
    conv: Tensor
    norm: Tensor | None
    statistics: Tensor | None

    @staticmethod
    def random(channels: int, *, ndim: int, norm: bool, seed: int) -> "Weights":
        """Such that gates spread over (0, 1); the same with and without a norm."""
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int, std: float) -> Tensor:
            return std * torch.randn(*shape, generator=generator)

        hidden = max(1, channels // REDUCTION_RATIO)
        reduce = normal(hidden, channels, std=channels**-0.5)
        expand = normal(channels, hidden, std=hidden**-0.5)
        kernel = (KERNEL_SIZE,) * ndim
        conv = normal(1, 2, *kernel, std=(2 * KERNEL_SIZE**ndim) ** -0.5)
        return Weights(
            reduce,
            expand,
            conv,
            torch.tensor([[1.3], [-0.2]]) if norm else None,
            torch.tensor([[0.4], [0.7]]) if norm else None,
        )

    def parameters(self) -> list[Tensor]:
        """In the order in which every variant has them."""
        return [self.reduce, self.expand, self.conv, *(() if self.norm is None else self.norm)]

    def names(self) -> list[str]:
        """Of ``parameters``."""
        names = ["reduce", "expand", "conv"]
        return names if self.norm is None else [*names, "norm weight", "norm bias"]

    def fill(self, module: nn.Module) -> nn.Module:
        """Put these weights into a variant whose parameters come in the same order."""
        with torch.no_grad():
            for parameter, value in zip(module.parameters(), self.parameters(), strict=True):
                parameter.copy_(value.reshape(parameter.shape))
            if self.statistics is not None:
                buffers = dict(module.named_buffers())
                for name, value in zip(("mean", "var"), self.statistics, strict=True):
                    (key,) = (key for key in buffers if key.endswith(f"running_{name}"))
                    buffers[key].copy_(value)
        return module


class Specification(nn.Module):
    r"""y = x' · σ(norm(conv[mean_C x' ; max_C x'])), x' = x · σ(Σ_d W1 ReLU(W0 d)), d = mean, max.

    Where values are equal, the first maximum in row-major order has the gradient.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.reduce = nn.Parameter(weights.reduce.clone())
        self.expand = nn.Parameter(weights.expand.clone())
        self.conv = nn.Parameter(weights.conv.clone())
        self.norm = None if weights.norm is None else nn.BatchNorm1d(1)
        weights.fill(self)

    def channel_gate(self, x: Tensor) -> Tensor:
        """(N, C, 1, ...)."""
        rows = x.flatten(2)
        logits = torch.zeros((), dtype=x.dtype)
        for descriptor in (rows.mean(-1), rows.max(-1).values):
            logits = logits + F.relu(descriptor @ self.reduce.T) @ self.expand.T
        return logits.sigmoid().reshape(*x.shape[:2], *(1,) * (x.ndim - 2))

    def forward(self, x: Tensor) -> Tensor:
        """The gated x."""
        x = x * self.channel_gate(x)
        maps = torch.stack([x.mean(1), x.max(1).values], dim=1)
        logits = CONVOLVE[x.ndim - 2](maps, self.conv, padding=KERNEL_SIZE // 2)
        if self.norm is not None:
            logits = self.norm(logits.flatten(2)).reshape(logits.shape)
        gated: Tensor = x * logits.sigmoid()
        return gated
