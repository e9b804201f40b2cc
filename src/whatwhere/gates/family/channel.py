"""Gates over channels: one weight for each, from what is known of the whole map."""

import math
from typing import Literal

from whatwhere.checks import check_choice, check_positive
from whatwhere.gates.algebra import Gate, Start
from whatwhere.gates.attention import ChannelAttention, hidden_size
from whatwhere.gates.describe import Frequencies, SoftmaxMean, WindowMean
from whatwhere.gates.family.sizes import largest_divisor, per_axis
from whatwhere.gates.layers import Affine, Chain, Conv, Function, Linear
from whatwhere.gates.mixes import PositionConv
from whatwhere.gates.norms import BatchNorm, ChannelRms, GroupNorm

# The (u, v) that FcaNet's authors found best, one at a time, on a map of 7×7 (get_freq_indices).
BEST = list(
    zip(
        (0, 0, 6, 0, 0, 1, 1, 4, 5, 1, 3, 0, 0, 0, 3, 2),
        (0, 1, 0, 5, 2, 0, 2, 0, 0, 6, 0, 4, 6, 3, 5, 2),
        strict=True,
    )
)


def se(channels: int, *, reduction_ratio: int = 16, start: Start = "paper") -> Gate:
    """Squeeze-and-Excitation: σ(W1 ReLU(W0 mean + b0) + b1).

    Source: arXiv 1709.01507; hujie-frank/SENet@0262d43, whose layers have biases.
    Elsewhere: timm rounds the hidden width up to a multiple of 8; section 6 of the paper's fourth
    version does without biases (``channel`` with ``statistics=("mean",)``).
    """
    return ChannelAttention(
        channels, reduction_ratio=reduction_ratio, statistics=["mean"], bias=True, start=start
    )


def ese(channels: int, *, start: Start = "paper") -> Gate:
    """Effective Squeeze-and-Excitation: hardσ(W mean + b), one layer and no reduction.

    Source: arXiv 1911.06667; youngwanLEE/vovnet-detectron2@b81c813.
    """
    return Gate(
        keep="C",
        statistics=["mean"],
        mix=Linear(channels, channels),
        activation="hard_sigmoid",
        start=start,
    )


def eca(channels: int, *, kernel_size: int | None = None, start: Start = "paper") -> Gate:
    """Efficient Channel Attention: σ(conv_k along the channels, of their means).

    k is |log2(C)/2 + 1/2| rounded up to the next odd number, at least 3, if not given.
    Source: arXiv 1910.03151; BangguWu/ECANet@b332f6b, whose networks take k by stage (3, 5, 5, 7
    in ResNet-50) and not by the formula.
    Elsewhere: External-Attention has a bias; some ports get k = 1 for few channels.
    """
    return Gate(
        keep="C",
        statistics=["mean"],
        mix=PositionConv(1, ndim=1, over="C", kernel_size=_kernel(channels, kernel_size)),
        start=start,
    )


def ceca(channels: int, *, kernel_size: int | None = None, start: Start = "paper") -> Gate:
    """Circular ECA: the first channel is the last one's neighbour.

    Source: timm's CecaModule.
    """
    return Gate(
        keep="C",
        statistics=["mean"],
        mix=PositionConv(
            1,
            ndim=1,
            over="C",
            kernel_size=_kernel(channels, kernel_size),
            padding_mode="circular",
        ),
        start=start,
    )


def ge(*, extent: int | None = None, start: Start = "paper") -> Gate:
    """Gather-Excite θ⁻: σ(mean), over all positions or over windows of an extent; no parameters.

    Source: arXiv 1810.12348; hujie-frank/GENet@ae791f8 for the global one. Windows are 2e - 1
    wide and e apart, and their means are repeated to x's size, as in the paper's section 2.
    Elsewhere: timm's GatherExcite raises a TypeError in most of its forms (1.0.31).
    """
    if extent is None:
        return Gate(keep="C", statistics=["mean"], start=start)
    return Gate(keep="CS", statistics=WindowMean(extent), start=start)


def ge_theta(
    channels: int, *, resolution: int | tuple[int, ...], ndim: int = 2, start: Start = "paper"
) -> Gate:
    """Gather-Excite θ: σ(BN(w * x)), w as large as the map, one for each channel.

    It takes maps of that one resolution alone.
    Source: arXiv 1810.12348; hujie-frank/GENet@ae791f8.
    """
    return Gate(
        keep="C",
        statistics=["identity"],
        mix=Chain(gather=_gather(channels, resolution, ndim), norm=BatchNorm(channels)),
        start=start,
    )


def ge_theta_plus(
    channels: int,
    *,
    resolution: int | tuple[int, ...],
    reduction_ratio: int = 16,
    ndim: int = 2,
    start: Start = "paper",
) -> Gate:
    """Gather-Excite θ⁺: σ(W1 ReLU(W0 ReLU(BN(w * x)) + b0) + b1).

    It takes maps of that one resolution alone.
    Source: arXiv 1810.12348; hujie-frank/GENet@ae791f8.
    """
    check_positive("ge_theta_plus", "reduction_ratio", reduction_ratio)
    hidden = hidden_size(channels, reduction_ratio)
    return Gate(
        keep="C",
        statistics=["identity"],
        mix=Chain(
            gather=_gather(channels, resolution, ndim),
            norm=BatchNorm(channels),
            excited=Function("relu"),
            reduce=Linear(channels, hidden),
            relu=Function("relu"),
            expand=Linear(hidden, channels),
        ),
        start=start,
    )


