"""CBAM called again without gradients: what the first call found out serves the next ones.

A network calls its gates with the same shapes again and again, each time after convolutions have
driven all but the last code out of the caches. There each further Python function costs some
microseconds, as much as a small kernel, so these calls are recognised in one look and go to the
kernels at once. All that a call's course depends on is in its signature.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from whatwhere.ops import implementations
from whatwhere.ops.calls import PLAIN_TYPES, unwatched

Signature = tuple[Any, ...]
# Beyond so many, all are forgotten: shapes that never end must not fill memory.
LIMIT = 1024

_plans: dict[Signature, tuple[Any, Any]] = {}


def signature(
    x: Tensor, residual: Tensor | None, parameters: Sequence[Tensor | None], options: Signature
) -> Signature | None:
    """What tells calls apart that run differently; None for one that needs a closer look."""
    if not unwatched() or implementations.forced() is not None or forward_ad._current_level >= 0:
        return None
    recording = torch.is_grad_enabled()
    parts = [*options, recording]
    for tensor in (x, residual, *parameters):
        if tensor is None:
            parts.append(None)
        elif (
            type(tensor) in PLAIN_TYPES
            and tensor.is_cpu
            and tensor.layout is torch.strided
            and not tensor.is_neg()
            and not (recording and tensor.requires_grad)
        ):
            parts += tensor.shape, tensor.stride(), tensor.dtype
        else:
            return None
    return tuple(parts)


def run_again(
    signature: Signature,
    x: Tensor,
    residual: Tensor | None,
    parameters: Sequence[Tensor | None],
    relu: bool,
    inplace: bool,
) -> Tensor | None:
    """The output, if a call of this signature was remembered."""
    module, plan = _plans.get(signature, (None, None))
    if plan is None or module is not implementations.kernels()[0]:
        return None
    y: Tensor = module.cbam_again(plan, x, residual, parameters, relu, inplace)
    return y


def run_again_with_gates(
    signature: Signature, x: Tensor, parameters: Sequence[Tensor | None]
) -> tuple[Tensor, Tensor] | None:
    """The output and what the raw operation saves, of a call that adds and overwrites nothing."""
    module, plan = _plans.get(signature, (None, None))
    if plan is None or module is not implementations.kernels()[0]:
        return None
    outputs: tuple[Tensor, Tensor] = module.cbam_again_with_gates(plan, x, parameters)
    return outputs


def remember(signature: Signature, x: Tensor, arguments: Sequence[Any]) -> None:
    """Keep what calls of this signature need, if the kernels take x and arguments as they are."""
    module = implementations.kernels()[0]
    plan_again = getattr(module, "plan_again", None)
    plan = None if plan_again is None else plan_again(x, *arguments)
    if plan is not None:
        if len(_plans) >= LIMIT:
            _plans.clear()
        _plans[signature] = module, plan
