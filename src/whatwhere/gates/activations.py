"""The last step of a gate: the functions that squash logits, and where each begins and ends."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from whatwhere.checks import check_choice

ActivationName = Literal[
    "sigmoid",
    "double_sigmoid",
    "hard_sigmoid",
    "double_hard_sigmoid",
    "half_plus_sigmoid",
    "one_plus_sigmoid",
    "one_plus_tanh",
    "identity",
]


@dataclass(frozen=True)
class Squash:
    """A function of logits.

    Attributes:
        symbol: its formula, of z.
        function: what computes it.
        bottom, top: its range.
        zero: its value at 0.
        neutral: the function that an identity start has in its place: 1 at 0, as wide, and
            the same where that is 1 already; None if the logits have to be 1 for that.
    """

    symbol: str
    function: Callable[[Tensor], Tensor]
    bottom: float
    top: float
    zero: float
    neutral: ActivationName | None


def _hard_sigmoid(logits: Tensor) -> Tensor:
    return nn.functional.relu6(logits + 3) / 6


ACTIVATIONS: dict[ActivationName, Squash] = {
    "sigmoid": Squash("σ", torch.sigmoid, 0, 1, 0.5, "double_sigmoid"),
    "double_sigmoid": Squash("2σ", lambda z: 2 * z.sigmoid(), 0, 2, 1, "double_sigmoid"),
    "hard_sigmoid": Squash("relu6(z+3)/6", _hard_sigmoid, 0, 1, 0.5, "double_hard_sigmoid"),
    "double_hard_sigmoid": Squash(
        "relu6(z+3)/3", lambda z: 2 * _hard_sigmoid(z), 0, 2, 1, "double_hard_sigmoid"
    ),
    "half_plus_sigmoid": Squash(
        "½+σ", lambda z: 0.5 + z.sigmoid(), 0.5, 1.5, 1, "half_plus_sigmoid"
    ),
    "one_plus_sigmoid": Squash("1+σ", lambda z: 1 + z.sigmoid(), 1, 2, 1.5, "half_plus_sigmoid"),
    "one_plus_tanh": Squash("1+tanh", lambda z: 1 + z.tanh(), 0, 2, 1, "one_plus_tanh"),
    "identity": Squash("z", lambda z: z, -math.inf, math.inf, 0, None),
}


class Activation(nn.Module):
    """The last step of a gate, a module so that a forward hook on it sees every gate's values.

    >>> Activation("one_plus_tanh")(torch.zeros(1))
    tensor([1.])
    """

    def __init__(self, name: ActivationName) -> None:
        check_choice("Activation", "name", name, tuple(ACTIVATIONS))
        super().__init__()
        self.name = name

    def forward(self, logits: Tensor) -> Tensor:
        """The gate of these logits."""
        return ACTIVATIONS[self.name].function(logits)

    def extra_repr(self) -> str:
        """The name, for printing."""
        return self.name


class Watcher:
    """A forward hook for an ``Activation`` that looks at the gate, detached, and changes nothing.

    As nothing depends on it, whatever computes several gates at once, and calls no ``Activation``,
    may go on: it calls the watchers with the gates it finds.
    """

    def __init__(self, see: Callable[[Tensor], None]) -> None:
        self.see = see

    def __call__(self, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        """Look at the output of the ``Activation`` that called this hook."""
        self.see(output.detach())


def neutral_activation(activation: ActivationName) -> ActivationName:
    """The activation of an identity start: 1 at 0, and as wide as the one it stands for.

    >>> neutral_activation("sigmoid"), neutral_activation("one_plus_tanh")
    ('double_sigmoid', 'one_plus_tanh')
    """
    neutral = ACTIVATIONS[activation].neutral
    return activation if neutral is None else neutral
