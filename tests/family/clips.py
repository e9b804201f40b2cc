"""Gates for clips (N, C, T, H, W), stated from their authors' code in plain torch.

As channel.py: they know nothing of the library, and their parameters are in the equation's order.
The authors' (N T, C, H, W) or (N, T, C, H, W) is (N, C, T, H, W) here, and nothing else differs.
"""

import torch
import torch.nn.functional as F
from torch import nn

from tests.family.channel import MLP, hidden_units, mean
from tests.family.planes import CBAM, ChannelPart, PositionGate

TO_CLIP = (..., None, None, None)


class MultiDimensional(nn.Module):
    """Frames, then channels, then positions shared by all frames: MA-SNN's TCSA.

    BICLab/Attention-SNN@ad80e7b, MA_SNN/module/Attention.py. The authors end with a ReLU, made
    for spikes; rectify=False leaves it out.
    """

    def __init__(self, channels, *, frames, reduction_ratio=16, rectify=True):
        super().__init__()
        options = {"reduction_ratio": reduction_ratio, "bias": False}
        self.frames = ChannelPart(frames, **options)
        self.channels = ChannelPart(channels, **options)
        self.conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)
        self.rectify = rectify

    def forward(self, x):
        x = x * self.frames.logits(x.transpose(1, 2)).sigmoid().transpose(1, 2)
        x = x * self.channels.logits(x).sigmoid()
        planes = x.flatten(1, 2)
        maps = torch.stack([planes.mean(1), planes.max(1).values], 1)
        x = x * self.conv(maps).sigmoid()[:, :, None]
        return torch.relu(x) if self.rectify else x


class WithoutOneAxis(nn.Module):
    """AIA's "ST": the mean of three gates, without T, without H and without W."""

    def __init__(self):
        super().__init__()
        options = {"kernel_size": 3, "norm_momentum": 0.1}
        self.gates = nn.ModuleList(PositionGate(axis, 3, **options) for axis in (2, 3, 4))

    def forward(self, x):
        return sum(gate(x) for gate in self.gates) / 3


class AIA(nn.Module):
    """Attention in attention: haoyanbin918/Attention-in-Attention@7910cd0, nets/block_zoo.py.

    "C" is a gate without channels. "C-ST" and "ST-C" are one after the other, "C+ST" half of each
    output, as in the bottlenecks of nets/; "CinST" and "STinC" x times the outer gate of the
    inner's output.
    """

    def __init__(self, channels, *, order):
        super().__init__()
        self.order = order
        self.gates = nn.ModuleList(
            WithoutOneAxis()
            if name == "ST"
            else PositionGate(1, 3, kernel_size=3, norm_momentum=0.1)
            for name in order.replace("in", "-").replace("+", "-").split("-")
        )

    def forward(self, x):
        first, *rest = self.gates
        gated = x * first(x)
        if not rest:
            return gated
        if "+" in self.order:
            return 0.5 * gated + 0.5 * x * rest[0](x)
        return (x if "in" in self.order else gated) * rest[0](gated)


class GroupContext(nn.Module):
    """A quarter of the channels each by L, T, S and G: Group Contextualization.

    haoyanbin918/Group-Contextualization@b99be50, nets/Calibrator2D.py and, with --cdiv 4,
    nets/GC_TSN.py. As run there, S has no norm: its second definition of forward leaves it out.

    L: σ(BN(conv over T of x)); T: of the means over H, W; S: σ(conv 3×3, dilation 2, of the means
    over T); G: σ(BN(W mean)). All convolutions mix the quarter's channels and have no bias.
    """

    def __init__(self, channels):
        super().__init__()
        c = channels // 4
        line = {"kernel_size": (3, 1, 1), "padding": (1, 0, 0), "bias": False}
        self.local = nn.Sequential(nn.Conv3d(c, c, **line), nn.BatchNorm3d(c))
        self.temporal = nn.Sequential(nn.Conv1d(c, c, 3, padding=1, bias=False), nn.BatchNorm1d(c))
        self.spatial = nn.Conv2d(c, c, 3, padding=2, dilation=2, bias=False)
        self.whole = nn.Sequential(nn.Linear(c, c, bias=False), nn.BatchNorm1d(c))

    def forward(self, x):
        a, b, c, d = x.chunk(4, 1)
        gated = [
            a * self.local(a).sigmoid(),
            b * self.temporal(b.mean((3, 4))).sigmoid()[..., None, None],
            c * self.spatial(c.mean(2)).sigmoid()[:, :, None],
            d * self.whole(mean(d)).sigmoid()[TO_CLIP],
        ]
        return torch.cat(gated, 1)


