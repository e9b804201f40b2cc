"""The steps of longer mixes: linear maps and convolutions of channels, weights, ReLUs."""

from collections.abc import Sequence
from math import prod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whatwhere.checks import check_choice, check_odd
from whatwhere.gates.algebra import Mix
from whatwhere.gates.axes import axes_of, check_keep
from whatwhere.gates.mixes import CONVOLUTIONS, CONVOLVE, convolve, promoted, set_constant

FUNCTIONS = {"relu": F.relu, "hard_swish": F.hardswish}


class Chain(Mix):
    """Steps one after another: the first is given the descriptors, each other the one before.

    >>> steps = Chain(reduce=Linear(8, 2), relu=Function("relu"), expand=Linear(2, 8))
    >>> steps([torch.ones(1, 8, 3, 3)]).shape
    torch.Size([1, 8, 3, 3])
    """

    def __init__(self, **steps: Mix) -> None:
        super().__init__()
        for name, step in steps.items():
            self.add_module(name, step)

    def check_gate(self, owner: str, keep: str, statistics: int) -> None:
        """As the first step does."""
        next(self._steps()).check_gate(owner, keep, statistics)

    def check(self, owner: str, x: Tensor) -> None:
        """As the first step does."""
        next(self._steps()).check(owner, x)

    def forward(self, descriptors: Sequence[Tensor]) -> Tensor:
        """What the last step gives."""
        for step in self._steps():
            descriptors = [step(descriptors)]
        return descriptors[0]

    def constant_logits(self, value: float) -> None:
        """Set the last step that has parameters; those after it only repeat."""
        for step in reversed(list(self._steps())):
            if any(True for _ in step.parameters()):
                step.constant_logits(value)
                return
        raise ValueError("it has no parameters")

    def _steps(self) -> Any:
        return self.children()


class Shared(Mix):
    """One mix for every descriptor, and the sum: Σ_d mix(d)."""

    def __init__(self, mix: Mix) -> None:
        super().__init__()
        self.mix = mix

    def check(self, owner: str, x: Tensor) -> None:
        """As the mix does."""
        self.mix.check(owner, x)

    def forward(self, descriptors: Sequence[Tensor]) -> Tensor:
        """The sum over the descriptors."""
        return torch.stack([self.mix([each]) for each in descriptors]).sum(0)

    def constant_logits(self, value: float) -> None:
        """Of the mix, whose biases enter once per descriptor, 0 alone."""
        if value != 0:
            raise ValueError("a mix shared by several descriptors has only 0 as a constant")
        self.mix.constant_logits(value)


class Step(Mix):
    """A mix of a single descriptor."""

    def check_gate(self, owner: str, keep: str, statistics: int) -> None:
        """Refuse several statistics."""
        if statistics != 1:
            raise ValueError(
                f"{owner}: expected one statistic with a mix that begins with "
                f"{type(self).__name__}, got {statistics}"
            )

    def forward(self, descriptors: Sequence[Tensor]) -> Tensor:
        """The step's output for the only descriptor."""
        (descriptor,) = descriptors
        return self.step(descriptor)

    def step(self, descriptor: Tensor) -> Tensor:
        """What the step does."""
        raise NotImplementedError


