"""Gates over positions alone, or over channels and positions at once."""

from typing import Literal

from whatwhere.checks import check_choice, check_positive
from whatwhere.gates.algebra import Gate, Start
from whatwhere.gates.attention import hidden_size
from whatwhere.gates.family.channel import se
from whatwhere.gates.layers import Chain, Conv, Function, Linear
from whatwhere.gates.norms import BatchNorm, Energy
from whatwhere.gates.parallel import Par


def cse(channels: int, *, reduction_ratio: int = 2, start: Start = "paper") -> Gate:
    """Channel squeeze and excitation: SE with r = 2.

    Source: arXiv 1803.02579; ai-med/squeeze_and_excitation@acdd26e.
    """
    return se(channels, reduction_ratio=reduction_ratio, start=start)


def sse(channels: int, *, start: Start = "paper") -> Gate:
    """Spatial squeeze and excitation: σ(w · x_p + b) at every position.

    Source: arXiv 1803.02579; ai-med/squeeze_and_excitation@acdd26e.
    """
    return Gate(keep="S", statistics=["identity"], mix=Linear(channels, 1), start=start)


def scse(
    channels: int,
    *,
    reduction_ratio: int = 2,
    join: Literal["max", "sum"] = "max",
    start: Start = "paper",
) -> Par:
    """Concurrent cSE and sSE: the larger of both gated outputs at every entry, or their sum.

    Source: arXiv 1803.02579, which adds; ai-med/squeeze_and_excitation@acdd26e takes the maximum,
    the journal version's best. From the identity, the sum is a mean of gates 2σ: the same.
    """
    check_choice("scse", "join", join, ("max", "sum"))
    return Par(
        join="mean" if join == "sum" and start == "identity" else join,
        channel=cse(channels, reduction_ratio=reduction_ratio, start=start),
        spatial=sse(channels, start=start),
    )


def bam(
    channels: int,
    *,
    reduction_ratio: int = 16,
    dilation: int = 4,
    dialect: Literal["paper", "official"] = "paper",
    ndim: int = 2,
    start: Start = "paper",
) -> Par:
    """Bottleneck Attention Module: x · (1 + σ(Mc + Ms)), Ms from two dilated convolutions.

    Source: arXiv 1807.06514, where Mc and Ms are summed and each ends in a batch norm; the ReLU
    between layers, which its equations leave out, is that of the code.
    ``dialect="official"`` is Jongchan/attention-module@459efad: it multiplies them, and its norms
    follow all layers but the last. (As shipped, that file raises a NameError.)
    Elsewhere: External-Attention pads by 1 at dilation 2, so that maps shrink.
    """
    check_positive("bam", "reduction_ratio", reduction_ratio)
    check_choice("bam", "dialect", dialect, ("paper", "official"))
    hidden = hidden_size(channels, reduction_ratio)
    if dialect == "official":
        channel = Chain(
            reduce=Linear(channels, hidden),
            norm=BatchNorm(hidden),
            relu=Function("relu"),
            expand=Linear(hidden, channels),
        )
    else:
        channel = Chain(
            reduce=Linear(channels, hidden),
            relu=Function("relu"),
            expand=Linear(hidden, channels),
            norm=BatchNorm(channels),
        )
    return Par(
        join="logits" if dialect == "paper" else "logit_product",
        activation="one_plus_sigmoid",
        channel=Gate(keep="C", statistics=["mean"], mix=channel, activation="identity"),
        spatial=Gate(
            keep="S",
            statistics=["identity"],
            mix=_dilated(channels, hidden, dilation, ndim, norms=dialect == "official"),
            activation="identity",
        ),
        start=start,
    )


def _dilated(channels: int, hidden: int, dilation: int, ndim: int, *, norms: bool) -> Chain:
    def wide() -> Conv:
        return Conv(hidden, hidden, over="S", kernel_size=(3,) * ndim, dilation=dilation, bias=True)

    if not norms:
        return Chain(
            reduce=Linear(channels, hidden),
            reduce_relu=Function("relu"),
            wide=wide(),
            wide_relu=Function("relu"),
            wider=wide(),
            wider_relu=Function("relu"),
            expand=Linear(hidden, 1),
            norm=BatchNorm(1),
        )
    return Chain(
        reduce=Linear(channels, hidden),
        reduce_norm=BatchNorm(hidden),
        reduce_relu=Function("relu"),
        wide=wide(),
        wide_norm=BatchNorm(hidden),
        wide_relu=Function("relu"),
        wider=wide(),
        wider_norm=BatchNorm(hidden),
        wider_relu=Function("relu"),
        expand=Linear(hidden, 1),
    )


def simam(*, regularisation: float = 1e-4, start: Start = "paper") -> Gate:
    """Simple parameter-free attention: σ((x - μ)² / (4 (var + λ)) + ½), by channel.

    Source: ICML 2021; ZjjConan/SimAM@ae98f43. On 1×1 maps that code gives NaN, here var is 0.
    """
    return Gate(
        keep="CS",
        statistics=["identity"],
        mix=Energy(regularisation=regularisation),
        start=start,
    )
