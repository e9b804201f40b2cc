"""Gates from profiles along an axis, and from the planes between two."""

from collections.abc import Callable, Iterable
from typing import Any

from whatwhere.checks import check_positive
from whatwhere.gates.algebra import Gate, Start
from whatwhere.gates.attention import hidden_size
from whatwhere.gates.axes import POSITIONS, all_but
from whatwhere.gates.describe import AxisMeans
from whatwhere.gates.family.sizes import largest_divisor
from whatwhere.gates.layers import Chain, Conv, Function, Linear
from whatwhere.gates.mixes import PositionConv
from whatwhere.gates.norms import BatchNorm, GroupNorm
from whatwhere.gates.parallel import Par


def coordinate(
    channels: int, *, reduction_ratio: int = 32, ndim: int = 2, start: Start = "paper"
) -> Par:
    """Coordinate Attention: Π_a σ(W_a f(mean over all positions but a)), f shared by the axes.

    f is a linear map to max(8, C/32) channels, batch norm and h-swish; in training the norm sees
    the profiles of all axes together. Clips have three axes, sequences one.
    Source: arXiv 2103.02907; houqb/CoordAttention@7619bea.
    Elsewhere: timm's hidden width and biases are others; one popular port has no σ.
    """
    check_positive("coordinate", "reduction_ratio", reduction_ratio)
    hidden = max(8, channels // reduction_ratio)
    return Par(
        join="gates",
        trunk=Chain(
            reduce=Linear(channels, hidden),
            norm=BatchNorm(hidden),
            function=Function("hard_swish"),
        ),
        trunk_over="all",
        **_each(
            "along",
            POSITIONS[ndim + 2],
            lambda axis: Gate(
                keep=f"C{axis}", statistics=["mean"], mix=Linear(hidden, channels), start=start
            ),
        ),
    )


def ela(
    channels: int,
    *,
    kernel_size: int = 7,
    depthwise: bool = True,
    groups: int = 16,
    ndim: int = 2,
    start: Start = "paper",
) -> Par:
    """Efficient Local Attention: Π_a σ(GN(conv_k along a of the mean over the other positions)).

    One convolution and one norm for all axes. ELA-B is the default; T has k = 5 and 32 groups; S
    and L have eight channels in a group of the convolution (``depthwise=False``) and k = 5 and 7.
    The norm has ``groups``, or the largest divisor of C below that.
    Source: arXiv 2403.01123, which has no public code; as its ports agree.
    Elsewhere: timm's has a convolution and norm for each axis, one group and a SiLU.
    """
    mix = Chain(
        conv=Conv(
            channels,
            channels,
            over="any",
            kernel_size=(kernel_size,),
            groups=channels if depthwise else largest_divisor(channels, max(1, channels // 8)),
        ),
        norm=GroupNorm(channels, groups=largest_divisor(channels, groups)),
    )
    if start == "identity":
        mix.constant_logits(0.0)
    return Par(
        join="gates",
        trunk=mix,
        trunk_over="each",
        **_each(
            "along",
            POSITIONS[ndim + 2],
            lambda axis: Gate(
                keep=f"C{axis}",
                statistics=["mean"],
                activation="sigmoid" if start == "paper" else "double_sigmoid",
            ),
        ),
    )


def triplet(*, kernel_size: int = 7, ndim: int = 2, start: Start = "paper") -> Par:
    """Triplet attention: the mean of x gated three ways, each without one of C, H and W.

    Each gate is σ(BN(conv_k[max ; mean] over that axis)), over the two others. Clips have four.
    Source: arXiv 2010.03045; landskape-ai/triplet-attention@2cf02fb.
    Elsewhere: one port has a ReLU before σ, so that gates are at least ½, and [mean ; max].
    """
    return Par(
        join="mean",
        **_each(
            "without",
            (*POSITIONS[ndim + 2], "C"),
            lambda axis: Gate(
                keep=all_but(axis, ndim),
                statistics=["max", "mean"],
                mix=PositionConv(
                    2,
                    ndim=ndim,
                    over=all_but(axis, ndim),
                    kernel_size=kernel_size,
                    norm_momentum=0.01,
                ),
                start=start,
            ),
        ),
    )


def project_excite(channels: int, *, reduction_ratio: int = 2, start: Start = "paper") -> Gate:
    """Project and Excite: σ(W1 ReLU(W0 p + b0) + b1), p the sum of the profiles along all axes.

    Source: arXiv 1906.04649; ai-med/squeeze_and_excitation@acdd26e (3-D).
    """
    check_positive("project_excite", "reduction_ratio", reduction_ratio)
    hidden = hidden_size(channels, reduction_ratio)
    return Gate(
        keep="CS",
        statistics=AxisMeans(),
        mix=Chain(
            reduce=Linear(channels, hidden),
            relu=Function("relu"),
            expand=Linear(hidden, channels),
        ),
        start=start,
    )


def _each(name: str, axes: Iterable[str], gate: Callable[[str], Gate]) -> dict[str, Any]:
    return {f"{name}_{axis}": gate(axis) for axis in axes}
