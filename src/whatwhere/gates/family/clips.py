"""Gates of clips (N, C, T, H, W): when, and what and where by frame."""

from typing import Any, Literal, cast

from torch import nn

from whatwhere.checks import check_choice, check_positive
from whatwhere.gates.algebra import Gate, Start
from whatwhere.gates.attention import (
    ChannelAttention,
    SpatialAttention,
    TemporalAttention,
    hidden_size,
)
from whatwhere.gates.axes import all_but
from whatwhere.gates.composition import Seq
from whatwhere.gates.describe import Motion
from whatwhere.gates.layers import Chain, Conv, Function, Linear, Shared
from whatwhere.gates.mixes import PositionConv
from whatwhere.gates.norms import BatchNorm
from whatwhere.gates.parallel import Par, Split

AIA_ORDERS = ("C-ST", "ST-C", "C+ST", "CinST", "STinC", "C", "ST")
THREE = ("frames", "rows", "columns")  # what the gates of ST don't keep


def ma(channels: int, *, frames: int, reduction_ratio: int = 16, start: Start = "paper") -> Seq:
    """Multi-dimensional attention of spiking networks: when, then what, then where for all frames.

    σ(Σ_d W1 ReLU(W0 d)) over d = mean and max, of T, then of C; then σ(conv_3×3[mean ; max]) over
    C and T, one map for all frames. The authors' ReLU after it is the network's, and not part.
    Source: Attention-SNN; BICLab/Attention-SNN@ad80e7b (TCSA).
    """
    return Seq(
        temporal=TemporalAttention(
            form="dense", frames=frames, reduction_ratio=reduction_ratio, start=start
        ),
        channel=ChannelAttention(channels, reduction_ratio=reduction_ratio, start=start),
        spatial=Gate(
            keep="HW",
            statistics=["mean", "max"],
            mix=PositionConv(2, ndim=2, over="HW", kernel_size=3),
            start=start,
        ),
    )


def tab(channels: int, *, frames: int, reduction_ratio: int = 16, start: Start = "paper") -> Seq:
    """TabAttention, MLP form: CBAM of every frame, then when, by a shared network T → T/2 → T.

    Source: arXiv 2310.18129; SanoScience/TabAttention@1a57920. Its other form, with multi-head
    attention over frames, is no gate of this algebra.
    """
    check_positive("tab", "reduction_ratio", reduction_ratio)
    hidden = hidden_size(channels, reduction_ratio)
    return Seq(
        channel=Gate(
            keep="CT",
            statistics=["mean", "max"],
            mix=Shared(
                Chain(
                    reduce=Linear(channels, hidden),
                    relu=Function("relu"),
                    expand=Linear(hidden, channels),
                )
            ),
            start=start,
        ),
        spatial=SpatialAttention(
            ndim=3,
            kernel_size=(1, 7, 7),
            statistics=["max", "mean"],
            norm_momentum=0.01,
            start=start,
        ),
        temporal=TemporalAttention(
            form="dense", frames=frames, reduction_ratio=2, bias=True, start=start
        ),
    )


def aia(
    *,
    order: Literal["C-ST", "ST-C", "C+ST", "CinST", "STinC", "C", "ST"] = "C-ST",
    start: Start = "paper",
) -> nn.Module:
    """Attention in Attention: C, over (T, H, W), and ST, the mean of three more.

    Each is σ(BN(conv_3[max ; mean])): C pools the channels, ST the frames, rows and columns. Alone,
    one after another, "C+ST" as the mean of both, or one inside the other: "CinST" gates x by ST
    of the output of C.
    Source: arXiv 2204.09303; haoyanbin918/Attention-in-Attention@7910cd0.
    """
    check_choice("aia", "order", order, AIA_ORDERS)
    alone = {"C": _without_channels, "ST": _without_one_axis}
    if order in alone:
        return alone[order](start=start)
    if order == "CinST":
        return _without_one_axis(start=start, source=_without_channels(start=start))
    if order == "STinC":
        return _without_channels(start=start, source=_without_one_axis(start=start))
    gates = {name: alone[name](start=start) for name in order.replace("+", "-").split("-")}
    return Par(join="mean", **cast(Any, gates)) if "+" in order else Seq(**gates)


def _without_channels(*, start: Start, source: nn.Module | None = None) -> Gate:
    return _pooling("C", start, source)


def _without_one_axis(*, start: Start, source: nn.Module | None = None) -> Par:
    gates = {name: _pooling(axis, start) for axis, name in zip("THW", THREE, strict=True)}
    return Par(join="mean", source=source, **cast(Any, gates))


def _pooling(axis: str, start: Start, source: nn.Module | None = None) -> Gate:
    keep = all_but(axis, 3)
    return Gate(
        keep="S" if axis == "C" else keep,
        statistics=["max", "mean"],
        mix=PositionConv(
            2, ndim=3, over="S" if axis == "C" else keep, kernel_size=3, norm_momentum=0.1
        ),
        source=source,
        start=start,
    )


