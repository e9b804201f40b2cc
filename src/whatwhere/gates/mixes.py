"""The two ways gates mix their descriptors: a shared two-layer network, and a convolution."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whatwhere.checks import (
    check_axis_size,
    check_choice,
    check_feature_map,
    check_odd,
    check_positive,
)
from whatwhere.gates.algebra import Mix
from whatwhere.gates.axes import axes_of, check_keep, ranks_of
from whatwhere.ops import accumulation_dtype, two_layers

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
CONVOLVE: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
BATCH_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class DenseMix(Mix):
    """One two-layer network shared by all descriptors: logits = Σ_d W1 ReLU(W0 d + b0) + b1.

    With b1 it enters once per descriptor, as in the authors' code.

    Args:
        size: length of the kept axis, C or T.
        hidden: width of the hidden layer.
        bias: whether the layers have b0 and b1.
        axis: which axis of x has that length, 1 for channels and 2 for frames.

    >>> DenseMix(16, hidden=1)([torch.ones(2, 16, 1, 1), torch.zeros(2, 16, 1, 1)]).shape
    torch.Size([2, 16, 1, 1])
    """

    def __init__(self, size: int, *, hidden: int, bias: bool = False, axis: int = 1) -> None:
        check_positive("DenseMix", "size", size)
        check_positive("DenseMix", "hidden", hidden)
        super().__init__()
        self.axis = axis
        self.reduce = nn.Linear(size, hidden, bias=bias)
        self.expand = nn.Linear(hidden, size, bias=bias)

    def check_gate(self, owner: str, keep: str, statistics: int) -> None:
        """Refuse a gate that keeps another axis."""
        expected = "C" if self.axis == 1 else "T"
        if keep != expected:
            raise ValueError(
                f'{owner}: expected keep="{expected}" with a DenseMix of axis {self.axis}, '
                f"got {keep=}"
            )

    def check(self, owner: str, x: Tensor) -> None:
        """Refuse an x of another dtype, or whose kept axis has another length."""
        super().check(owner, x)
        name = "channels" if self.axis == 1 else "frames"
        check_axis_size(owner, x, self.axis, name, self.reduce.in_features)

    def forward(self, descriptors: Sequence[Tensor]) -> Tensor:
        """Descriptors (N, C, 1, ...) or (N, 1, T, ...) to logits of the same shape."""
        w0, b0 = promoted(self.reduce)
        w1, b1 = promoted(self.expand)
        return two_layers(descriptors, w0, b0, w1, b1)

    def constant_logits(self, value: float) -> None:
        """Set W1 and b1: the hidden layer still gives W1 a gradient."""
        set_constant(self.expand, value)


class PositionConv(Mix):
    """A convolution over the kept axes whose input channels are the descriptors.

    Args:
        descriptors: how many descriptors there are.
        ndim: axes of the convolution, as many as the gate keeps.
        kernel_size: odd, one for all axes or one per axis; padding keeps the size.
        over: the axes, by letter as in ``Gate``; C may be one of them.
        bias: whether the convolution has one.
        norm_momentum: momentum of a batch norm after the convolution; None for no norm.
        padding_mode: "zeros", or "circular", where the axes are closed to rings.

    >>> PositionConv(2, ndim=2, kernel_size=7)([torch.ones(1, 1, 5, 4)] * 2).shape
    torch.Size([1, 1, 5, 4])
    >>> along_channels = PositionConv(1, ndim=1, kernel_size=3, over="C")
    >>> along_channels([torch.ones(1, 8, 1, 1)]).shape
    torch.Size([1, 8, 1, 1])
    """

    def __init__(
        self,
        descriptors: int,
        *,
        ndim: int,
        kernel_size: int | Sequence[int],
        over: str = "S",
        bias: bool = False,
        norm_momentum: float | None = None,
        padding_mode: Literal["zeros", "circular"] = "zeros",
    ) -> None:
        sizes = tuple(kernel_size) if isinstance(kernel_size, Sequence) else (kernel_size,) * ndim
        check_odd("PositionConv", "kernel_size", sizes)
        check_keep("PositionConv", over)
        check_choice("PositionConv", "padding_mode", padding_mode, ("zeros", "circular"))
        if len(sizes) != ndim or ("S" not in over and len(over) != ndim):
            raise ValueError(
                f"PositionConv: expected {ndim} kernel sizes, one per axis of the "
                f"convolution, and as many axes, got {sizes} over {over!r}"
            )
        super().__init__()
        self.ndim = ndim
        self.over = over
        self.ranks = [rank for rank in ranks_of(over) if len(axes_of(over, rank)) == ndim]
        convolution: Any = CONVOLUTIONS[ndim]
        padding = tuple(size // 2 for size in sizes)
        self.conv = convolution(
            descriptors, 1, sizes, padding=padding, bias=bias, padding_mode=padding_mode
        )
        self.norm = None if norm_momentum is None else BATCH_NORMS[ndim](1, momentum=norm_momentum)

    def check_gate(self, owner: str, keep: str, statistics: int) -> None:
        """Refuse a gate over other axes, and of other statistics."""
        if set(keep) != set(self.over):
            raise ValueError(
                f'{owner}: expected keep="{self.over}" with a PositionConv over these axes, '
                f"got {keep=}"
            )
        if statistics != self.conv.in_channels:
            raise ValueError(
                f"{owner}: expected {self.conv.in_channels} statistics, the convolution's input "
                f"channels, got {statistics}"
            )

    def check(self, owner: str, x: Tensor) -> None:
        """Refuse an x of another dtype or rank."""
        super().check(owner, x)
        check_feature_map(owner, x, self.ranks)

    def forward(self, descriptors: Sequence[Tensor]) -> Tensor:
        """Descriptors, of size 1 on all but the kept axes, to logits of the same shape."""
        first = descriptors[0]
        sizes = [first.shape[axis] for axis in axes_of(self.over, first.ndim)]
        stacked = torch.stack([each.reshape(-1, *sizes) for each in descriptors], dim=1)
        weight, bias = promoted(self.conv)
        logits: Tensor = convolve(stacked, weight, bias, self.conv)
        if self.norm is not None:
            logits = self.norm(logits.to(self.norm.weight.dtype))
        return logits.reshape(first.shape)

    def constant_logits(self, value: float) -> None:
        """Set the last affine layer: the norm if there is one, else the convolution.

        A zero convolution before a batch norm would have its gradient scaled by 1/sqrt(eps).
        """
        set_constant(self.conv if self.norm is None else self.norm, value)

    def extra_repr(self) -> str:
        """The axes, for printing."""
        return f"over={self.over!r}"


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, layer: Any) -> Tensor:
    """The convolution of a layer with weights given, say in another dtype than its own."""
    ndim, padding = len(layer.kernel_size), layer.padding
    if layer.padding_mode == "circular":
        ends = [end for size in reversed(padding) for end in (size, size)]
        x, padding = _closed(x, ends), 0
    result: Tensor = CONVOLVE[ndim](
        x, weight, bias, padding=padding, dilation=layer.dilation, groups=layer.groups
    )
    return result


def _closed(x: Tensor, ends: Sequence[int]) -> Tensor:
    # Not F.pad: it goes around once at most, and kernels may be longer than the axis.
    for place, axis in enumerate(range(x.ndim - 1, 1, -1)):
        before, after = ends[2 * place : 2 * place + 2]
        size = x.shape[axis]
        index = torch.arange(-before, size + after, device=x.device) % size
        x = x.index_select(axis, index)
    return x


def promoted(layer: Any) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a layer, in the dtype that descriptors come in: float32 at least."""
    dtype = accumulation_dtype(layer.weight.dtype)
    return layer.weight.to(dtype), None if layer.bias is None else layer.bias.to(dtype)


def set_constant(layer: Any, value: float) -> None:
    """Have an affine layer give one value, whatever it is given.

    Raises:
        ValueError: that is not 0, and the layer has no bias.
    """
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.constant_(layer.bias, value)
    elif value != 0:
        raise ValueError(f"its last layer has no bias to be {value:g}")
