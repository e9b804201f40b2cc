"""Gates of clips (N, C, T, H, W): when, and what and where by frame."""

from typing import Literal

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


def ma(channels: int, *, frames: int, reduction_ratio: int = 16, start: Start = "paper") -> Seq:
    """Multi-dimensional attention of spiking networks: when, then what, then where for all frames.

    Σ over mean and max of a shared two-layer network, over T, then over C; then a 3×3 convolution
    of [mean_CT ; max_CT]. The authors' ReLU after it belongs to the network, and is not part.
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


def aia(*, order: Literal["C-ST", "ST-C", "C+ST"] = "C-ST", start: Start = "paper") -> Seq | Par:
    """Attention in Attention, unnested: C, over (T, H, W), and ST, the mean of three more.

    Each is σ(BN(conv_3[max ; mean])): C pools the channels, ST the frames, rows and columns. One
    after another or, "C+ST", the mean of both.
    Source: arXiv 2204.09303; haoyanbin918/Attention-in-Attention@7910cd0. Its nested forms (one
    gate computed on the other's output, but applied to x) are left out.
    """
    check_choice("aia", "order", order, ("C-ST", "ST-C", "C+ST"))

    def gate(pooled: str) -> Gate:
        keep = "S" if pooled == "C" else all_but(pooled, 3)
        return Gate(
            keep=keep,
            statistics=["max", "mean"],
            mix=PositionConv(2, ndim=3, over=keep, kernel_size=3, norm_momentum=0.1),
            start=start,
        )

    over_channels = gate("C")
    others = Par(join="mean", frames=gate("T"), rows=gate("H"), columns=gate("W"))
    if order == "C+ST":
        return Par(join="mean", channels=over_channels, others=others)
    if order == "C-ST":
        return Seq(channels=over_channels, others=others)
    return Seq(others=others, channels=over_channels)


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
