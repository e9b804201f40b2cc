"""A gate that waits: what stands for its output until the block has said what comes next.

A residual block goes on with ``out += shortcut`` and a ReLU, two more passes over the tensor. A
``Deferred`` remembers the addition and has the gate do all of it in its own last pass. To any
other use it is the tensor it stands for, which is computed then.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map

Last = Literal["add", "relu"]

# What can be told without the values.
METADATA = {
    "shape",
    "size",
    "ndim",
    "dim",
    "numel",
    "dtype",
    "device",
    "layout",
    "is_cuda",
    "is_cpu",
    "is_floating_point",
    "_is_param",  # asked by isinstance(..., Parameter)
    "_is_buffer",
}
# Whether they work in place; F.relu is told.
ADDITIONS = {torch.add: False, Tensor.add: False, Tensor.add_: True}
RELUS = {torch.relu: False, Tensor.relu: False, torch.relu_: True, Tensor.relu_: True}
OPERATORS = (
    "sub rsub isub mul rmul imul truediv rtruediv itruediv floordiv rfloordiv mod rmod pow rpow "
    "ipow matmul rmatmul neg pos abs invert and rand or ror xor rxor lt le eq ne gt ge len iter "
    "bool int float complex index contains getitem setitem repr str format array reduce_ex"
)


class Deferred:
    """finish(x), or finish(x, residual=...), that nobody has asked the values of.

    Args:
        x: what a gate's last pass goes over.
        finish: that pass; both as from the gate's ``last_pass``.
        last: what ends the wait: "add" or, if a ReLU follows it, "relu".
        inplace: whether x may be overwritten. It is where the block's own operations are in
            place too, so that nobody can ask for the values before.
    """

    def __init__(
        self, x: Tensor, finish: Callable[..., Tensor], *, last: Last, inplace: bool
    ) -> None:
        self._x = x
        self._finish = finish
        self._last = last
        self._inplace = inplace
        self._recording = torch.is_grad_enabled()
        self._residual: Tensor | None = None
        self._versions = (_version(x), 0)
        self._value: Tensor | None = None

    def tensor(self) -> Tensor:
        """The tensor this stands for, computed once and as if it had been all along."""
        if self._value is None:
            with torch.set_grad_enabled(self._recording):
                self._value = self._run(activation=None, inplace=False)
        return self._value

    def plus(self, other: Any, *, inplace: bool) -> Any:
        """The sum with another tensor, which waits for a ReLU if one is to come."""
        other = _tensor_of(other)
        if self._value is not None or self._residual is not None or not self._takes(other):
            return self.tensor().add_(other) if inplace else self.tensor() + other
        self._check_recording()
        total = self
        if not inplace:
            total = Deferred(self._x, self._finish, last=self._last, inplace=False)
            self._inplace = False
        total._residual = other
        total._versions = (self._versions[0], _version(other))
        if self._last == "relu":
            return total
        total._value = total._run(activation=None, inplace=total._inplace)
        return total._value

    def rectified(self, *, inplace: bool) -> Tensor:
        """The ReLU, in the gate's own last pass if there was an addition before."""
        if self._value is not None or self._residual is None:
            return self.tensor().relu_() if inplace else self.tensor().relu()
        self._check_recording()
        y = self._run(activation="relu", inplace=inplace and self._inplace)
        if inplace:
            self._value = y
        return y

    def _check_recording(self) -> None:
        # The gate would get no gradient, or one that was not wanted.
        if torch.is_grad_enabled() is not self._recording:
            raise RuntimeError(
                "a gate ran with gradients and what follows it without, or the reverse: attend "
                "this network without fuse=True"
            )

    def _takes(self, other: Any) -> bool:
        x = self._x
        return (
            type(other) is Tensor
            and other.shape == x.shape
            and other.dtype is x.dtype
            and other.device == x.device
        )

    def _run(self, *, activation: Literal["relu"] | None, inplace: bool) -> Tensor:
        x, residual = self._x, self._residual
        if self._versions != (_version(x), 0 if residual is None else _version(residual)):
            raise RuntimeError(
                "a gate that waited finds its input or the shortcut changed in place meanwhile: "
                "attend this network without fuse=True"
            )
        return self._finish(x, residual=residual, activation=activation, inplace=inplace)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in ADDITIONS and len(args) == 2 and not kwargs:
            first, second = args
            if type(first) is Deferred:
                return first.plus(second, inplace=ADDITIONS[func])
            if not ADDITIONS[func]:
                return second.plus(first, inplace=False)
        elif func is F.relu:
            return args[0].rectified(inplace=kwargs["inplace"])
        elif func in RELUS:
            return args[0].rectified(inplace=RELUS[func])
        args, kwargs = tree_map(_tensor_of, (args, {} if kwargs is None else kwargs))
        return func(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._x if name in METADATA else self.tensor(), name)

    def __add__(self, other: Any) -> Any:
        return self.plus(other, inplace=False)

    __radd__ = __add__

    def __iadd__(self, other: Any) -> Any:
        return self.plus(other, inplace=True)

    def add(self, *args: Any, **kwargs: Any) -> Any:
        """As ``Tensor.add``."""
        return self.__torch_function__(Tensor.add, (), (self, *args), kwargs)

    def add_(self, *args: Any, **kwargs: Any) -> Any:
        """As ``Tensor.add_``."""
        return self.__torch_function__(Tensor.add_, (), (self, *args), kwargs)

    def relu(self) -> Tensor:
        """As ``Tensor.relu``."""
        return self.rectified(inplace=False)

    def relu_(self) -> Tensor:
        """As ``Tensor.relu_``."""
        return self.rectified(inplace=True)

    __hash__ = object.__hash__


def _tensor_of(value: Any) -> Any:
    return value.tensor() if type(value) is Deferred else value


def _version(tensor: Tensor) -> int:
    # Those of inference mode have none.
    return 0 if tensor.is_inference() else tensor._version


def _operator(name: str) -> Callable[..., Any]:
    def operator(self: Deferred, *args: Any) -> Any:
        return getattr(self.tensor(), name)(*(_tensor_of(arg) for arg in args))

    return operator


# Python looks these up on the class, past __getattr__.
for _name in OPERATORS.split():
    setattr(Deferred, f"__{_name}__", _operator(f"__{_name}__"))
