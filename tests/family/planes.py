"""CBAM, BAM and Triplet attention, stated in plain torch, and the gate over positions they share.

From their papers or their authors' code, as channel.py is, and under the same rules.
"""

import torch
from torch import nn

from tests.family.channel import CONVOLUTIONS, MLP, NORMS, hidden_units, mean, over_positions


class PositionGate(nn.Module):
    """σ(BN(conv of the maximum and the mean over one axis)), a convolution over all the others.

    pooled: that axis of x, 1 for C. The kernel has the other axes in x's order; the authors of
    Triplet and AIA have some of them the other way round, the same function with turned kernels.
    """

    def __init__(self, pooled, ndim, *, kernel_size, norm_momentum, mean_first=False):
        super().__init__()
        self.pooled, self.mean_first = pooled, mean_first
        padding = kernel_size // 2
        self.conv = CONVOLUTIONS[ndim](2, 1, kernel_size, padding=padding, bias=False)
        self.norm = None if norm_momentum is None else NORMS[ndim](1, momentum=norm_momentum)

    def logits(self, x):
        x = x.movedim(self.pooled, 1)
        maps = [x.max(1, keepdim=True).values, x.mean(1, keepdim=True)]
        logits = self.conv(torch.cat(maps[::-1] if self.mean_first else maps, 1))
        if self.norm is not None:
            logits = self.norm(logits)
        return logits.movedim(1, self.pooled)

    def forward(self, x):
        return self.logits(x).sigmoid()


class ChannelPart(nn.Module):
    """MLP(mean) + MLP(max), before σ: Jongchan/attention-module@459efad, MODELS/cbam.py."""

    def __init__(self, channels, *, reduction_ratio, bias):
        super().__init__()
        self.mlp = MLP(channels, hidden_units(channels, reduction_ratio), bias=bias)

    def logits(self, x):
        maximum = x.flatten(2).max(2).values
        return over_positions(self.mlp(mean(x)) + self.mlp(maximum), x)


class CBAM(nn.Module):
    """Equations 1 to 3 of 1807.06521, its other orders (Table 3), or the authors' code.

    official: Jongchan/attention-module@459efad, MODELS/cbam.py: biases, batch norm, max first.
    """

    def __init__(self, channels, *, order="channel-spatial", official=False, ndim=2):
        super().__init__()
        channel = ChannelPart(channels, reduction_ratio=16, bias=official)
        momentum = 0.01 if official else None
        spatial = PositionGate(
            1, ndim, kernel_size=7, norm_momentum=momentum, mean_first=not official
        )
        parts = {"channel": channel, "spatial": spatial}
        self.parallel = "+" in order
        self.parts = nn.ModuleList(parts[name] for name in order.replace("+", "-").split("-"))

    def forward(self, x):
        if self.parallel:
            return x * sum(part.logits(x) for part in self.parts).sigmoid()
        for part in self.parts:
            x = x * part.logits(x).sigmoid()
        return x


class BAM(nn.Module):
    """x (1 + σ(c · s)), the authors' code: Jongchan/attention-module@459efad, MODELS/bam.py.

    There the means are over H × H, so that only square maps work; here over all of the map.
    """

    def __init__(self, channels, *, reduction_ratio=16, dilation=4):
        super().__init__()
        hidden = hidden_units(channels, reduction_ratio)
        self.channel = nn.Sequential(
            nn.Linear(channels, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
            nn.Linear(hidden, channels),
        )  # fmt: skip
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden), nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation),
            nn.BatchNorm2d(hidden), nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation),
            nn.BatchNorm2d(hidden), nn.ReLU(),
            nn.Conv2d(hidden, 1, 1),
        )  # fmt: skip

    def forward(self, x):
        channel = over_positions(self.channel(mean(x)), x)
        return x * (1 + (channel * self.spatial(x)).sigmoid())


class PaperBAM(nn.Module):
    """x (1 + σ(c + s)) of 1807.06514: c = BN(MLP(mean)), s = BN(f1(f3(f3(f1 x)))).

    The equations as issue 49 of Jongchan/attention-module quotes them: one norm, at the end of
    each branch. ReLU between the layers is that of the authors' code; the equations show none.
    """

    def __init__(self, channels, *, reduction_ratio=16, dilation=4):
        super().__init__()
        hidden = hidden_units(channels, reduction_ratio)
        self.mlp = MLP(channels, hidden, bias=True)
        self.norm = nn.BatchNorm1d(channels)
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation), nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation), nn.ReLU(),
            nn.Conv2d(hidden, 1, 1), nn.BatchNorm2d(1),
        )  # fmt: skip

    def forward(self, x):
        channel = over_positions(self.norm(self.mlp(mean(x))), x)
        return x * (1 + (channel + self.spatial(x)).sigmoid())


class Triplet(nn.Module):
    """A third of x (g_H + g_W + g_C), each pooled over one axis: landskape-ai@2cf02fb.

    triplet_attention.py: "cw" without H, "hc" without W (its kernels turned) and "hw" without C.
    """

    def __init__(self, channels):
        super().__init__()
        options = {"kernel_size": 7, "norm_momentum": 0.01}
        self.without_h = PositionGate(2, 2, **options)
        self.without_w = PositionGate(3, 2, **options)
        self.without_c = PositionGate(1, 2, **options)

    def forward(self, x):
        return x * (self.without_h(x) + self.without_w(x) + self.without_c(x)) / 3
