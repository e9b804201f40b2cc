"""The algebra every gate is a sentence of: summarise x, mix the summaries, squash, multiply.

``Gate(keep, statistics, mix, activation)`` is one gate; ``composition`` puts several together.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, cast, get_args

from torch import Tensor, nn

from whatwhere.checks import check_axis_size, check_choice, check_distinct, check_feature_map
from whatwhere.gates.activations import (
    ACTIVATIONS,
    Activation,
    ActivationName,
    neutral_activation,
)
from whatwhere.gates.axes import Kind, axes_of, check_keep, kind_of, ranks_of
from whatwhere.ops import (
    STATISTICS,
    Statistic,
    accumulation_dtype,
    apply_gate,
    apply_gates,
    pool,
    pool_channels,
    pool_frames,
    pool_positions,
    without_autocast,
)

Start = Literal["paper", "identity"]
# The tensor a last pass goes over, and what runs it, with residual, activation and inplace as
# those of ``ops.apply_gates``.
LastPass = tuple[Tensor, Callable[..., Tensor]]

STARTS: tuple[Start, ...] = get_args(Start)


class Part(nn.Module):
    """What a gate is made of: it may want x in its own dtype, and with a number of channels."""

    channels: int | None = None

    def check(self, owner: str, x: Tensor) -> None:
        """Refuse an x this part was not built for."""
        parameter = next(self.parameters(), None)
        if parameter is not None:
            check_dtype(owner, x, parameter)
        if self.channels is not None:
            check_axis_size(owner, x, 1, "channels", self.channels)


class Mix(Part):
    """What turns descriptors into logits, or is a step of that: see ``mixes`` and ``layers``."""

    def forward(self, descriptors: Sequence[Tensor]) -> Tensor:
        """Logits that broadcast against x."""
        raise NotImplementedError

    def check_gate(self, owner: str, keep: str, statistics: int) -> None:
        """Refuse a gate, of so many descriptors, that this mix was not built for."""

    def constant_logits(self, value: float) -> None:
        """Set the last layer so that the logits are this value for every x.

        Raises:
            ValueError: there is no layer that could be set.
        """
        raise ValueError("it has no parameters that could be set for that")


class Descriptors(Part):
    """A way to summarise x that is more than the named statistics: see ``describe``."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Descriptors of x, with size 1 on the axes that are pooled."""
        raise NotImplementedError


