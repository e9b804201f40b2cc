"""The two ways gates mix their descriptors: a shared two-layer network, and a convolution."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whatwhere.checks import check_axis_size, check_feature_map, check_odd, check_positive
from whatwhere.gates.algebra import Keep, Mix
from whatwhere.ops import Statistic, accumulation_dtype, two_layers

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

    def check_gate(self, owner: str, keep: Keep, statistics: Sequence[Statistic]) -> None:
        """Refuse a gate that keeps another axis."""
        expected = "C" if self.axis == 1 else "T"
        if keep != expected:
            raise ValueError(
                f'{owner}: expected keep="{expected}" with a DenseMix of axis {self.axis}, '
                f"got {keep=}"
            )

    def check(self, owner: str, x: Tensor) -> None:
        """Refuse an x of another dtype, or whose kept axis has another length."""
        _check_dtype(owner, x, self.reduce.weight)
        name = "channels" if self.axis == 1 else "frames"
        check_axis_size(owner, x, self.axis, name, self.reduce.in_features)

    def forward(self, descriptors: Sequence[Tensor]) -> Tensor:
        """Descriptors (N, C, 1, ...) or (N, 1, T, ...) to logits of the same shape."""
        w0, b0 = _promoted(self.reduce)
        w1, b1 = _promoted(self.expand)
        return two_layers(descriptors, w0, b0, w1, b1)

    def zero_logits(self) -> None:
        """Zero W1 and b1: the hidden layer still gives W1 a gradient."""
        nn.init.zeros_(self.expand.weight)
        if self.expand.bias is not None:
            nn.init.zeros_(self.expand.bias)


class PositionConv(Mix):
    """A convolution over the kept positions whose input channels are the descriptors.

    Args:
        descriptors: how many descriptors there are.
        ndim: position axes of the convolution: 1 for L or T, 2 for H, W, 3 for T, H, W.
        kernel_size: odd, one for all axes or one per axis; zero padding keeps the size.
        bias: whether the convolution has one.
        norm_momentum: momentum of a batch norm after the convolution; None for no norm.

    >>> PositionConv(2, ndim=2, kernel_size=7)([torch.ones(1, 1, 5, 4)] * 2).shape
    torch.Size([1, 1, 5, 4])
    """

    def __init__(
        self,
        descriptors: int,
        *,
        ndim: int,
        kernel_size: int | Sequence[int],
        bias: bool = False,
        norm_momentum: float | None = None,
    ) -> None:
        sizes = tuple(kernel_size) if isinstance(kernel_size, Sequence) else (kernel_size,) * ndim
        check_odd("PositionConv", "kernel_size", sizes)
        if len(sizes) != ndim:
            raise ValueError(
                f"PositionConv: expected {ndim} kernel sizes, one per position axis, got {sizes}"
            )
        super().__init__()
        self.ndim = ndim
        self.any_rank = False
        convolution: Any = CONVOLUTIONS[ndim]
        padding = tuple(size // 2 for size in sizes)
        self.conv = convolution(descriptors, 1, sizes, padding=padding, bias=bias)
        self.norm = None if norm_momentum is None else BATCH_NORMS[ndim](1, momentum=norm_momentum)

    def check_gate(self, owner: str, keep: Keep, statistics: Sequence[Statistic]) -> None:
        """Refuse a gate over channels, over frames unless 1-D, and of other statistics."""
        if keep == "C" or (keep == "T" and self.ndim != 1):
            raise ValueError(
                f'{owner}: expected keep="S", or "T" with ndim=1, with a PositionConv, got {keep=} '
                f"with ndim={self.ndim}"
            )
        if len(statistics) != self.conv.in_channels:
            raise ValueError(
                f"{owner}: expected {self.conv.in_channels} statistics, the convolution's input "
                f"channels, got {len(statistics)}"
            )
        self.any_rank = keep == "T"

    def check(self, owner: str, x: Tensor) -> None:
        """Refuse an x of another dtype or rank; over T alone, (N, C, L) and clips both go."""
        _check_dtype(owner, x, self.conv.weight)
        if not self.any_rank:
            check_feature_map(owner, x, (self.ndim + 2,))

    def forward(self, descriptors: Sequence[Tensor]) -> Tensor:
        """Descriptors (N, 1, *positions) to logits of the same shape."""
        stacked = torch.cat(list(descriptors), dim=1)
        if self.ndim == 1:
            stacked = stacked.flatten(2)  # (N, K, T, 1, 1) -> (N, K, T)
        weight, bias = _promoted(self.conv)
        logits: Tensor = CONVOLVE[self.ndim](stacked, weight, bias, padding=self.conv.padding)
        if self.norm is not None:
            logits = self.norm(logits.to(self.norm.weight.dtype))
        return logits.reshape(descriptors[0].shape)

    def zero_logits(self) -> None:
        """Zero the last affine layer: the norm if there is one, else the convolution.

        A zero convolution before a batch norm would have its gradient scaled by 1/sqrt(eps).
        """
        last = self.conv if self.norm is None else self.norm
        nn.init.zeros_(last.weight)
        if last.bias is not None:
            nn.init.zeros_(last.bias)


def _promoted(layer: Any) -> tuple[Tensor, Tensor | None]:
    # Descriptors come in float32 at least; half-precision parameters are widened to meet them.
    dtype = accumulation_dtype(layer.weight.dtype)
    return layer.weight.to(dtype), None if layer.bias is None else layer.bias.to(dtype)


def _check_dtype(owner: str, x: Tensor, parameter: Tensor) -> None:
    if accumulation_dtype(x.dtype) != accumulation_dtype(parameter.dtype):
        raise ValueError(
            f"{owner}: expected x of the parameters' dtype {parameter.dtype}, or both in float32 "
            f"or half precision, got {x.dtype}"
        )
