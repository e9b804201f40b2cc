"""Where an operation on some x runs: in the raw operations, or by the specification.

Plain tensors, all on the CPU or on one NVIDIA GPU, that the fast kernels there can serve go to the
raw operations (``calls``); all else, and all inside ``implementation("reference")``, is the
specification: plain PyTorch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.autograd import forward_ad

from whatwhere.checks import check_choice
from whatwhere.ops.calls import PLAIN_TYPES, call, call_unwatched, unwatched
from whatwhere.ops.gradients import Call
from whatwhere.ops.implementations import (
    OPERATIONS,
    ImplementationName,
    Operation,
    constant_when_compiled,
    forced,
    without_kernels,
    without_kernels_compiled,
)
from whatwhere.ops.reference import Statistic

TRACED_TYPES = (FakeTensor, FunctionalTensor)
_PLAIN_OR_NONE = frozenset({*PLAIN_TYPES, type(None)})


@constant_when_compiled
def _exporting_to_onnx() -> bool:
    return torch.onnx.is_in_onnx_export()


def _apart(x: Tensor, others: Sequence[Tensor | None]) -> bool:
    # Kernels take addresses, which mean nothing elsewhere; torch refuses to mix devices.
    if x.is_cpu:
        return not all(other is None or other.is_cpu for other in others)
    return any(other is not None and other.device != x.device for other in others)


def _why_reference(
    op: Operation, x: Tensor, statistics: Sequence[str], others: Sequence[Tensor | None] = ()
) -> str | None:
    """Why the specification runs an operation, or None where the raw operation does."""
    for tensor in (x, *others):
        if tensor is not None and type(tensor) not in PLAIN_TYPES + TRACED_TYPES:
            return f"a tensor is a {type(tensor).__name__}, not a plain one"
    if _apart(x, others):
        return f"tensors are not all on the device of x, {x.device}"
    if x.layout is not torch.strided:
        return f"x has the layout {x.layout}"
    if torch._C._are_functorch_transforms_active():
        return "a transform of torch.func is at work, and takes the specification apart"
    if torch.compiler.is_compiling():
        if _exporting_to_onnx():
            return "ONNX has no operators of this library"
        return without_kernels_compiled(x)
    if type(x) in PLAIN_TYPES and torch._C._len_torch_dispatch_stack():
        return "a dispatch mode watches, which is to see what is computed"
    if torch._C._get_tracing_state() is not None:
        return "torch.jit.trace is tracing, and ONNX has no operators of this library"
    if forward_ad._current_level >= 0:
        return "forward-mode derivatives are the specification's"
    return without_kernels(op, x, statistics)


def _unasked(x: Tensor, wanted: ImplementationName | None) -> str | None:
    # Until every output and gradient has been compared on a GPU, nobody gets these unasked.
    if x.is_cuda and wanted is None:
        return 'the kernels for GPUs were never run on one; implementation("cuda") asks for them'
    return None


def route(
    op: Operation, x: Tensor, statistics: Sequence[str], *others: Tensor | None
) -> Call | None:
    """What runs the raw operation for x and others, or None where the specification is to run.

    Raises:
        ValueError: kernels are forced and can't serve.
    """
    wanted = forced()
    if (
        wanted is None
        and unwatched()
        and type(x) in PLAIN_TYPES
        and _PLAIN_OR_NONE.issuperset(map(type, others))
    ):
        # The common case: of all reasons for the specification, only these are left.
        if forward_ad._current_level >= 0 or x.is_cuda or _apart(x, others):
            return None
        if without_kernels(op, x, statistics) is not None:
            return None
        return call_unwatched
    if wanted == "reference":
        return None
    reason = _why_reference(op, x, statistics, others)
    if reason is None:
        reason = _unasked(x, wanted)
    if reason is None and wanted is not None and wanted != x.device.type:
        reason = f"x is on the device {x.device}"
    if reason is not None and wanted is not None:
        raise ValueError(f'{op}: implementation("{wanted}") cannot serve: {reason}')
    return call if reason is None else None


def implementation_of(
    op: Operation, x: Tensor, *, statistics: Sequence[Statistic] = ("mean", "max")
) -> tuple[ImplementationName, str]:
    """Which implementation would run an operation on x here and now, and why.

    Args:
        op: "pool_positions", "pool_channels", "apply_gates" or "cbam".
        x: the feature map.
        statistics: of the descriptors; for "cbam" those of both gates.

    Raises:
        ValueError: op is unknown.

    >>> from whatwhere import implementation
    >>> with implementation("reference"):
    ...     implementation_of("cbam", torch.zeros(1, 8, 5, 5))
    ('reference', 'implementation("reference") forces it')
    """
    check_choice("implementation_of", "op", op, OPERATIONS)
    wanted = forced()
    if wanted == "reference":
        return "reference", 'implementation("reference") forces it'
    reason = _why_reference(op, x, statistics)
    if reason is None:
        reason = _unasked(x, wanted)
    if reason is not None:
        return "reference", reason
    return "cuda" if x.is_cuda else "cpu", "the kernels serve it"
