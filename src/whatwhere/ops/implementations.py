"""Which implementation runs an operation: the fast kernels, or the specification."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor

from whatwhere.checks import check_choice
from whatwhere.ops import raw

Result = TypeVar("Result")
ImplementationName = Literal["reference", "cpu", "cuda"]
Operation = Literal["pool_positions", "pool_channels", "apply_gates", "cbam"]

IMPLEMENTATIONS: tuple[ImplementationName, ...] = get_args(ImplementationName)
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
# What the kernels for NVIDIA GPUs know.
CUDA_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

_forced: ContextVar[ImplementationName | None] = ContextVar(
    "whatwhere_implementation", default=None
)


def constant_when_compiled(function: Callable[[], Result]) -> Callable[[], Result]:
    """``torch.compiler.assume_constant_result``, which would import the compiler at once."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@contextmanager
def implementation(name: ImplementationName) -> Iterator[None]:
    """Force one implementation inside the block, in this thread or asynchronous task alone.

    "reference" is plain PyTorch, also in what is compiled, traced or exported inside the block:
    no operator of this library is in the graph. "cpu" and "cuda" are the fast kernels of those
    devices, and what they can't serve raises a ValueError that says why. What was compiled keeps
    what it was compiled with.

    >>> import torch, whatwhere
    >>> gate = whatwhere.ChannelAttention(8)
    >>> with whatwhere.implementation("reference"):
    ...     program = torch.export.export(gate, (torch.randn(2, 8, 5, 5),))
    >>> "whatwhere" in str(program.graph)
    False
    """
    check_choice("implementation", "name", name, IMPLEMENTATIONS)
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


@constant_when_compiled  # torch 2.11 can't compile the reading of a context variable
def forced() -> ImplementationName | None:
    """The implementation that ``implementation`` forces here, if any; compiled code keeps it."""
    return _forced.get()


@cache
def kernels() -> tuple[Any, str | None]:
    """The module of fast kernels, imported at the first need; or None, and why there is none."""
    return _imported("whatwhere.ops.cpu", ("numba", "llvmlite"))


@cache
def cuda_kernels() -> tuple[Any, str | None]:
    """``kernels`` for tensors on NVIDIA GPUs."""
    return _imported("whatwhere.ops.cuda", ("triton",))


def _imported(module: str, compilers: tuple[str, ...]) -> tuple[Any, str | None]:
    try:
        return import_module(module), None
    except ModuleNotFoundError as error:
        if error.name not in (*compilers, module):
            raise
        return None, f"{error.name} is not installed"


@constant_when_compiled
def missing_kernels() -> str | None:
    """Why there are no fast kernels here at all, or None; a constant to what is compiled."""
    return kernels()[1]


@constant_when_compiled
def missing_cuda_kernels() -> str | None:
    """``missing_kernels`` for tensors on NVIDIA GPUs."""
    return cuda_kernels()[1]


def without_kernels(op: Operation, x: Tensor, statistics: Sequence[str]) -> str | None:
    """Why the fast kernels can't serve an operation on a plain tensor, or None if they can."""
    if not (x.is_cpu or x.is_cuda):
        return f"x is on the device {x.device}"
    if x.layout is not torch.strided:
        return f"x has the layout {x.layout}"
    module, reason = cuda_kernels() if x.is_cuda else kernels()
    if module is not None:
        reason = module.unsupported(op, x, statistics)
    return reason


def without_kernels_compiled(x: Tensor) -> str | None:
    """The same of what is being compiled, where x has no values and modules can't be asked."""
    if x.is_cpu:
        return missing_kernels()
    if not x.is_cuda:
        return f"x is on the device {x.device}"
    if x.dtype not in CUDA_DTYPES:
        return f"kernels on {x.device} have no {x.dtype}"
    return missing_cuda_kernels()


def body(op: str, family: Operation, x: Tensor, statistics: Sequence[str]) -> Any:
    """The function that computes a raw operation of a family: a kernel, or the specification."""
    if without_kernels(family, x, statistics) is None:
        return getattr((cuda_kernels() if x.is_cuda else kernels())[0], op)
    return getattr(raw, op)