class Linear(Step):
    """z_o = Σ_i W_oi d_i + b_o over channels, the same at every position.

    Args:
        channels: of the descriptor.
        outputs: of the logits.
        bias: whether there is b.
    """

    def __init__(self, channels: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__()
        self.channels = channels
        self.linear = nn.Linear(channels, outputs, bias=bias)

    def step(self, descriptor: Tensor) -> Tensor:
        """(N, C, ...) to (N, outputs, ...)."""
        weight, bias = promoted(self.linear)
        ones = (1,) * (descriptor.ndim - 2)
        result: Tensor = CONVOLVE[len(ones)](descriptor, weight.reshape(*weight.shape, *ones), bias)
        return result

    def constant_logits(self, value: float) -> None:
        """Set W to 0 and b."""
        set_constant(self.linear, value)


class Conv(Step):
    """An ordinary convolution of the descriptor, whose channels are its channels.

    Args:
        channels: of the descriptor.
        outputs: of the logits.
        over: the axes it goes over, by letter, all others having size 1; or "any", all positions
            in one row, whichever axis they are on.
        kernel_size: one per axis, odd; with ``padding="valid"`` the whole size of the axis.
        dilation: of all axes.
        groups: as of ``nn.Conv2d``.
        bias: whether there is one.
        padding: "same" keeps the size; "valid" leaves one value.

    >>> Conv(8, 8, over="S", kernel_size=(3, 3), groups=8)([torch.ones(2, 8, 5, 4)]).shape
    torch.Size([2, 8, 5, 4])
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        *,
        over: str,
        kernel_size: Sequence[int],
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        padding: Literal["same", "valid"] = "same",
    ) -> None:
        check_choice("Conv", "padding", padding, ("same", "valid"))
        if padding == "same":
            check_odd("Conv", "kernel_size", kernel_size)
        if over != "any":
            check_keep("Conv", over)
        super().__init__()
        self.channels = channels
        self.over = over
        self.padding = padding
        convolution: Any = CONVOLUTIONS[len(kernel_size)]
        edges = [dilation * (size // 2) if padding == "same" else 0 for size in kernel_size]
        self.conv = convolution(
            channels,
            outputs,
            tuple(kernel_size),
            padding=tuple(edges),
            dilation=dilation,
            groups=groups,
            bias=bias,
        )

    def step(self, descriptor: Tensor) -> Tensor:
        """(N, C, ...) to (N, outputs, ...)."""
        positions = tuple(descriptor.shape[2:])
        sizes = (
            (prod(positions),)
            if self.over == "any"
            else tuple(descriptor.shape[axis] for axis in axes_of(self.over, descriptor.ndim))
        )
        if self.padding == "valid" and sizes != self.conv.kernel_size:
            raise ValueError(
                f"Conv: expected maps of {self.conv.kernel_size}, as large as its kernel, got "
                f"{sizes}"
            )
        weight, bias = promoted(self.conv)
        rows = descriptor.reshape(*descriptor.shape[:2], *sizes)
        logits = convolve(rows, weight, bias, self.conv)
        shape = positions if self.padding == "same" else (1,) * len(positions)
        return logits.reshape(*logits.shape[:2], *shape)

    def constant_logits(self, value: float) -> None:
        """Set the weights to 0 and the bias."""
        set_constant(self.conv, value)

    def extra_repr(self) -> str:
        """The axes, for printing."""
        return f"over={self.over!r}"


class Affine(Mix):
    """z_c = Σ_d w_cd d_c + b_c: a weight for every channel and descriptor.

    Args:
        channels: of the descriptors.
        descriptors: how many there are.
        bias: whether there is b.
        repeats: how often the same weights come one after another along the channels.
        weight, shift: what w and b start with.
    """

    def __init__(
        self,
        channels: int,
        *,
        descriptors: int = 1,
        bias: bool = True,
        repeats: int = 1,
        weight: float = 1.0,
        shift: float = 0.0,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.repeats = repeats
        size = channels // repeats
        self.weight = nn.Parameter(torch.full((size, descriptors), weight))
        self.bias = nn.Parameter(torch.full((size,), shift)) if bias else None

    def check_gate(self, owner: str, keep: str, statistics: int) -> None:
        """Refuse another number of statistics."""
        if statistics != self.weight.shape[1]:
            raise ValueError(
                f"{owner}: expected {self.weight.shape[1]} statistics, got {statistics}"
            )

    def forward(self, descriptors: Sequence[Tensor]) -> Tensor:
        """Descriptors (N, C, ...) to logits of the same shape."""
        weight, bias = promoted(self)
        shape = (1, -1, *(1,) * (descriptors[0].ndim - 2))
        weights = weight.repeat(self.repeats, 1).unbind(1)
        terms = [w.reshape(shape) * d for w, d in zip(weights, descriptors, strict=True)]
        logits = torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]
        return logits if bias is None else logits + bias.repeat(self.repeats).reshape(shape)

    def constant_logits(self, value: float) -> None:
        """Set w to 0 and b."""
        set_constant(self, value)


class Function(Step):
    """A nonlinearity between two layers."""

    def __init__(self, name: Literal["relu", "hard_swish"]) -> None:
        check_choice("Function", "name", name, tuple(FUNCTIONS))
        super().__init__()
        self.name = name

    def step(self, descriptor: Tensor) -> Tensor:
        """Elementwise."""
        return FUNCTIONS[self.name](descriptor)

    def extra_repr(self) -> str:
        """The name, for printing."""
        return self.name


class Repeat(Step):
    """Every channel so many times: from one map of a group to one of each of its channels."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def step(self, descriptor: Tensor) -> Tensor:
        """(N, G, ...) to (N, G · times, ...)."""
        return descriptor.repeat_interleave(self.times, dim=1)

    def extra_repr(self) -> str:
        """How often, for printing."""
        return f"times={self.times}"
