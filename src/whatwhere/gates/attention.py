"""The named gates with one kind each: channel (what), spatial (where) and temporal (when)."""

from collections.abc import Sequence
from typing import Literal, get_args

from whatwhere.checks import check_choice, check_positive
from whatwhere.gates.activations import ActivationName
from whatwhere.gates.algebra import Gate, Mix, Start
from whatwhere.gates.mixes import DenseMix, PositionConv
from whatwhere.ops import Statistic

Rounding = Literal["floor", "nearest"]
Form = Literal["dense", "conv"]


def hidden_size(size: int, reduction_ratio: int, rounding: Rounding = "floor") -> int:
    """Width of the shared network's hidden layer: size / reduction_ratio rounded, at least 1.

    >>> hidden_size(64, 16), hidden_size(8, 16), hidden_size(24, 16, "nearest")
    (4, 1, 2)
    """
    quotient = size / reduction_ratio
    return max(1, int(quotient + 0.5) if rounding == "nearest" else int(quotient))


class ChannelAttention(Gate):
    r"""*What* to attend to: Mc = σ(W1 ReLU(W0 mean_S x) + W1 ReLU(W0 max_S x)), y = x · Mc.

    S are all positions: L, H×W or T×H×W. W0 is (C/r, C), W1 is (C, C/r), shared by both
    descriptors. Source: CBAM (arXiv 1807.06521), equation 2; with ``statistics=["mean"]`` and
    ``bias=True`` it is Squeeze-and-Excitation (arXiv 1709.01507).

    Args:
        channels: C.
        reduction_ratio: r; the hidden layer has ``hidden_size(C, r, rounding)`` units.
        statistics: descriptors, any of "mean", "max", "std" and "l2".
        bias: whether the two layers have biases.
        rounding: of C/r: "floor" as in the authors' code, "nearest" as in timm.
        activation: σ, or "identity" for a gate that a ``Par`` joins by logits.
        start: "identity" makes y = x until trained.

    Shapes: x is (N, C, L), (N, C, H, W) or (N, C, T, H, W); Mc is (N, C, 1, ...).

    Raises:
        ValueError: from x of another rank or channel count, or from a bad argument.

    >>> import torch
    >>> attention = ChannelAttention(64)
    >>> x = torch.randn(2, 64, 8, 8)
    >>> attention.gate(x).shape, torch.equal(attention(x), x * attention.gate(x))
    (torch.Size([2, 64, 1, 1]), True)

    Where a clip's frames are stacked as channels, as in many articles on "temporal attention",
    this is the temporal gate: one weight per frame.

    >>> grey_clip = torch.randn(2, 30, 16, 16)                            # (N, T, H, W)
    >>> ChannelAttention(30, reduction_ratio=2).gate(grey_clip).shape
    torch.Size([2, 30, 1, 1])
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction_ratio: int = 16,
        statistics: Sequence[Statistic] = ("mean", "max"),
        bias: bool = False,
        rounding: Rounding = "floor",
        activation: ActivationName = "sigmoid",
        start: Start = "paper",
    ) -> None:
        owner = type(self).__name__
        check_positive(owner, "channels", channels)
        check_positive(owner, "reduction_ratio", reduction_ratio)
        check_choice(owner, "rounding", rounding, get_args(Rounding))
        hidden = hidden_size(channels, reduction_ratio, rounding)
        super().__init__(
            keep="C",
            statistics=statistics,
            mix=DenseMix(channels, hidden=hidden, bias=bias),
            activation=activation,
            start=start,
        )


class SpatialAttention(Gate):
    r"""*Where* to attend: Ms = σ(f^{k×k}([mean_C x ; max_C x])), y = x · Ms.

    f is a convolution from the descriptors, stacked as channels, to one map, with zero padding
    that keeps the size. Source: CBAM (arXiv 1807.06521), equation 3.

    Args:
        kernel_size: odd k for all position axes, or one per axis: ``(1, 7, 7)`` gates each frame
            of a clip by itself.
        ndim: position axes: 1 for (N, C, L), 2 for (N, C, H, W), 3 for (N, C, T, H, W).
        statistics: descriptors in the order of the convolution's input channels.
        bias: whether the convolution has one.
        norm_momentum: momentum of a batch norm after the convolution, None for no norm.
        activation: σ, or "identity" for a gate that a ``Par`` joins by logits.
        start: "identity" makes y = x until trained.

    Shapes: Ms is (N, 1, *positions).

    Raises:
        ValueError: from x of another rank, an even kernel size or another bad argument.

    >>> import torch
    >>> SpatialAttention().gate(torch.randn(2, 64, 8, 8)).shape
    torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        *,
        kernel_size: int | Sequence[int] = 7,
        ndim: int = 2,
        statistics: Sequence[Statistic] = ("mean", "max"),
        bias: bool = False,
        norm_momentum: float | None = None,
        activation: ActivationName = "sigmoid",
        start: Start = "paper",
    ) -> None:
        check_choice(type(self).__name__, "ndim", ndim, (1, 2, 3))
        super().__init__(
            keep="S",
            statistics=statistics,
            mix=PositionConv(
                len(statistics),
                ndim=ndim,
                kernel_size=kernel_size,
                bias=bias,
                norm_momentum=norm_momentum,
            ),
            activation=activation,
            start=start,
        )


