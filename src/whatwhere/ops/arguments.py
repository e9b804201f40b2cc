"""What the public operations refuse, since the kernels read memory by these shapes."""

from collections.abc import Mapping, Sequence
from itertools import permutations

import torch
from torch import Tensor

from whatwhere.checks import check_choice, check_distinct, check_feature_map
from whatwhere.ops.reference import STATISTICS, Statistic, accumulation_dtype

RANKS = (3, 4, 5)
SCALES: dict[str, float] = {"sigmoid": 1.0, "double_sigmoid": 2.0}
# Every right choice of statistics, so that a right one is checked by one look.
_DISTINCT = frozenset(
    some for length in range(1, 1 + len(STATISTICS)) for some in permutations(STATISTICS, length)
)
Parameters = tuple[Tensor, Tensor | None, Tensor, Tensor | None, Tensor, Tensor | None]
_NAMES = (
    "reduce_weight",
    "reduce_bias",
    "expand_weight",
    "expand_bias",
    "conv_weight",
    "conv_bias",
)


def checked_statistics(
    op: str, x: Tensor, statistics: Sequence[Statistic]
) -> tuple[Statistic, ...]:
    """The statistics as a tuple, if they are distinct and known, and x is a feature map."""
    check_feature_map(op, x, RANKS)
    chosen = tuple(statistics)
    if chosen not in _DISTINCT or isinstance(statistics, str):
        check_distinct(op, "statistics", statistics, STATISTICS)
    return chosen


def checked_gate(op: str, name: str, gate: Tensor, x: Tensor, shape: Sequence[int]) -> Tensor:
    """The gate in the accumulation dtype, if it has the shape that broadcasts against x."""
    if gate.shape != torch.Size(shape):
        raise ValueError(
            f"{op}: expected {name} of shape {tuple(shape)} with x of shape {tuple(x.shape)}, "
            f"got {tuple(gate.shape)}"
        )
    return gate.to(accumulation_dtype(x.dtype))


def check_finish(
    op: str, x: Tensor, residual: Tensor | None, activation: str | None, inplace: bool
) -> bool:
    """Whether there is a ReLU, if that, the residual and ``inplace`` are possible."""
    if residual is not None and (residual.shape != x.shape or residual.dtype != x.dtype):
        raise ValueError(
            f"{op}: expected residual like x, of shape {tuple(x.shape)} and dtype {x.dtype}, "
            f"got {tuple(residual.shape)} and {residual.dtype}"
        )
    if activation is not None and activation != "relu":
        check_choice(op, "activation", activation, ("relu", None))
    if inplace and torch.is_grad_enabled():
        raise ValueError(
            f"{op}: expected inplace=True only under torch.no_grad(): the gradient needs x"
        )
    return activation is not None


def scale_of(name: str, activation: str) -> float:
    """The factor before σ of a gate's activation."""
    if activation not in SCALES:
        check_choice("cbam", name, activation, tuple(SCALES))
    return SCALES[activation]


def check_parameters(x: Tensor, parameters: Parameters, maps: int) -> None:
    """Refuse parameters of ``cbam`` whose shapes or dtypes do not fit x, or each other."""
    w0, b0, w1, b1, wc, bc = parameters
    channels, hidden = x.shape[1], w0.shape[0]
    one, planes, *sizes = wc.shape
    right = (
        w0.shape == (hidden, channels)
        and w1.shape == (channels, hidden)
        and (b0 is None or b0.shape == (hidden,))
        and (b1 is None or b1.shape == (channels,))
        and one == 1
        and planes == maps
        and len(sizes) == x.ndim - 2
        and (bc is None or bc.shape == (1,))
    )
    for size in sizes:
        right = right and size % 2 == 1
    if not right:
        got = _listed({n: tuple(p.shape) for n, p in _given(parameters)})
        raise ValueError(
            f"cbam: expected reduce_weight (hidden, C), expand_weight (C, hidden), conv_weight "
            f"(1, {maps}, *K) of odd K with x of shape {tuple(x.shape)}, and biases (hidden,), "
            f"(C,), (1,), got {got}"
        )
    dtype = x.dtype
    for parameter in parameters:
        if (
            parameter is not None
            and parameter.dtype != dtype
            and accumulation_dtype(parameter.dtype) != accumulation_dtype(dtype)
        ):
            got = _listed({n: p.dtype for n, p in _given(parameters)})
            raise ValueError(
                f"cbam: expected parameters of x's dtype {x.dtype}, or all in float32 or half "
                f"precision, got {got}"
            )


def _given(parameters: Parameters) -> list[tuple[str, Tensor]]:
    return [(n, p) for n, p in zip(_NAMES, parameters, strict=True) if p is not None]


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
