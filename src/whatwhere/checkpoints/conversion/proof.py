"""Both functions of a conversion on the same random input, in float64."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from whatwhere.checkpoints.conversion.equations import EQUATIONS
from whatwhere.gates import Dialect, build
from whatwhere.ops import implementation

# Of float64, for conversions that change no number; folding rounds to the dtype of the weights.
TOLERANCE = 1e-10
ROUNDINGS = 100

Function = Callable[[Tensor, bool], Tensor]


def foreign(dialect: Dialect, tensors: Mapping[str, Tensor]) -> Function:
    """What the module of another code base with these tensors computes."""
    wide = {key: tensor.to("cpu", torch.float64) for key, tensor in tensors.items()}
    return lambda x, training: EQUATIONS[dialect](wide, x, training)


def ours(
    channels: int, ndim: int, options: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Function:
    """What ``whatwhere.CBAM`` with these tensors computes."""

    def function(x: Tensor, training: bool) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            gate = build("cbam", channels, ndim=ndim, **options).double().train(training)
        gate.load_state_dict(dict(tensors))
        with implementation("reference"):
            y: Tensor = gate(x)
        return y

    return function


@torch.no_grad()
def error(
    source: Function, target: Function, channels: int, ndim: int, modes: tuple[bool, ...]
) -> float:
    """The largest difference of two functions, over the largest value, on random x.

    Args:
        source: one.
        target: the other.
        channels: of x.
        ndim: its position axes.
        modes: whether to compare in training mode, for each comparison.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (3, channels, *(9, 7, 5)[:ndim])
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    x = x * torch.tensor([0.1, 1.0, 5.0]).reshape(3, *(1,) * (ndim + 1))
    differences = [_difference(source(x, mode), target(x, mode)) for mode in modes]
    return torch.stack(differences).max().item()  # NaN if any is


def _difference(wanted: Tensor, got: Tensor) -> Tensor:
    return (wanted - got).abs().max() / wanted.abs().max().clamp(min=1e-30)


def check(worst: float, prefix: str, dtype: torch.dtype, *, rounded: bool) -> None:
    """Refuse a conversion whose functions differ.

    Raises:
        ValueError: they do, or one of them is not a number.
    """
    limit = ROUNDINGS * torch.finfo(dtype).eps if rounded else TOLERANCE
    if not worst <= limit:
        raise ValueError(
            f"convert: the CBAM {prefix!r} and what it was converted to differ by {worst:g} on "
            f"random input, expected at most {limit:g}; are all of its weights finite?"
        )