def srm(channels: int, *, start: Start = "paper") -> Gate:
    """Style-based Recalibration: σ(BN(w_mean · mean + w_std · std)), w of each channel.

    Source: arXiv 1903.10829; hyunjaelee410/style-based-recalibration-module@f6221c7: w starts
    at 0, and neither w nor the norm should decay. On 1×1 maps that code gives NaN (the deviation
    of one value); here it is √1e-5.
    """
    return Gate(
        keep="C",
        statistics=["mean", "std"],
        mix=Chain(
            style=Affine(channels, descriptors=2, bias=False, weight=0.0), norm=BatchNorm(channels)
        ),
        start=start,
    )


def gct(channels: int, *, start: Start = "paper") -> Gate:
    """Gated Channel Transformation: 1 + tanh(γ ŝ + β), ŝ = α l2 / rms_C(α l2).

    Source: CVPR 2020; z-x-yang/GCT@68983ed, before every convolution: α = 1, γ = β = 0, so that
    it starts as the identity.
    """
    return Gate(
        keep="C",
        statistics=["l2"],
        mix=Chain(
            embed=Affine(channels, bias=False),
            norm=ChannelRms(),
            gating=Affine(channels, weight=0.0),
        ),
        activation="one_plus_tanh",
        start=start,
    )


def fca(
    channels: int,
    *,
    frequencies: int = 16,
    size: int = 7,
    reduction_ratio: int = 16,
    ndim: int = 2,
    start: Start = "paper",
) -> Gate:
    """Frequency Channel Attention: σ(W1 ReLU(W0 dct)), a cosine frequency for each run of channels.

    The channels fall into as many runs as there are frequencies, or the largest divisor of C below
    that. In 2-D the frequencies are those of the authors, best first; in 1-D the lowest; clips have
    none published. ``size`` is what maps are averaged to, a multiple of 7 (the authors': 56, 28, 14
    and 7 in the four stages), by which 2-D frequencies are scaled.
    Source: arXiv 2012.11879; cfzd/FcaNet@aa5fb63, where the waves are part of the checkpoint.
    """
    check_positive("fca", "reduction_ratio", reduction_ratio)
    check_choice("fca", "frequencies", frequencies, (1, 2, 4, 8, 16))
    if ndim == 3:
        raise ValueError("fca: expected ndim 1 or 2, got 3: no frequencies of clips are published")
    count = largest_divisor(channels, frequencies)
    if ndim == 1:
        chosen: list[tuple[int, ...]] = [(u,) for u in range(count)]
    else:
        check_choice("fca", "size % 7", size % 7, (0,))
        chosen = [(u * (size // 7), v * (size // 7)) for u, v in BEST[:count]]
    hidden = hidden_size(channels, reduction_ratio)
    return Gate(
        keep="C",
        statistics=Frequencies(channels, frequencies=chosen, size=size),
        mix=Chain(
            reduce=Linear(channels, hidden, bias=False),
            relu=Function("relu"),
            expand=Linear(hidden, channels, bias=False),
        ),
        start=start,
    )


def gc(
    channels: int,
    *,
    reduction_ratio: int = 16,
    fusion: Literal["add", "multiply"] = "add",
    start: Start = "paper",
) -> Gate:
    """Global Context: x + W1 ReLU(LN(W0 Σ softmax(w · x) x + b0)) + b1, or x times σ of that.

    Source: arXiv 1904.11492; xvjiarui/GCNet@029db54 (channel_add, and channel_mul), the last
    layer 0 at the start.
    Elsewhere: timm's ``gc`` multiplies, with r = 8, ``gca`` adds; some ports leave the softmax out.
    """
    check_positive("gc", "reduction_ratio", reduction_ratio)
    check_choice("gc", "fusion", fusion, ("add", "multiply"))
    hidden = hidden_size(channels, reduction_ratio)
    mix = Chain(
        reduce=Linear(channels, hidden),
        norm=GroupNorm(hidden),
        relu=Function("relu"),
        expand=Linear(hidden, channels),
    )
    mix.constant_logits(0.0)
    return Gate(
        keep="C",
        statistics=SoftmaxMean(channels),
        mix=mix,
        activation="identity" if fusion == "add" else "sigmoid",
        apply=fusion,
        start=start,
    )


def _kernel(channels: int, kernel_size: int | None) -> int:
    if kernel_size is not None:
        return kernel_size
    size = int(abs(math.log2(channels) / 2 + 0.5))
    return max(3, size + 1 - size % 2)


def _gather(channels: int, resolution: int | tuple[int, ...], ndim: int) -> Conv:
    return Conv(
        channels,
        channels,
        over="S",
        kernel_size=per_axis("ge", "resolution", resolution, ndim),
        groups=channels,
        padding="valid",
    )