class ProjectExcite(nn.Module):
    """x σ(W1 ReLU(W0 z + b0) + b1), z = the means along W, along H and along D, added.

    ai-med/squeeze_and_excitation@acdd26e, squeeze_and_excitation_3D.py.
    """

    def __init__(self, channels, *, reduction_ratio=2):
        super().__init__()
        self.mlp = MLP(channels, hidden_units(channels, reduction_ratio), bias=True)

    def forward(self, x):
        along_d = x.mean((3, 4), keepdim=True)
        along_h = x.mean((2, 4), keepdim=True)
        along_w = x.mean((2, 3), keepdim=True)
        joined = (along_d + along_h + along_w).movedim(1, -1)
        return x * self.mlp(joined).sigmoid().movedim(-1, 1)


def motion(z, later):
    """later(z_{t+1}) - z_t, and 0 after the last frame, averaged over H, W: (N, C, T)."""
    n, _, frames = z.shape[:3]
    moved = later(z.transpose(1, 2).flatten(0, 1)).unflatten(0, (n, frames)).transpose(1, 2)
    return F.pad((moved[:, :, 1:] - z[:, :, :-1]).mean((3, 4)), (0, 1))


class Action(nn.Module):
    """x (3 + σ(p1) + σ(p2) + σ(p3)): V-Sense/ACTION-Net@3122b11, models/action.py, after its shift.

    p1: conv 3×3×3 of the mean over C; p2: W1 ReLU(conv over T of W0 mean_HW); p3: W1 of the motion
    between the frames of BN(W0 x). No biases.
    """

    def __init__(self, channels, *, reduction_ratio=16):
        super().__init__()
        hidden = hidden_units(channels, reduction_ratio)
        self.p1 = nn.Conv3d(1, 1, 3, padding=1, bias=False)
        self.p2 = nn.Sequential(
            nn.Conv1d(channels, hidden, 1, bias=False),
            nn.Conv1d(hidden, hidden, 3, padding=1, bias=False), nn.ReLU(),
            nn.Conv1d(hidden, channels, 1, bias=False),
        )  # fmt: skip
        self.squeeze = nn.Conv3d(channels, hidden, 1, bias=False)
        self.norm = nn.BatchNorm3d(hidden)
        self.later = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.expand = nn.Conv1d(hidden, channels, 1, bias=False)

    def forward(self, x):
        p1 = self.p1(x.mean(1, keepdim=True)).sigmoid()
        p2 = self.p2(x.mean((3, 4))).sigmoid()[..., None, None]
        moving = motion(self.norm(self.squeeze(x)), self.later)
        p3 = self.expand(moving).sigmoid()[..., None, None]
        return (x * p1 + x) + (x * p2 + x) + (x * p3 + x)


class MotionExcitation(nn.Module):
    """x (½ + σ(BN(W1 of the motion between the frames of BN(W0 x)))): TEA's ME.

    Phoenix1327/tea-action-recognition@f59e2f8, MEModule of ops/tea50_8f.py.
    """

    def __init__(self, channels, *, reduction_ratio=16):
        super().__init__()
        hidden = hidden_units(channels, reduction_ratio)
        self.squeeze = nn.Conv3d(channels, hidden, 1, bias=False)
        self.first_norm = nn.BatchNorm3d(hidden)
        self.later = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.expand = nn.Conv1d(hidden, channels, 1, bias=False)
        self.second_norm = nn.BatchNorm1d(channels)

    def forward(self, x):
        moving = motion(self.first_norm(self.squeeze(x)), self.later)
        gate = self.second_norm(self.expand(moving)).sigmoid() - 0.5
        return x + x * gate[..., None, None]


class AdaptiveLocal(nn.Module):
    """x σ(W1 ReLU(BN(conv over T of mean_HW, C to C/4))): the local branch of TAM.

    liu-zhy/temporal-adaptive-module@5fcb46f, ops/temporal_module.py.
    """

    def __init__(self, channels):
        super().__init__()
        hidden = hidden_units(channels, 4)
        self.layers = nn.Sequential(
            nn.Conv1d(channels, hidden, 3, padding=1, bias=False), nn.BatchNorm1d(hidden),
            nn.ReLU(), nn.Conv1d(hidden, channels, 1, bias=False),
        )  # fmt: skip

    def forward(self, x):
        return x * self.layers(x.mean((3, 4))).sigmoid()[..., None, None]


class TabAttention(nn.Module):
    """The authors' CBAM of each frame, then a gate over frames: TabAttention without a table.

    SanoScience/Tab-Attention@d1c1aee with temporal_mhsa off: MLP(mean) + MLP(max), T to T/2 to T.
    """

    def __init__(self, channels, *, frames):
        super().__init__()
        self.cbam = CBAM(channels, official=True)
        self.frames = ChannelPart(frames, reduction_ratio=2, bias=True)

    def forward(self, x):
        images = self.cbam(x.transpose(1, 2).flatten(0, 1))
        x = images.unflatten(0, (x.shape[0], x.shape[2]))  # (N, T, C, H, W)
        return (x * self.frames.logits(x).sigmoid()).transpose(1, 2)
