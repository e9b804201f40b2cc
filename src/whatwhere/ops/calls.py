"""Calling a raw operation: through torch's dispatcher, or, where nothing watches, past it.

The dispatcher costs several microseconds a call, much beside the smallest kernels. Past it is
the same body under the same gradient formula, so only who sees the call differs. That is taken
only in plain eager mode: no compiler, tracer, profiler, function transform or mode is active, and
every tensor is a plain one on the CPU or an NVIDIA GPU. The thread's set of dispatch keys tells
all but three of these in one look.
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
_KEY, _KEY_SET = torch._C.DispatchKey, torch._C.DispatchKeySet
_INFERENCE = _KEY_SET(_KEY.BackendSelect)
_EAGER = _INFERENCE | _KEY_SET(_KEY.ADInplaceOrView)
_PLAIN_KEYS = frozenset(keys.raw_repr() for keys in (_EAGER, _INFERENCE))
_OTHER_TYPES = frozenset({type(None), tuple, list, float, bool})
_own_keys = torch._C._dispatch_tls_local_include_set


def unwatched() -> bool:
    """Whether nothing would see, or change, a call on its way through the dispatcher."""
    return (
        not torch.compiler.is_compiling()
        and _own_keys().raw_repr() in _PLAIN_KEYS
        and not torch._C._len_torch_function_stack()
        and not torch._C._autograd._profiler_enabled()
    )


def call(op: str, *arguments: Any) -> Any:
    """Run a raw operation, with gradients where they are wanted."""
    return call_unwatched(op, *arguments) if unwatched() else call_operator(op, *arguments)


def call_unwatched(op: str, *arguments: Any) -> Any:
    """``call`` where nothing watches; tensors that are not plain still take the dispatcher."""
    differentiable = False
    for argument in arguments:
        kind = type(argument)
        if kind in PLAIN_TYPES:
            somewhere = argument.is_cpu or argument.is_cuda
            if not somewhere or argument.layout is not torch.strided or argument.is_neg():
                return call_operator(op, *arguments)
            if argument.requires_grad:
                differentiable = True
        elif kind not in _OTHER_TYPES:
            return call_operator(op, *arguments)
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