class TemporalAttention(Gate):
    r"""*When* to attend: Mt = σ(mix(mean x, max x)), y = x · Mt, one weight per frame.

    The descriptors pool everything but the frames: C, H and W of (N, C, T, H, W), C of (N, C, L).
    Two forms of mixing:

    * "conv", for any number of frames: Mt = σ(f^k([mean ; max])), a 1-D convolution over T.
    * "dense", for a fixed number: Mt = σ(W1 ReLU(W0 mean) + W1 ReLU(W0 max)), a network shared by
      both descriptors, as in MA-SNN (BICLab/Attention-SNN@ad80e7b) and the MLP form of
      TabAttention (arXiv 2310.18129).

    Args:
        form: "conv" or "dense".
        kernel_size: odd k of the conv form, 3 if not given.
        frames: T of the dense form, required there.
        reduction_ratio: r of the dense form, 2 if not given.
        statistics: descriptors, any of "mean", "max", "std" and "l2".
        bias: whether the mixing layers have biases.
        activation: σ, or "identity" for a gate that a ``Par`` joins by logits.
        start: "identity" makes y = x until trained.

    Shapes: Mt is (N, 1, T, 1, 1) or (N, 1, L).

    Raises:
        ValueError: from x of another rank or, in the dense form, of another T; from an argument
            that belongs to the other form.

    >>> import torch
    >>> clip = torch.randn(2, 8, 12, 5, 5)
    >>> TemporalAttention().gate(clip).shape
    torch.Size([2, 1, 12, 1, 1])
    >>> TemporalAttention(form="dense", frames=12)(clip).shape
    torch.Size([2, 8, 12, 5, 5])
    """

    def __init__(
        self,
        *,
        form: Form = "conv",
        kernel_size: int | None = None,
        frames: int | None = None,
        reduction_ratio: int | None = None,
        statistics: Sequence[Statistic] = ("mean", "max"),
        bias: bool = False,
        activation: ActivationName = "sigmoid",
        start: Start = "paper",
    ) -> None:
        owner = type(self).__name__
        check_choice(owner, "form", form, get_args(Form))
        mix: Mix
        if form == "conv":
            _refuse(owner, form, frames=frames, reduction_ratio=reduction_ratio)
            size = 3 if kernel_size is None else kernel_size
            mix = PositionConv(len(statistics), ndim=1, kernel_size=size, over="T", bias=bias)
        else:
            _refuse(owner, form, kernel_size=kernel_size)
            if frames is None:
                raise ValueError(f'{owner}: expected frames with form="dense", got none')
            check_positive(owner, "frames", frames)
            ratio = 2 if reduction_ratio is None else reduction_ratio
            check_positive(owner, "reduction_ratio", ratio)
            mix = DenseMix(frames, hidden=hidden_size(frames, ratio), bias=bias, axis=2)
        super().__init__(
            keep="T", statistics=statistics, mix=mix, activation=activation, start=start
        )


def _refuse(owner: str, form: Form, **arguments: int | None) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(
                f'{owner}: expected no {name} with form="{form}", which has none, got {value!r}'
            )
