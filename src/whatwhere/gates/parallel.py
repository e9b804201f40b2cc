"""Gates side by side, all on the same x: ``Par``; each on channels of its own: ``Split``."""

from collections.abc import Sequence
from functools import reduce
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from whatwhere.checks import check_axis_size, check_choice, check_feature_map
from whatwhere.gates.activations import Activation, ActivationName, neutral_activation
from whatwhere.gates.algebra import STARTS, Gate, Mix, Start, scaled
from whatwhere.gates.axes import Kind
from whatwhere.gates.composition import check_gates
from whatwhere.ops import accumulation_dtype, without_autocast

Join = Literal["logits", "logit_product", "gates", "mean", "sum", "max"]
LOGIT_JOINS = ("logits", "logit_product")


class Par(nn.Module):
    """Gates side by side, all computed on the same x and joined into one.

    Args:
        join: "logits": y = x · activation(Σ logits), so the gates inside have the activation
            "identity"; "logit_product": of Π logits. "gates": y = x · Π gates. "mean", "sum" and
            "max": of the gated outputs, so y = x · Σ gates for "sum".
        activation: of the joined logits; only where logits are joined, and "sigmoid" if not given.
        trunk: a mix that goes over the descriptors of all gates, of one statistic each, before
            their own mixes.
        trunk_over: "all": over the positions of all of them in one row, so that norms in the
            trunk see them together; "each": one gate's after the other's.
        source: a module on whose output, in place of x, the gates are computed.
        start: as for ``Gate``; only where logits are joined.

    >>> from whatwhere.gates import ChannelAttention, SpatialAttention
    >>> both = Par(join="gates", channel=ChannelAttention(8), spatial=SpatialAttention())
    >>> both.gate(torch.ones(2, 8, 5, 5)).shape
    torch.Size([2, 8, 5, 5])
    """

    kind: Kind = "joint"
    neutral = 1.0

    def __init__(
        self,
        *,
        join: Join,
        activation: ActivationName | None = None,
        trunk: Mix | None = None,
        trunk_over: Literal["all", "each"] | None = None,
        source: nn.Module | None = None,
        start: Start = "paper",
        **gates: nn.Module,
    ) -> None:
        check_choice("Par", "join", join, get_args(Join))
        check_choice("Par", "start", start, STARTS)
        check_gates("Par", gates)
        if join not in LOGIT_JOINS and (activation is not None or start != "paper"):
            raise ValueError(
                'Par: expected activation and start only with join="logits" or "logit_product"; '
                f"else each gate has its own, got activation={activation!r}, start={start!r}"
            )
        if (trunk is None) != (trunk_over is None):
            raise ValueError(
                f"Par: expected trunk_over with a trunk and only then, got {trunk_over!r}"
            )
        super().__init__()
        self.join = join
        self.source = source
        self.trunk = trunk
        self.trunk_over = trunk_over
        for name, gate in gates.items():
            self.add_module(name, gate)
        self._parts = tuple(gates)
        if join in LOGIT_JOINS:
            activation = "sigmoid" if activation is None else activation
            self._check_raw(gates)
            if start == "identity":
                activation = neutral_activation(activation)
                self._zero_logits()
            self.activation = Activation(activation)

    @staticmethod
    def _check_raw(gates: dict[str, nn.Module]) -> None:
        for name, gate in gates.items():
            if not isinstance(gate, Gate) or gate.activation.name != "identity":
                raise ValueError(
                    'Par: expected every gate joined by its logits to be a Gate with activation="'
                    f'identity", got {name}={gate!r}'
                )

    def _zero_logits(self) -> None:
        # Of a product one factor: with all at 0, none would have a gradient.
        for gate in self.parts if self.join == "logits" else self.parts[-1:]:
            cast(Mix, gate.mix).constant_logits(0.0)

    @property
    def parts(self) -> list[Any]:
        """The gates."""
        return [getattr(self, part) for part in self._parts]

    def gate(self, x: Tensor) -> Tensor:
        """The joined gate, broadcast to the axes that any of the gates keeps, in x's dtype."""
        return self.values(x).to(x.dtype)

    def values(self, x: Tensor) -> Tensor:
        """The joined gate before any rounding."""
        gates = self._gates(x if self.source is None else self.source(x))
        if self.join == "max":
            return reduce(lambda a, b: _larger(x, a, b), gates)
        product = self.join in ("gates", "logit_product")
        total: Tensor = gates[0]
        for gate in gates[1:]:
            total = total * gate if product else total + gate
        if self.join == "mean":
            return total / len(gates)
        return self.activation(total) if self.join in LOGIT_JOINS else total

    def _gates(self, x: Tensor) -> list[Tensor]:
        if self.trunk is None:
            return [values_of(part, x) for part in self.parts]
        with without_autocast(x):
            check_feature_map("Par", x, self.parts[0].ranks)
            self.trunk.check("Par", x)
            descriptors = [part.descriptors(x)[0] for part in self.parts]
            if self.trunk_over == "each":
                mixed = [self.trunk([each]) for each in descriptors]
            else:
                mixed = _in_one_row(self.trunk, descriptors)
            pairs = zip(self.parts, mixed, strict=True)
            return [part.squashed([each]) for part, each in pairs]

    def forward(self, x: Tensor) -> Tensor:
        """The gated x: same shape and dtype as x."""
        return scaled(x, self.values(x))

    def extra_repr(self) -> str:
        """The join and where the trunk goes, for printing."""
        over = "" if self.trunk is None else f", trunk_over={self.trunk_over!r}"
        return f"join={self.join!r}{over}"