class Gate(nn.Module):
    r"""One gate: g = activation(mix(statistics of x over all axes but ``keep``)), y = x · g.

    Args:
        keep: the axes the gate keeps, besides N, by letter: "C" channels (*what*), "S" all
            positions (*where*), "T" the position axis of (N, C, L) or the first of
            (N, C, T, H, W) (*when*), "H" and "W"; or several, as in "CT".
        statistics: "mean", "max", "std" and "l2" over all other axes, in the order in which
            ``mix`` receives them; or "identity", x as it is; or a module of ``describe``.
        mix: from descriptors to logits; without one the only descriptor is the logits.
        activation: a name of ``ACTIVATIONS``; "identity" also inside a ``Par`` of logits.
        apply: "multiply", y = x · g, or "add", y = x + g.
        source: a module on whose output, in place of x, the gate is computed.
        start: "paper" leaves the parameters as the mix made them. "identity" makes y = x exactly
            until the first optimiser step: constant logits, under an activation that is 1 there:
            2σ for σ, since 2σ(0) = 1.

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
        keep: str,
        statistics: Sequence[Statistic | Literal["identity"]] | Descriptors,
        mix: Mix | None = None,
        activation: ActivationName = "sigmoid",
        apply: Literal["multiply", "add"] = "multiply",
        source: nn.Module | None = None,
        start: Start = "paper",
    ) -> None:
        owner = type(self).__name__
        check_keep(owner, keep)
        check_choice(owner, "start", start, STARTS)
        check_choice(owner, "apply", apply, ("multiply", "add"))
        super().__init__()
        self.keep = keep
        self.statistics: tuple[Statistic, ...] = ()
        self.describe: Descriptors | None = None
        if isinstance(statistics, Descriptors):
            self.describe = statistics
        elif tuple(statistics) != ("identity",):
            check_distinct(owner, "statistics", statistics, STATISTICS)
            self.statistics = cast(tuple[Statistic, ...], tuple(statistics))
        count = max(1, len(self.statistics))
        if mix is not None:
            mix.check_gate(owner, keep, count)
        elif count > 1:
            raise ValueError(f"{owner}: expected a mix for {count} statistics, got none")
        self.source = source
        self.mix = mix
        self.apply_as = apply
        if start == "identity":
            activation = self._start_as_identity(owner, activation)
        self.activation = Activation(activation)
        self.ranks = ranks_of(keep)
        # What ``ops`` has operations of its own for.
        self.plain = keep in ("C", "S", "T") and bool(self.statistics)
        self.plain = self.plain and mix is not None and source is None and apply == "multiply"

    def _start_as_identity(self, owner: str, activation: ActivationName) -> ActivationName:
        value = 0.0
        if ACTIVATIONS[activation].neutral is None and self.apply_as == "multiply":
            value = 1.0
        try:
            if self.mix is None:
                raise ValueError("it has no parameters")
            self.mix.constant_logits(value)
        except ValueError as error:
            raise ValueError(
                f'{owner}: expected start="paper" for a gate that cannot start as the identity: '
                f'{error}; got "identity"'
            ) from error
        return activation if self.apply_as == "add" else neutral_activation(activation)

    @property
    def kind(self) -> Kind:
        """What the gate attends to: "what", "where", "when", or several at once, "joint"."""
        return kind_of(self.keep)

    @property
    def neutral(self) -> float:
        """The gate that leaves x as it is."""
        return 0.0 if self.apply_as == "add" else 1.0

    def gate(self, x: Tensor) -> Tensor:
        """The gate of x alone, in the dtype of x; pooled axes have size 1."""
        return self.values(x).to(x.dtype)

    def values(self, x: Tensor, *, channel_gate: Tensor | None = None) -> Tensor:
        """The gate of x, or of x · channel_gate if it keeps positions, before any rounding."""
        owner = type(self).__name__
        check_feature_map(owner, x, self.ranks)
        if self.mix is not None and self.source is None and self.describe is None:
            self.mix.check(owner, x)
        descriptors = self.descriptors(x, channel_gate=channel_gate)
        with without_autocast(x):
            return self.squashed(descriptors)

    def descriptors(self, x: Tensor, *, channel_gate: Tensor | None = None) -> Sequence[Tensor]:
        """What the mix of x, or of x · channel_gate, is given; x has been checked."""
        if self.source is not None:
            x = self.source(x)
        if self.describe is not None:
            self.describe.check(type(self).__name__, x)
            with without_autocast(x):
                return cast(tuple[Tensor, ...], self.describe(x))
        if not self.statistics:
            return (x.to(accumulation_dtype(x.dtype)),)
        if self.keep == "C":
            return pool_positions(x, statistics=self.statistics)
        if self.keep == "S":
            return pool_channels(x, statistics=self.statistics, channel_gate=channel_gate)
        if self.keep == "T":
            return pool_frames(x, statistics=self.statistics)
        kept = axes_of(self.keep, x.ndim)
        pooled = [axis for axis in range(1, x.ndim) if axis not in kept]
        if not pooled:  # every element by itself
            alone = pool(x.unsqueeze(-1), [x.ndim], self.statistics)
            return tuple(each.squeeze(-1) for each in alone)
        return pool(x, pooled, self.statistics)

    def squashed(self, descriptors: Sequence[Tensor]) -> Tensor:
        """The gate of these descriptors."""
        logits = descriptors[0] if self.mix is None else self.mix(descriptors)
        return cast(Tensor, self.activation(logits))

    def last_pass(self, x: Tensor) -> LastPass:
        """Compute the gate, and leave its application to the caller; of a plain gate."""
        return x, partial(gated, gates={self.keep: self.gate(x)})

    def forward(self, x: Tensor) -> Tensor:
        """The gated x: same shape and dtype as x."""
        if self.plain:
            x, finish = self.last_pass(x)
            return finish(x)
        gate = self.gate(x)
        return x + gate if self.apply_as == "add" else apply_gate(x, gate)

    def extra_repr(self) -> str:
        """Kept axes, statistics and, where it adds, that, for printing."""
        added = ", apply='add'" if self.apply_as == "add" else ""
        return f"keep={self.keep!r}, statistics={self.statistics}{added}"


def check_dtype(owner: str, x: Tensor, parameter: Tensor) -> None:
    """Refuse an x of another dtype than the parameters, half precision apart."""
    if accumulation_dtype(x.dtype) != accumulation_dtype(parameter.dtype):
        raise ValueError(
            f"{owner}: expected x of the parameters' dtype {parameter.dtype}, or both in float32 "
            f"or half precision, got {x.dtype}"
        )


def gated(
    x: Tensor,
    gates: dict[str, Tensor],
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
