"""What is no sentence of the algebra: a summary of x whose branches look at one another."""

import torch
from torch import Tensor, nn

from whatwhere.gates.algebra import Descriptors
from whatwhere.gates.axes import POSITIONS, axes_of
from whatwhere.gates.mixes import CONVOLUTIONS, CONVOLVE, convolve, promoted


class CrossSpatial(Descriptors):
    """The logits of Efficient Multi-scale Attention (arXiv 2305.13563, YOLOonMe@afc37ec).

    In every group of channels z: two branches, a = GN(z · Π_axis σ(W mean_others z + b)) with one
    W for the profiles of all axes, and c = a 3-wide convolution of z. Each weighs the other's
    channels by the softmax of its own means: softmax(mean_S a) · c + softmax(mean_S c) · a, a map.

    It doesn't fit the algebra, as each branch's descriptor is applied to the other branch.

    Args:
        channels: C.
        groups: that divide them.
        ndim: position axes.
    """

    def __init__(self, channels: int, *, groups: int, ndim: int) -> None:
        super().__init__()
        self.channels = channels
        self.groups = groups
        self.ndim = ndim
        size = channels // groups
        self.norm = nn.GroupNorm(size, size)
        self.profile = nn.Linear(size, size)
        self.conv = CONVOLUTIONS[ndim](size, size, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """One descriptor (N, groups, *S)."""
        weight, bias = promoted(self.profile)
        z = x.to(weight.dtype).unflatten(1, (self.groups, -1)).flatten(0, 1)
        total, ones = z, (1,) * self.ndim
        for letter in POSITIONS[z.ndim]:
            (kept,) = axes_of(letter, z.ndim)
            others = [axis for axis in range(2, z.ndim) if axis != kept]
            mean = z.mean(others, keepdim=True) if others else z
            total = (
                total
                * CONVOLVE[self.ndim](mean, weight.reshape(*weight.shape, *ones), bias).sigmoid()
            )
        a = torch.group_norm(total, self.norm.num_groups, *promoted(self.norm), self.norm.eps)
        c = convolve(z, *promoted(self.conv), self.conv)
        crossed = _weighed(c, by=a) + _weighed(a, by=c)
        return (crossed.reshape(x.shape[0], self.groups, *x.shape[2:]),)


def _weighed(maps: Tensor, *, by: Tensor) -> Tensor:
    weights = by.flatten(2).mean(2).softmax(1)
    return torch.einsum("nc,nc...->n...", weights, maps)
