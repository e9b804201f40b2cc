"""Gates over positions, or over channels and positions, stated in plain torch.

From their papers or their authors' code, as channel.py is, and under the same rules.
"""

import torch
import torch.nn.functional as F
from torch import nn

from tests.family.channel import (
    SE,
    largest_divisor,
    mean,
    over_positions,
)


class SSE(nn.Module):
    """x σ(w · x_s + b): ai-med/squeeze_and_excitation@acdd26e, SpatialSELayer."""

    def __init__(self, channels):
        super().__init__()
        self.line = nn.Linear(channels, 1)

    def forward(self, x):
        return x * self.line(x.movedim(1, -1)).sigmoid().movedim(-1, 1)


class SCSE(nn.Module):
    """max(cSE(x), sSE(x)) as in the authors' code (acdd26e), or their sum as in the paper."""

    def __init__(self, channels, *, join="max"):
        super().__init__()
        self.cse = SE(channels, reduction_ratio=2)
        self.sse = SSE(channels)
        self.join = join

    def forward(self, x):
        parts = self.cse(x), self.sse(x)
        return torch.maximum(*parts) if self.join == "max" else parts[0] + parts[1]


class SimAM(nn.Module):
    """x σ((x - μ)² / (4 (Σ (x - μ)² / (n - 1) + λ)) + ½): ZjjConan/SimAM@ae98f43."""

    def __init__(self, channels, *, regularisation=1e-4):
        super().__init__()
        self.regularisation = regularisation

    def forward(self, x):
        squares = (x - over_positions(mean(x), x)).square().flatten(2)
        variance = squares.sum(2, keepdim=True) / (squares.shape[2] - 1)
        energy = squares / (4 * (variance + self.regularisation)) + 0.5
        return x * energy.sigmoid().reshape(x.shape)


class SGE(nn.Module):
    """A group's positions by how like its mean they are: implus/PytorchInsight@2864528.

    t(p) = Σ_c x(p) mean(x); x σ(w (t - mean t) / (std t + 1e-5) + b), std over n - 1.
    """

    def __init__(self, channels, *, groups=64):
        super().__init__()
        self.groups = largest_divisor(channels, groups)
        self.weight = nn.Parameter(torch.randn(self.groups))
        self.bias = nn.Parameter(torch.randn(self.groups))

    def forward(self, x):
        grouped = x.flatten(2).unflatten(1, (self.groups, -1))  # (N, G, C/G, S)
        t = torch.einsum("ngcs,ngc->ngs", grouped, grouped.mean(3))
        centred = t - t.mean(2, keepdim=True)
        std = (centred.square().sum(2, keepdim=True) / (t.shape[2] - 1)).sqrt()
        logits = self.weight[:, None] * centred / (std + 1e-5) + self.bias[:, None]
        return (grouped * logits.sigmoid()[:, :, None]).reshape(x.shape)


