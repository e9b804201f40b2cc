"""Ours without the op around it: the compiled kernels alone, into outputs made beforehand.

They are ``cbam`` and ``cbam_backward`` of ``whatwhere.ops.cpu``, where these take ``out``: what
they would return, to be overwritten. Where they don't, the variant is absent.
"""

import importlib
import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import Tensor

from whatwhere.bench.measure.specification import Weights
from whatwhere.bench.measure.timing import Call

MODULE = "whatwhere.ops.cpu"
STATISTICS = ["mean", "max"]


@dataclass(frozen=True)
class Kernels:
    """Two calls that allocate nothing, and the values they leave."""

    forward: Call
    both: Call
    output: Tensor
    gradients: tuple[Tensor, ...]


def our_kernels(x: Tensor, dy: Tensor, weights: Weights) -> Kernels | str:
    """The kernels on this x, run once; or why there are none."""
    module = _module()
    if isinstance(module, str):
        return module
    reduce, expand, conv = (value.to(x.dtype) for value in weights.parameters())
    options: tuple[Any, ...] = (STATISTICS, STATISTICS, 1.0, 1.0)
    arguments = (reduce, None, expand, None, conv, None, *options)
    forward: Callable[..., Any] = module.cbam
    backward: Callable[..., Any] = module.cbam_backward
    outputs = forward(x, *arguments, None, False)
    y, saved = outputs
    gradients = backward(dy, x, saved, *arguments, None)

    def run_forward() -> None:
        forward(x, *arguments, None, False, out=outputs)

    def run_both() -> None:
        run_forward()
        backward(dy, x, saved, *arguments, None, out=gradients)

    # dx, dw0, db0, dw1, db1, dwc, ...: those of biases are empty.
    return Kernels(run_forward, run_both, y, tuple(gradients[index] for index in (0, 1, 3, 5)))


def _module() -> ModuleType | str:
    if importlib.util.find_spec(MODULE) is None:
        return f"there is no {MODULE}"
    try:
        module = importlib.import_module(MODULE)
    except ImportError as error:
        return f"{MODULE} can't be imported here: {error}"
    for name in ("cbam", "cbam_backward"):
        function = getattr(module, name, None)
        if function is None or "out" not in inspect.signature(function).parameters:
            return f"{MODULE}.{name} takes no outputs made beforehand"
    return module
