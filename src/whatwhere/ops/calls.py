"""Calling a raw operation: through torch's dispatcher, or, where nothing watches, past it.

The dispatcher costs several microseconds a call, much beside the smallest kernels. Past it is
the same body under the same gradient formula, so only who sees the call differs. That is taken
only in plain eager mode: no compiler, tracer, profiler, function transform or mode is active, and
every tensor is a plain one on the CPU. The thread's set of dispatch keys tells all but three of
these in one look.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import Parameter

from whatwhere.ops.bodies import BODIES
from whatwhere.ops.gradients import Backward, Setup, formulas
from whatwhere.ops.library import call_operator

PLAIN_TYPES = (Tensor, Parameter)


def _own_keys() -> int:
    return int(torch._C._dispatch_tls_local_include_set().raw_repr())


_KEY, _KEY_SET = torch._C.DispatchKey, torch._C.DispatchKeySet
_INFERENCE = int(_KEY_SET(_KEY.BackendSelect).raw_repr())
_EAGER = int((_KEY_SET(_KEY.BackendSelect) | _KEY_SET(_KEY.ADInplaceOrView)).raw_repr())


def unwatched() -> bool:
    """Whether nothing would see, or change, a call on its way through the dispatcher."""
    return (
        not torch.compiler.is_compiling()
        and _own_keys() in (_EAGER, _INFERENCE)
        and not torch._C._len_torch_function_stack()
        and not torch._C._autograd._profiler_enabled()
    )


def call(op: str, *arguments: Any) -> Any:
    """Run a raw operation, with gradients where they are wanted."""
    if not unwatched():
        return call_operator(op, *arguments)
    differentiable = False
    for argument in arguments:
        if isinstance(argument, Tensor):
            if (
                type(argument) not in PLAIN_TYPES
                or not argument.is_cpu
                or argument.layout is not torch.strided
                or argument.is_neg()
            ):
                return call_operator(op, *arguments)
            differentiable = differentiable or argument.requires_grad
    if differentiable and torch.is_grad_enabled():
        return _FUNCTIONS[op].apply(*arguments)
    return BODIES[op](*arguments)


def _function(op: str, setup: Setup, backward: Backward) -> type[Function]:
    body: Callable[..., Any] = BODIES[op]

    def forward(ctx: Any, *arguments: Any) -> Any:
        output = body(*arguments)
        setup(ctx, arguments, output)
        return output

    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type(f"whatwhere_{op}", (Function,), methods)


_FUNCTIONS = {op: _function(op, *formula) for op, formula in formulas(call).items()}
