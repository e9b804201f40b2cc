"""Gates over channels, stated from their papers or their authors' code in plain torch.

They know nothing of the library, which the tests compare with them. Parameters are registered in
the order in which the equation uses them. Any number of position axes, unless said otherwise.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

AVERAGE_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def largest_divisor(number, limit):
    return next(d for d in range(min(number, limit), 0, -1) if number % d == 0)


def hidden_units(channels, reduction_ratio):
    return max(channels // reduction_ratio, 1)


def mean(x):
    return x.flatten(2).mean(2)


def over_positions(weights, x):
    """Weights (N, C) as a tensor that multiplies x."""
    return weights.reshape(*weights.shape, *(1,) * (x.ndim - 2))


class MLP(nn.Module):
    """W1 ReLU(W0 v + b0) + b1 over the last axis."""

    def __init__(self, size, hidden, *, bias):
        super().__init__()
        self.first = nn.Linear(size, hidden, bias=bias)
        self.second = nn.Linear(hidden, size, bias=bias)

    def forward(self, vector):
        return self.second(torch.relu(self.first(vector)))


class SE(nn.Module):
    """x σ(W1 ReLU(W0 mean + b0) + b1): hujie-frank/SENet@0262d43. cSE is the same with ratio 2."""

    def __init__(self, channels, *, reduction_ratio=16, bias=True):
        super().__init__()
        self.mlp = MLP(channels, hidden_units(channels, reduction_ratio), bias=bias)

    def forward(self, x):
        return x * over_positions(self.mlp(mean(x)).sigmoid(), x)


class ESE(nn.Module):
    """x relu6(W mean + b + 3) / 6: youngwanLEE/vovnet-detectron2@b81c813."""

    def __init__(self, channels):
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, x):
        return x * over_positions((self.fc(mean(x)) + 3).clamp(0, 6) / 6, x)


class ECA(nn.Module):
    """x σ(conv along C of the means): BangguWu/ECANet@b332f6b; circular: timm's CecaModule.

    Without a kernel size it is the paper's: |log2(C) / 2 + 1 / 2|, made odd upwards.
    """

    def __init__(self, channels, *, kernel_size=None, circular=False):
        super().__init__()
        if kernel_size is None:
            kernel_size = int(abs((math.log2(channels) + 1) / 2))
            kernel_size += 1 - kernel_size % 2
        self.circular = circular
        self.weight = nn.Parameter(torch.randn(kernel_size))

    def forward(self, x):
        half = len(self.weight) // 2
        means = mean(x)
        channels = means.shape[1]
        logits = torch.zeros_like(means)
        for tap, weight in enumerate(self.weight):
            for c in range(channels):
                source = c + tap - half
                if self.circular:
                    source %= channels
                if 0 <= source < channels:
                    logits[:, c] = logits[:, c] + weight * means[:, source]
        return x * over_positions(logits.sigmoid(), x)


class GatherExcite(nn.Module):
    """x σ(mean), over all positions or over windows of 2e-1 every e positions, drawn large again.

    Global: hujie-frank/GENet@ae791f8, models/RN50-GEPF.prototxt. Windows: the paper's selection
    operator E(u, e), nearest neighbours; positions outside x don't count, as in timm.
    """

    def __init__(self, channels, *, extent=None):
        super().__init__()
        self.extent = extent

    def forward(self, x):
        if self.extent is None:
            return x * over_positions(mean(x).sigmoid(), x)
        pool = AVERAGE_POOL[x.ndim - 2]
        e = self.extent
        gathered = pool(x, 2 * e - 1, stride=e, padding=e - 1, count_include_pad=False)
        return x * F.interpolate(gathered, size=x.shape[2:]).sigmoid()


class GatherExciteTheta(nn.Module):
    """x σ(BN(depthwise conv as large as the map)): RN50-GEP.prototxt of hujie-frank/GENet@ae791f8.

    plus: RN50-GEPP.prototxt, ReLU and a two-layer network with biases before σ.
    """

    def __init__(self, channels, *, resolution, plus=False, reduction_ratio=16):
        super().__init__()
        ndim = len(resolution)
        self.gather = CONVOLUTIONS[ndim](
            channels, channels, resolution, groups=channels, bias=False
        )
        self.norm = NORMS[ndim](channels)
        hidden = hidden_units(channels, reduction_ratio)
        self.mlp = MLP(channels, hidden, bias=True) if plus else None

    def forward(self, x):
        gathered = self.norm(self.gather(x)).flatten(1)
        if self.mlp is not None:
            gathered = self.mlp(torch.relu(gathered))
        return x * over_positions(gathered.sigmoid(), x)


class SRM(nn.Module):
    """x σ(BN(w1 mean + w2 std)), of the variance over n - 1, plus 1e-5.

    hyunjaelee410/style-based-recalibration-module@f6221c7.
    """

    def __init__(self, channels):
        super().__init__()
        self.weights = nn.Parameter(torch.randn(channels, 2))
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x):
        values = x.flatten(2)
        n = values.shape[2]
        centred = values - values.mean(2, keepdim=True)
        std = (centred.square().sum(2) / (n - 1) + 1e-5).sqrt()
        logits = self.weights[:, 0] * values.mean(2) + self.weights[:, 1] * std
        return x * over_positions(self.norm(logits).sigmoid(), x)


class GCT(nn.Module):
    """x (1 + tanh(γ s / sqrt(mean_C s² + ε) + β)), s = α sqrt(Σ x² + ε): z-x-yang/GCT@68983ed."""

    def __init__(self, channels, *, epsilon=1e-5):
        super().__init__()
        self.alpha, self.gamma, self.beta = (nn.Parameter(torch.randn(channels)) for _ in range(3))
        self.epsilon = epsilon

    def forward(self, x):
        embedding = self.alpha * (x.flatten(2).square().sum(2) + self.epsilon).sqrt()
        size = (embedding.square().mean(1, keepdim=True) + self.epsilon).sqrt()
        gate = 1 + torch.tanh(self.gamma * embedding / size + self.beta)
        return x * over_positions(gate, x)


class Fca(nn.Module):
    """x σ(W1 ReLU(W0 d)): group i of the channels is described by its i-th cosine, on (N, C, H, W).

    cfzd/FcaNet@aa5fb63, "top16" in model/layer.py; without biases; another size is pooled first.
    """

    ROWS = (0, 0, 6, 0, 0, 1, 1, 4, 5, 1, 3, 0, 0, 0, 3, 2)
    COLUMNS = (0, 1, 0, 5, 2, 0, 2, 0, 0, 6, 0, 4, 6, 3, 5, 2)

    def __init__(self, channels, *, frequencies=16, size=7, reduction_ratio=16):
        super().__init__()
        self.frequencies = largest_divisor(channels, frequencies)
        self.size = size
        self.mlp = MLP(channels, hidden_units(channels, reduction_ratio), bias=False)

    def cosine(self, frequency, like):
        """DCT-II of unit norm, of the frequency that a map of 7 would have."""
        n = self.size
        if frequency == 0:
            return like.new_full((n,), 1 / math.sqrt(n))
        at = torch.arange(n, dtype=like.dtype, device=like.device) + 0.5
        return torch.cos(math.pi / n * frequency * (n // 7) * at) * math.sqrt(2 / n)

    def forward(self, x):
        pooled = x
        if x.shape[2:] != (self.size, self.size):
            pooled = F.adaptive_avg_pool2d(x, self.size)
        described = []
        groups = pooled.chunk(self.frequencies, dim=1)
        for group, row, column in zip(groups, self.ROWS, self.COLUMNS, strict=False):
            waves = self.cosine(row, x), self.cosine(column, x)
            described.append(torch.einsum("nchw,h,w->nc", group, *waves))
        return x * over_positions(self.mlp(torch.cat(described, 1)).sigmoid(), x)


class GlobalContext(nn.Module):
    """x + t or x σ(t), t = W1 ReLU(LN(W0 Σ_s softmax_s(w·x_s + b) x_s)): xvjiarui/GCNet@029db54."""

    def __init__(self, channels, *, fusion="add", reduction_ratio=16):
        super().__init__()
        hidden = hidden_units(channels, reduction_ratio)
        self.mask = nn.Linear(channels, 1)
        self.first = nn.Linear(channels, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.second = nn.Linear(hidden, channels)
        self.fusion = fusion

    def forward(self, x):
        positions = x.flatten(2).transpose(1, 2)  # (N, S, C)
        context = (self.mask(positions).softmax(1) * positions).sum(1)
        term = over_positions(self.second(torch.relu(self.norm(self.first(context)))), x)
        return x + term if self.fusion == "add" else x * term.sigmoid()
