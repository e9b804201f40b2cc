"""The algebra every gate is a sentence of: summarise x, mix the summaries, squash, multiply.

``Gate(keep, statistics, mix, activation)`` is one gate; ``composition`` puts several together.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, get_args

from torch import Tensor, nn

from whatwhere.checks import check_choice, check_distinct, check_feature_map
from whatwhere.ops import (
    ACTIVATIONS,
    STATISTICS,
    ActivationName,
    Statistic,
    activate,
    apply_gates,
    pool_channels,
    pool_frames,
    pool_positions,
    without_autocast,
)

Keep = Literal["C", "S", "T"]
Kind = Literal["what", "where", "when", "joint"]
Start = Literal["paper", "identity"]
# The tensor a last pass goes over, and what runs it, with residual, activation and inplace as
# those of ``ops.apply_gates``.
LastPass = tuple[Tensor, Callable[..., Tensor]]

KINDS: dict[Keep, Kind] = {"C": "what", "S": "where", "T": "when"}
STARTS: tuple[Start, ...] = get_args(Start)


class Activation(nn.Module):
    """The last step of a gate, a module so that a forward hook on it sees every gate's values."""

    def __init__(self, name: ActivationName) -> None:
        check_choice("Activation", "name", name, ACTIVATIONS)
        super().__init__()
        self.name = name

    def forward(self, logits: Tensor) -> Tensor:
        """The gate of these logits."""
        return activate(logits, self.name)

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


class Mix(nn.Module):
    """What turns descriptors into logits; ``DenseMix`` and ``PositionConv`` are the two kinds."""

    def forward(self, descriptors: Sequence[Tensor]) -> Tensor:
        """Logits that broadcast against x."""
        raise NotImplementedError

    def check_gate(self, owner: str, keep: Keep, statistics: Sequence[Statistic]) -> None:
        """Refuse a gate this mix was not built for."""
        raise NotImplementedError

    def check(self, owner: str, x: Tensor) -> None:
        """Refuse an x this mix was not built for."""
        raise NotImplementedError

    def zero_logits(self) -> None:
        """Set the last layer so that the logits are 0 for every x."""
        raise NotImplementedError


class Gate(nn.Module):
    r"""One gate: g = activation(mix(statistics of x over all axes but ``keep``)), y = x · g.

    Args:
        keep: the axes the gate keeps, besides N: "C" channels (*what*), "S" all positions
            (*where*), "T" the first position axis of (N, C, L) or (N, C, T, H, W) (*when*).
        statistics: "mean", "max", "std" and "l2", in the order in which ``mix`` receives them.
        mix: from descriptors to logits.
        activation: "sigmoid", "double_sigmoid" or, inside a ``Par`` that joins logits, "identity".
        start: "paper" leaves the parameters as the mix made them. "identity" makes y = x exactly
            until the first optimiser step: logits 0 under the activation 2σ, since 2σ(0) = 1.

    Descriptors and mix are computed in float32 at least, under autocast and with half-precision
    parameters too, since they are tiny and lose most there; g is cast to the dtype of x.

    >>> import torch
    >>> from whatwhere.gates.mixes import DenseMix
    >>> squeeze_excite = Gate(keep="C", statistics=["mean"], mix=DenseMix(8, hidden=2, bias=True))
    >>> squeeze_excite.gate(torch.ones(4, 8, 5, 5)).shape
    torch.Size([4, 8, 1, 1])
    """

    def __init__(
        self,
        *,
        keep: Keep,
        statistics: Sequence[Statistic],
        mix: Mix,
        activation: ActivationName = "sigmoid",
        start: Start = "paper",
    ) -> None:
        owner = type(self).__name__
        check_choice(owner, "keep", keep, tuple(KINDS))
        check_distinct(owner, "statistics", statistics, STATISTICS)
        check_choice(owner, "start", start, STARTS)
        mix.check_gate(owner, keep, statistics)
        super().__init__()
        self.keep = keep
        self.statistics: tuple[Statistic, ...] = tuple(statistics)
        self.mix = mix
        if start == "identity":
            activation = identity_activation(owner, activation)
            mix.zero_logits()
        self.activation = Activation(activation)

    @property
    def kind(self) -> Kind:
        """What the gate attends to: "what", "where" or "when"."""
        return KINDS[self.keep]

    def gate(self, x: Tensor) -> Tensor:
        """The gate of x alone, in the dtype of x; pooled axes have size 1."""
        return self.values(x).to(x.dtype)

    def values(self, x: Tensor, *, channel_gate: Tensor | None = None) -> Tensor:
        """The gate of x, or of x · channel_gate if it keeps positions, before any rounding."""
        ranks = (3, 5) if self.keep == "T" else (3, 4, 5)
        owner, mix = type(self).__name__, self.mix
        check_feature_map(owner, x, ranks)
        mix.check(owner, x)
        if self.keep == "C":
            descriptors = pool_positions(x, statistics=self.statistics)
        elif self.keep == "S":
            descriptors = pool_channels(x, statistics=self.statistics, channel_gate=channel_gate)
        else:
            descriptors = pool_frames(x, statistics=self.statistics)
        with without_autocast(x):
            gate: Tensor = self.activation(mix(descriptors))
        return gate

    def last_pass(self, x: Tensor) -> LastPass:
        """Compute the gate, and leave its application to the caller."""
        return x, partial(gated, gates={self.keep: self.gate(x)})

    def forward(self, x: Tensor) -> Tensor:
        """The gated x: same shape and dtype as x."""
        x, finish = self.last_pass(x)
        return finish(x)

    def extra_repr(self) -> str:
        """Kept axes and statistics, for printing."""
        return f"keep={self.keep!r}, statistics={self.statistics}"


def identity_activation(owner: str, activation: ActivationName) -> ActivationName:
    """The activation of an identity start, which doubles a sigmoid."""
    if activation != "sigmoid":
        raise ValueError(
            f'{owner}: expected start="identity" with activation="sigmoid", which it doubles, '
            f"got activation={activation!r}"
        )
    return "double_sigmoid"


def gated(
    x: Tensor,
    gates: dict[Keep, Tensor],
    *,
    residual: Tensor | None = None,
    activation: Literal["relu"] | None = None,
    inplace: bool = False,
) -> Tensor:
    """relu?(x times gates of different kinds + residual), in one pass."""
    if not gates and residual is None and activation is None:
        return x
    return apply_gates(
        x,
        channel_gate=gates.get("C"),
        spatial_gate=gates.get("S"),
        temporal_gate=gates.get("T"),
        residual=residual,
        activation=activation,
        inplace=inplace,
    )