def values_of(part: Any, x: Tensor) -> Tensor:
    """The gate of x before any rounding, of what can tell it so."""
    values: Tensor = part.values(x) if hasattr(part, "values") else part.gate(x)
    return values.to(accumulation_dtype(x.dtype))


def _larger(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    # x · a is the larger of two where a is and x > 0; at 0, where both are, a maximum of outputs
    # gives each half of the gradient.
    extreme = torch.where(x > 0, torch.maximum(a, b), torch.minimum(a, b))
    return torch.where(x == 0, (a + b) / 2, extreme)


def _in_one_row(trunk: Mix, descriptors: Sequence[Tensor]) -> list[Tensor]:
    shapes = [tuple(each.shape[2:]) for each in descriptors]
    rows = [each.flatten(2) for each in descriptors]
    mixed: Tensor = trunk([torch.cat(rows, 2)])
    parts = mixed.split([row.shape[2] for row in rows], 2)
    return [part.unflatten(2, shape) for part, shape in zip(parts, shapes, strict=True)]


class Split(nn.Module):
    """Gates side by side, each on its own share of the channels, all as large.

    Args:
        channels: C.
        groups: the channels fall into so many runs, and each run is shared out by itself.
        shuffle: whether the output's channels come in another order, those of the first half and
            those of the second in turn, so that a next layer's groups see both.

    >>> from whatwhere.gates import ChannelAttention
    >>> halves = Split(8, a=ChannelAttention(4), b=ChannelAttention(4))
    >>> halves.gate(torch.ones(2, 8, 5, 5)).shape
    torch.Size([2, 8, 5, 5])
    """

    def __init__(
        self, channels: int, *, groups: int = 1, shuffle: bool = False, **gates: nn.Module
    ) -> None:
        check_gates("Split", gates)
        if channels % (groups * len(gates)) or (shuffle and channels % 2):
            raise ValueError(
                f"Split: expected channels that {len(gates)} gates share in {groups} groups, "
                f"got {channels}"
            )
        super().__init__()
        self.channels = channels
        self.groups = groups
        self.shuffle = shuffle
        for name, gate in gates.items():
            self.add_module(name, gate)

    def gate(self, x: Tensor) -> Tensor:
        """The gate of every channel, in the order of x and in its dtype."""
        return self.values(x).to(x.dtype)

    def values(self, x: Tensor) -> Tensor:
        """The gate of every channel before any rounding."""
        check_axis_size("Split", x, 1, "channels", self.channels)
        parts: list[Any] = list(self.children())
        runs = x.unflatten(1, (self.groups, len(parts), -1))
        shares = [runs[:, :, place].flatten(1, 2) for place in range(len(parts))]
        gates = [
            values_of(part, share).expand_as(share)
            for part, share in zip(parts, shares, strict=True)
        ]
        split = [gate.unflatten(1, (self.groups, -1)) for gate in gates]
        return torch.stack(split, 2).flatten(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        """The gated x, of the same shape and dtype, its channels shuffled if asked."""
        y = scaled(x, self.values(x))
        if not self.shuffle:
            return y
        halves: Tensor = y.unflatten(1, (2, self.channels // 2))
        return halves.transpose(1, 2).flatten(1, 2)

    def extra_repr(self) -> str:
        """Groups and order, for printing."""
        return f"groups={self.groups}, shuffle={self.shuffle}"
