"""Ours without the op around it: the compiled kernels alone, into outputs made beforehand.

They are ``cbam`` and ``cbam_backward`` of ``whatwhere.ops.cpu``, which take ``out``: memory for y
and for the gradient of x. Where kernels can't serve, the variant is absent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from whatwhere.bench.measure.specification import Weights
from whatwhere.bench.measure.timing import Call
from whatwhere.ops.implementations import kernels

STATISTICS = ["mean", "max"]


@dataclass(frozen=True)
class Kernels:
    """Two calls that allocate nothing of the size of x, and the values they leave."""

    forward: Call
    both: Call
    output: Tensor
    gradients: tuple[Tensor, ...]


def our_kernels(x: Tensor, dy: Tensor, weights: Weights) -> Kernels | str:
    """The kernels on this x, run once; or why there are none."""
    module = _module(x)
    if isinstance(module, str):
        return module
    reduce, expand, conv = (value.to(x.dtype) for value in weights.parameters())
    options: tuple[Any, ...] = (STATISTICS, STATISTICS, 1.0, 1.0)
    arguments = (reduce, None, expand, None, conv, None, *options)
    forward: Callable[..., Any] = module.cbam
    backward: Callable[..., Any] = module.cbam_backward
    y, saved = forward(x, *arguments, None, False)
    gradients = backward(dy, x, saved, *arguments, None)

    def run_forward() -> None:
        forward(x, *arguments, None, False, out=y)

    def run_both() -> None:
        _, saved = forward(x, *arguments, None, False, out=y)
        backward(dy, x, saved, *arguments, None, out=gradients[0])

    # dx, dw0, db0, dw1, db1, dwc, ...: those of biases are empty.
    return Kernels(run_forward, run_both, y, tuple(gradients[index] for index in (0, 1, 3, 5)))


def _module(x: Tensor) -> Any:
    module, reason = kernels()
    if module is not None:
        reason = module.unsupported("cbam", x, STATISTICS)
    return module if reason is None else reason
