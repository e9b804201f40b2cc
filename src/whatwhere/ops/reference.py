"""The specification: pooling, activation and application of gates in plain PyTorch."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

Statistic = Literal["mean", "max"]
ActivationName = Literal["sigmoid", "double_sigmoid", "identity"]

STATISTICS: tuple[Statistic, ...] = get_args(Statistic)
ACTIVATIONS: tuple[ActivationName, ...] = get_args(ActivationName)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums over values of ``dtype`` run: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def pool(x: Tensor, axes: Sequence[int], statistics: Sequence[Statistic]) -> tuple[Tensor, ...]:
    """Summarise x over some of its axes, one descriptor per statistic.

    mean = (1/P) Σ_p x_p and max = max_p x_p, over the P elements of the pooled axes.

    Args:
        x: floating-point tensor.
        axes: the axes to pool, which stay as size 1.
        statistics: "mean" and "max" in any order.

    Returns:
        One tensor per statistic in the order given, in ``accumulation_dtype(x.dtype)``.

    Raises:
        ValueError: the pooled axes hold no element.

    >>> x = torch.tensor([[[1.0, 5.0], [2.0, 0.0]]])                      # (N, C, L) = (1, 2, 2)
    >>> pool(x, axes=[2], statistics=["mean", "max"])
    (tensor([[[3.], [1.]]]), tensor([[[5.], [2.]]]))
    """
    if any(x.shape[axis] == 0 for axis in axes):
        raise ValueError(
            f"pool: expected at least one element on each pooled axis {tuple(axes)}, "
            f"got x of shape {tuple(x.shape)}"
        )
    dtype = accumulation_dtype(x.dtype)
    descriptors = []
    for statistic in statistics:
        if statistic == "mean":
            descriptors.append(x.mean(dim=tuple(axes), keepdim=True, dtype=dtype))
        else:
            descriptors.append(_first_maximum(x, axes).to(dtype))
    return tuple(descriptors)


def _first_maximum(x: Tensor, axes: Sequence[int]) -> Tensor:
    # max(dim) gives its gradient to the first maximum; amax would split it between equal ones.
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    rows = x.permute(*kept, *axes).flatten(start_dim=len(kept))
    shape = [1 if axis in axes else x.shape[axis] for axis in range(x.ndim)]
    return rows.max(dim=-1).values.reshape(shape)


def activate(logits: Tensor, activation: ActivationName) -> Tensor:
    """Squash logits to a gate: σ(z) in (0, 1), 2σ(z) in (0, 2), or z itself.

    2σ is the gate that starts a network unchanged, since 2σ(0) = 1.

    >>> activate(torch.zeros(1), "double_sigmoid")
    tensor([1.])
    """
    if activation == "sigmoid":
        return logits.sigmoid()
    if activation == "double_sigmoid":
        return 2 * logits.sigmoid()
    return logits


def apply_gate(x: Tensor, gate: Tensor) -> Tensor:
    """Multiply x by a gate that broadcasts against it; the result has the dtype of x.

    >>> apply_gate(torch.ones(1, 2, 2), torch.tensor([[[0.5], [1.0]]]))
    tensor([[[0.5000, 0.5000], [1.0000, 1.0000]]])
    """
    return x * gate.to(x.dtype)