def group_context(channels: int, *, start: Start = "paper") -> Split:
    """Group Contextualization: four shares of the channels, each with a context of its own.

    Local σ(BN(conv_T x)), temporal σ(BN(conv_T mean_HW)), spatial σ(conv_HW mean_T), 3×3 dilated by
    2 and without the norm that its authors build but do not call, and global σ(BN(W mean)).
    Source: arXiv 2203.09694; haoyanbin918/Group-Contextualization@b99be50.
    """
    if channels % 4:
        raise ValueError(f"group_context: expected channels that 4 gates share, got {channels}")
    share = channels // 4
    return Split(
        channels,
        local=Gate(
            keep="CS",
            statistics=["identity"],
            mix=Chain(
                conv=Conv(share, share, over="S", kernel_size=(3, 1, 1)), norm=BatchNorm(share)
            ),
            start=start,
        ),
        temporal=Gate(
            keep="CT",
            statistics=["mean"],
            mix=Chain(conv=Conv(share, share, over="T", kernel_size=(3,)), norm=BatchNorm(share)),
            start=start,
        ),
        spatial=Gate(
            keep="CHW",
            statistics=["mean"],
            mix=Conv(share, share, over="HW", kernel_size=(3, 3), dilation=2),
            start=start,
        ),
        everywhere=Gate(
            keep="C",
            statistics=["mean"],
            mix=Chain(expand=Linear(share, share, bias=False), norm=BatchNorm(share)),
            start=start,
        ),
    )


def tea(channels: int, *, reduction_ratio: int = 16, start: Start = "paper") -> Gate:
    """Motion Excitation of TEA: ½ + σ(BN(W mean_HW m)), m the change between frames.

    x + x (σ - ½), the authors' form, is that. m = (f * z)_{t+1} - z_t, z = BN(W' x), 0 at the end.
    Source: arXiv 2004.01398; Phoenix1327/tea-action-recognition@f59e2f8.
    """
    check_positive("tea", "reduction_ratio", reduction_ratio)
    hidden = hidden_size(channels, reduction_ratio)
    return Gate(
        source=Motion(channels, hidden),
        keep="CT",
        statistics=["mean"],
        mix=Chain(expand=Linear(hidden, channels, bias=False), norm=BatchNorm(channels)),
        activation="half_plus_sigmoid",
        start=start,
    )


def action(channels: int, *, reduction_ratio: int = 16, start: Start = "paper") -> Par:
    """ACTION-Net: the sum of x (1 + σ) for a spatio-temporal, a channel and a motion gate.

    σ(conv_THW mean_C), σ(W1 ReLU(conv_T W0 mean_HW)), σ(W3 mean_HW m) with m as in ``tea``. The
    shift of channels before it is not part. From the identity: the mean of gates ½ + σ.
    Source: arXiv 2103.07372; V-Sense/ACTION-Net@3122b11.
    """
    check_positive("action", "reduction_ratio", reduction_ratio)
    hidden = hidden_size(channels, reduction_ratio)
    return Par(
        join="sum" if start == "paper" else "mean",
        positions=Gate(
            keep="S",
            statistics=["mean"],
            mix=PositionConv(1, ndim=3, kernel_size=3),
            activation="one_plus_sigmoid",
            start=start,
        ),
        channels=Gate(
            keep="CT",
            statistics=["mean"],
            mix=Chain(
                reduce=Linear(channels, hidden, bias=False),
                conv=Conv(hidden, hidden, over="T", kernel_size=(3,)),
                relu=Function("relu"),
                expand=Linear(hidden, channels, bias=False),
            ),
            activation="one_plus_sigmoid",
            start=start,
        ),
        motion=Gate(
            source=Motion(channels, hidden),
            keep="CT",
            statistics=["mean"],
            mix=Linear(hidden, channels, bias=False),
            activation="one_plus_sigmoid",
            start=start,
        ),
    )


def tam(channels: int, *, reduction_ratio: int = 4, start: Start = "paper") -> Gate:
    """The local branch of TAM: σ(W ReLU(BN(conv_T mean_HW))), over frames and channels.

    The global branch, a kernel over frames for each clip, is no gate.
    Source: arXiv 2005.06803; liu-zhy/temporal-adaptive-module@5fcb46f.
    """
    check_positive("tam", "reduction_ratio", reduction_ratio)
    hidden = hidden_size(channels, reduction_ratio)
    return Gate(
        keep="CT",
        statistics=["mean"],
        mix=Chain(
            conv=Conv(channels, hidden, over="T", kernel_size=(3,)),
            norm=BatchNorm(hidden),
            relu=Function("relu"),
            expand=Linear(hidden, channels, bias=False),
        ),
        start=start,
    )
