"""Adaptive average pooling as a product of matrices, which every exporter gets right.

The ONNX translation of torch 2.14 fixes the windows of adaptive pooling at those of the traced
size, and its values are then wrong at every other, without a word. Windows worked out from the
size, in the graph, are right at all of them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram, default_decompositions


def adaptive_average(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """y = x averaged to ``sizes`` on its last axes, as ``F.adaptive_avg_pool2d`` does it.

    Along an axis of length L averaged to n, entry i is the mean of the positions from ⌊iL/n⌋ on,
    before ⌈(i+1)L/n⌉: a product with a matrix of n rows, of zeros and 1 over the window's length.

    >>> x = torch.randn(2, 3, 10, 17)
    >>> y = adaptive_average(x, (7, 3))
    >>> torch.allclose(y, torch.nn.functional.adaptive_avg_pool2d(x, (7, 3)), atol=1e-6)
    True
    """
    for axis, size in zip(range(-len(sizes), 0), sizes, strict=True):
        weights = _windows(x.shape[axis], size, x)
        x = torch.matmul(x.movedim(axis, -1), weights.t()).movedim(-1, axis)
    return x


def decomposed(program: ExportedProgram) -> ExportedProgram:
    """The program with its adaptive average pooling written out."""
    table: dict[Any, Callable[..., Any]] = dict(default_decompositions().items())
    for operator in (
        torch.ops.aten._adaptive_avg_pool2d.default,
        torch.ops.aten._adaptive_avg_pool3d.default,
    ):
        table[operator] = adaptive_average
    written_out: ExportedProgram = program.run_decompositions(table)
    return written_out


def _windows(length: int, size: int, x: Tensor) -> Tensor:
    index = torch.arange(size, device=x.device)
    starts = torch.div(index * length, size, rounding_mode="floor").unsqueeze(1)
    # ⌈a/n⌉ = ⌊(a + n - 1)/n⌋, in whole numbers.
    ends = torch.div((index + 1) * length + size - 1, size, rounding_mode="floor").unsqueeze(1)
    positions = torch.arange(length, device=x.device)
    inside = (positions >= starts) & (positions < ends)
    return inside.to(x.dtype) / (ends - starts).to(x.dtype)
