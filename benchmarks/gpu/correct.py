"""Whether the kernels are right on a device, the same twice, and the same in a CUDA graph.

The checks are those of ``tests/ops``: every output and gradient against float64.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tests.ops import examples
from tests.ops.checker import Case, check, run
from whatwhere.ops import cuda

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = ((3, 17, 1, 11), (7, 13, 11, 13), (9, 130, 3, 2), (4, 256, 28, 28), (2, 512, 7, 7))
Results = dict[str, Tensor]


def cases(shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype, layout: str) -> Iterator[Case]:
    """What is checked: odd and whole sizes, each with everything that can be folded in."""
    common: dict[str, Any] = {"dtype": dtype, "layout": layout}
    for shape in shapes:
        for values in ("random", "ties", "zeros after a ReLU"):
            yield examples.cbam(shape, values=values, **common)
        yield examples.cbam(shape, kernel=7, residual=True, relu=True, **common)
        for statistics in (("mean", "max"), ("max",), ("std",), ("l2", "std", "max", "mean")):
            yield examples.pool_positions(shape, statistics=statistics, **common)
            yield examples.pool_channels(shape, statistics=statistics, **common)
        yield examples.apply_gates(shape, residual=True, relu=True, **common)


def check_all(
    device: torch.device,
    graphed: Callable[[Callable[[], Results]], Callable[[], Results]],
    shapes: tuple[tuple[int, ...], ...] = SHAPES,
) -> int:
    """How many cases were right; the first that is wrong raises.

    ``graphed`` makes of a call one that runs its kernels alone and returns the same tensors.
    """
    count = 0
    for dtype in DTYPES:
        for layout in ("contiguous", "channels_last"):
            for case in cases(shapes, dtype, layout):
                tensors = {k: None if t is None else t.to(device) for k, t in case.tensors.items()}
                there = replace(case, tensors=tensors)
                results = run(cuda, there)
                check(there, results)
                _same(case.op, "again", results, run(cuda, there))
                if case.op == "cbam":
                    _same(case.op, "in a graph", results, graphed(lambda c=there: run(cuda, c))())
                count += 1
    return count


def _same(op: str, when: str, results: Results, others: Results) -> None:
    for name, one in results.items():
        if not torch.equal(one.nan_to_num(7.5), others[name].nan_to_num(7.5)):
            raise AssertionError(f"{op}: {name} differs {when}")