class Shuffle(nn.Module):
    """Half of each group's channels by channel, half by position: wofmanaf/SA-Net@00a6760.

    σ(w mean + b), and σ(w' n + b') with n the x of one channel normalised over the positions and
    scaled by γ, β: parameters that all groups share. Then channels are shuffled in 2.
    """

    def __init__(self, channels, *, groups=64, shuffle=True):
        super().__init__()
        self.groups = largest_divisor(channels // 2, groups)
        each = channels // (2 * self.groups)
        for name in ("weight", "bias", "gamma", "beta", "spatial_weight", "spatial_bias"):
            self.register_parameter(name, nn.Parameter(torch.randn(each)))
        self.shuffle = shuffle

    def forward(self, x):
        grouped = x.flatten(2).unflatten(1, (self.groups, 2, -1))  # (N, G, 2, C/2G, S)
        first, second = grouped.unbind(2)
        logits = self.weight[:, None] * first.mean(3, keepdim=True) + self.bias[:, None]
        centred = second - second.mean(3, keepdim=True)
        normed = centred / (centred.square().mean(3, keepdim=True) + 1e-5).sqrt()
        scaled = self.gamma[:, None] * normed + self.beta[:, None]
        spatial = self.spatial_weight[:, None] * scaled + self.spatial_bias[:, None]
        gated = torch.stack([first * logits.sigmoid(), second * spatial.sigmoid()], 2)
        channels = gated.flatten(1, 3)
        if self.shuffle:  # channel 2k + i comes from place k of half i
            channels = channels.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
        return channels.reshape(x.shape)


class LKA(nn.Module):
    """x · conv1(dilated depthwise conv 7, 3(depthwise conv 5 x)), on (N, C, H, W).

    2202.09741; as AttentionModule of StevenLauHKHK/Large-Separable-Kernel-Attention@bb2a8d2's VAN.
    """

    def __init__(self, channels):
        super().__init__()
        self.near = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.far = nn.Conv2d(channels, channels, 7, padding=9, dilation=3, groups=channels)
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return x * self.mix(self.far(self.near(x)))


class LSKA(nn.Module):
    """LKA with each depthwise convolution as a row and a column, on (N, C, H, W).

    StevenLauHKHK/Large-Separable-Kernel-Attention@bb2a8d2, models/van.py.
    """

    # kernel size -> (near, far, dilation)
    SIZES = {7: (3, 3, 2), 11: (3, 5, 2), 23: (5, 7, 3), 35: (5, 11, 3), 41: (5, 13, 3), 53: (5, 17, 3)}  # fmt: skip # noqa: E501, RUF012

    def __init__(self, channels, *, kernel_size):
        super().__init__()
        near, far, dilation = self.SIZES[kernel_size]
        layers = []
        for size, d in ((near, 1), (far, dilation)):
            for shape in ((1, size), (size, 1)):
                padding = tuple(d * (s // 2) for s in shape)
                layers.append(
                    nn.Conv2d(
                        channels, channels, shape, padding=padding, dilation=d, groups=channels
                    )
                )
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, channels, 1))

    def forward(self, x):
        return x * self.layers(x)


class Coordinate(nn.Module):
    """x Π_axis σ(W_axis h), h = hswish(BN(W0 means)) of all axes' means in a row.

    houqb/CoordAttention@7619bea: coordatt.py, for H and then W.
    """

    def __init__(self, channels, *, ndim=2, reduction_ratio=32):
        super().__init__()
        hidden = max(8, channels // reduction_ratio)
        self.reduce = nn.Conv1d(channels, hidden, 1)
        self.norm = nn.BatchNorm1d(hidden)
        self.expand = nn.ModuleList(nn.Conv1d(hidden, channels, 1) for _ in range(ndim))

    def forward(self, x):
        rows = axis_means(x)
        lengths = [row.shape[2] for row in rows]
        h = self.norm(self.reduce(torch.cat(rows, 2)))
        h = h * (h + 3).clamp(0, 6) / 6
        for axis, (expand, part) in enumerate(zip(self.expand, h.split(lengths, 2), strict=True)):
            x = x * along(expand(part).sigmoid(), axis, x)
        return x


class ELA(nn.Module):
    """x Π_axis σ(GN(depthwise conv 7 along the axis of its means)), the layers shared: 2403.01123.

    The authors published no code; this is "ELA-B" as the public ports have it.
    """

    def __init__(self, channels, *, kernel_size=7, groups=16):
        super().__init__()
        self.conv = nn.Conv1d(
            channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=False
        )
        self.norm = nn.GroupNorm(largest_divisor(channels, groups), channels)

    def forward(self, x):
        gates = [self.norm(self.conv(row)).sigmoid() for row in axis_means(x)]
        for axis, gate in enumerate(gates):
            x = x * along(gate, axis, x)
        return x


def axis_means(x):
    """For each position axis, x averaged over the others: (N, C, length)."""
    return [x.movedim(2 + axis, 2).flatten(3).mean(3) if x.ndim > 3 else x
            for axis in range(x.ndim - 2)]  # fmt: skip


def along(gate, axis, x):
    """A gate (N, C, length) along one position axis of x."""
    shape = [*gate.shape[:2], *(1,) * (x.ndim - 2)]
    shape[2 + axis] = gate.shape[2]
    return gate.reshape(shape)


class EMA(nn.Module):
    """One weight per group and position, from two branches: YOLOonMe/EMA-attention-module@afc37ec.

    a = GN(x σ(W m_H) σ(W m_W)), b = conv3×3 x; σ(Σ_c softmax_c(mean a) b + softmax_c(mean b) a).
    """

    def __init__(self, channels, *, groups=32):
        super().__init__()
        self.groups = largest_divisor(channels, groups)
        each = channels // self.groups
        self.norm = nn.GroupNorm(each, each)  # in the authors' order, not that of use
        self.line = nn.Conv1d(each, each, 1)
        self.square = nn.Conv2d(each, each, 3, padding=1)

    def forward(self, x):
        grouped = x.reshape(-1, x.shape[1] // self.groups, *x.shape[2:])
        rows, columns = (self.line(row).sigmoid() for row in axis_means(grouped))
        a = self.norm(grouped * rows[..., None] * columns[:, :, None])
        b = self.square(grouped)
        logits = torch.einsum("nc,nchw->nhw", F.softmax(mean(a), 1), b)
        logits = logits + torch.einsum("nc,nchw->nhw", F.softmax(mean(b), 1), a)
        return (grouped * logits[:, None].sigmoid()).reshape(x.shape)
