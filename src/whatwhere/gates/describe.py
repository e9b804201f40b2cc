"""Summaries of x that are more than a mean or a maximum: weighted, in frequency, over windows."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whatwhere.checks import check_positive
from whatwhere.gates.algebra import Descriptors, Part
from whatwhere.gates.axes import axes_of
from whatwhere.gates.mixes import CONVOLUTIONS, CONVOLVE, convolve, promoted
from whatwhere.ops import accumulation_dtype, without_autocast

ADAPTIVE: dict[int, Any] = {
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}
AVERAGE: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


class SoftmaxMean(Descriptors):
    """Σ_p softmax_p(w · x_p + b) x_p: the mean over positions, weighted by what is there."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.query = nn.Linear(channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """One descriptor (N, C, 1, ...)."""
        weight, bias = promoted(self.query)
        rows = x.flatten(2).to(weight.dtype)
        weights = F.conv1d(rows, weight.unsqueeze(2), bias).softmax(2)
        mean = rows @ weights.transpose(1, 2)
        return (mean.reshape(*x.shape[:2], *(1,) * (x.ndim - 2)),)


class Frequencies(Descriptors):
    """Σ_p x_p Π_a cos(π/L_a · u_a (p_a + ½)): one frequency u of the cosine transform a channel.

    The channels fall into as many runs of equal length as there are frequencies. Waves of u > 0
    are scaled by √2 and all by 1/√L, an axis at a time. Maps of another size are averaged to
    ``size`` first (adaptive average pooling, whose backward on CUDA is not deterministic).

    Args:
        channels: C.
        frequencies: of each run, a number per axis.
        size: of every axis.
    """

    numbers: Tensor

    def __init__(
        self, channels: int, *, frequencies: Sequence[Sequence[int]], size: int = 7
    ) -> None:
        check_positive("Frequencies", "size", size)
        super().__init__()
        self.channels = channels
        self.size = size
        self.frequencies = tuple(map(tuple, frequencies))
        self.ndim = len(frequencies[0])
        run = channels // len(frequencies)
        # Whole numbers, which module.half() and .double() leave exact, as they would not the waves.
        numbers = torch.tensor(self.frequencies).repeat_interleave(run, 0)
        self.register_buffer("numbers", numbers, persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """One descriptor (N, C, 1, ...)."""
        sizes = (self.size,) * self.ndim
        x = x.to(accumulation_dtype(x.dtype))
        if x.shape[2:] != sizes:
            x = ADAPTIVE[self.ndim](x, sizes)
        axes = tuple(range(2, x.ndim))
        return ((x * _waves(self.numbers, self.size, x.dtype)).sum(axes, keepdim=True),)

    def extra_repr(self) -> str:
        """Frequencies and size, for printing."""
        return f"frequencies={self.frequencies}, size={self.size}"


def _waves(numbers: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """One wave for each row of frequencies, (C, size, ...)."""
    places = torch.arange(size, dtype=dtype, device=numbers.device) + 0.5
    angles = math.pi / size * numbers.unsqueeze(-1).to(dtype) * places
    along = torch.cos(angles) / math.sqrt(size)
    along = torch.where(numbers.unsqueeze(-1) > 0, math.sqrt(2) * along, along)
    first, *others = along.unbind(1)
    for other in others:
        ones = (1,) * (first.ndim - 1)
        first = first.unsqueeze(-1) * other.reshape(len(other), *ones, size)
    return first


class WindowMean(Descriptors):
    """The mean of x over windows of 2e - 1, e apart, each repeated over the positions it is for.

    Args:
        extent: e, in positions.
    """

    def __init__(self, extent: int) -> None:
        check_positive("WindowMean", "extent", extent)
        super().__init__()
        self.extent = extent

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """One descriptor of x's shape."""
        x = x.to(accumulation_dtype(x.dtype))
        means = AVERAGE[x.ndim - 2](
            x,
            2 * self.extent - 1,
            stride=self.extent,
            padding=self.extent - 1,
            count_include_pad=False,
        )
        return (F.interpolate(means, size=x.shape[2:], mode="nearest"),)

    def extra_repr(self) -> str:
        """The extent, for printing."""
        return f"extent={self.extent}"


class AxisMeans(Descriptors):
    """Σ_a mean of x over all position axes but a: of every axis its profile, added up."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """One descriptor of x's shape."""
        x = x.to(accumulation_dtype(x.dtype))
        axes = range(2, x.ndim)
        profiles = [x.mean([a for a in axes if a != kept], keepdim=True) for kept in axes]
        if len(profiles) == 1:
            return (x,)
        return (sum(profiles[1:], profiles[0]),)


class Similarity(Descriptors):
    """Σ_c x_c(p) mean_S x_c over the channels of a group: how like its mean each position is.

    Args:
        channels: C.
        groups: that divide them.
    """

    def __init__(self, channels: int, *, groups: int) -> None:
        super().__init__()
        self.channels = channels
        self.groups = groups

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """One descriptor (N, groups, *S)."""
        x = x.to(accumulation_dtype(x.dtype))
        products = x * x.mean(tuple(range(2, x.ndim)), keepdim=True)
        return (products.unflatten(1, (self.groups, -1)).sum(2),)

    def extra_repr(self) -> str:
        """The groups, for printing."""
        return f"groups={self.groups}"


class Motion(Part):
    """What changes between frames: (f * z)_{t+1} - z_t of z = BN(W x), and 0 for the last frame.

    f is a 3×3 convolution of every channel by itself, frame by frame; W makes fewer channels.

    Args:
        channels: of x (N, C, T, H, W).
        outputs: of z.
    """

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.channels = channels
        self.squeeze = nn.Linear(channels, outputs, bias=False)
        self.norm = nn.BatchNorm3d(outputs)
        convolution: Any = CONVOLUTIONS[3]
        self.shift = convolution(
            outputs, outputs, (1, 3, 3), padding=(0, 1, 1), groups=outputs, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, outputs, T, H, W)."""
        self.check(type(self).__name__, x)
        with without_autocast(x):
            weight, _ = promoted(self.squeeze)
            kernel, _ = promoted(self.shift)
            z = CONVOLVE[3](x.to(weight.dtype), weight[:, :, None, None, None])
            z = self.norm(z.to(self.norm.weight.dtype)).to(weight.dtype)
            (frames,) = axes_of("T", z.ndim)
            last = z.shape[frames] - 1
            # All frames are convolved, so that a clip of one frame has a change too: 0.
            after = convolve(z, kernel, None, self.shift).narrow(frames, 1, last)
            change = after - z.narrow(frames, 0, last)
            return torch.cat([change, torch.zeros_like(z.narrow(frames, 0, 1))], frames)
