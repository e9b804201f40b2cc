"""Constant gates become part of the layer before them, and the proof that nothing else changes."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from whatwhere.evaluation import evaluating
from whatwhere.look import gates_in, record
from whatwhere.look.ablation import replaced
from whatwhere.look.batches import batches, check_repeatable
from whatwhere.look.sums import Sums
from whatwhere.trim.candidates import Candidate, Left, candidates
from whatwhere.trim.layers import scale, scaled
from whatwhere.trim.parts import attached_gates, take_out


@dataclass(frozen=True)
class Folded:
    """A gate that was constant: its name, what it became part of, its mean and its deviation.

    ``into`` is the name of a convolution, linear layer or norm; None for a gate that was one, and
    just went. ``deviation`` is the largest distance of any entry, on any input, from what it was
    taken for: its channel's mean, or one.
    """

    gate: str
    into: str | None
    mean: float
    deviation: float


@dataclass(frozen=True)
class Folding:
    """What ``fold`` did; print it.

    Attributes:
        folded: the gates that are gone.
        left: the others.
        change: of the outputs over the data, at most ``tolerance``; as ``fold`` states it.
        tolerance: as given.
    """

    folded: tuple[Folded, ...]
    left: tuple[Left, ...]
    change: float
    tolerance: float

    def __str__(self) -> str:
        total = len(self.folded) + len(self.left)
        lines = [
            f"{len(self.folded)} of {total} gates folded, outputs changed by {self.change:.1e} of "
            f"the largest (tolerance {self.tolerance:g})"
        ]
        for each in self.folded:
            into = "was one" if each.into is None else f"into {each.into}"
            lines.append(f"  {each.gate}: {into}, mean {each.mean:.4f} ± {each.deviation:.1e}")
        lines += [f"  left {each.gate}: {each.reason}" for each in self.left]
        return "\n".join(lines)


def fold(model: nn.Module, data: Iterable[Any], *, tolerance: float = 1e-3) -> Folding:
    """Make gates that are constant over data part of the layer before them, in place.

    A gate is constant if no entry, on any input, is further than ``tolerance`` from its channel's
    mean; a where or when gate, and one over all channels, from its only mean. The mean is
    multiplied into the weight and bias of the layer (convolution, linear, norm) that made what the
    gate multiplies: directly before it, or before steps that multiples pass through (ReLU, leaky
    ReLU, pooling, dropout).
    Only a gate at the front of its site goes this way, for those behind it see what it gated;
    behind it, and where there is no such layer, a gate goes if it is one up to ``tolerance``.

    Then both networks run on the data. If

        max |after - before| / max |before|  ≤  tolerance,

    both over all inputs and entries of an output, and the largest over the outputs if there are
    several, the gates are taken out. If not, they are tried one after another, and those that
    would exceed it stay, their layers' weights as they were bit for bit. On other data, a gate
    may not have been constant.

    Args:
        model: a network with gates that ``attend`` put in, whose forward takes one tensor.
        data: batches of inputs (N, C, *S), or pairs of inputs and targets, which are not used.
            More than once gone through, in any order.
        tolerance: as above.

    Returns:
        What was folded, and why the others were not; print it.

    Raises:
        ValueError: no gates that ``attend`` put in, no inputs, data that can be gone through once
            only, outputs without floating-point tensors, or a gate with NaN.

    >>> import torch, whatwhere
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    >>> gates = whatwhere.attend(network, "channel", where="0", example=torch.zeros(1, 1, 8, 8))
    >>> whatwhere.fold(network, [torch.randn(8, 1, 8, 8)]).folded
    (Folded(gate='0.attention', into=None, mean=1.0, deviation=0.0),)
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"fold: expected tolerance to be at least 0, got {tolerance!r}")
    check_repeatable("fold", data, "for the gates first and the outputs then")
    sites = attached_gates(model)
    if not sites:
        raise ValueError("fold: expected a network with gates that attend put in, got one without")
    # Code that was compiled before would not run the hooks.
    with evaluating(model), torch.compiler.set_stance("force_eager"):
        sums = _measure(model, data)
        inputs = next(batches("fold", model, data)).inputs
        found = candidates(model, sites, sums, inputs, tolerance)
        going = [each for each in found if isinstance(each, Candidate)]
        left = [each for each in found if isinstance(each, Left)]
        change = _change(model, data, going)
        if not change <= tolerance:
            going, undone, change = _one_by_one(model, data, going, tolerance)
            left += undone
        for name, factor in _factors(going):
            scale(model.get_submodule(name), factor)
    take_out(model, [each.gate for each in going])
    folded = tuple(
        Folded(each.gate, each.into, sums[each.gate].mean().mean().item(), each.deviation)
        for each in going
    )
    return Folding(folded, tuple(left), change, tolerance)


def _measure(model: nn.Module, data: Iterable[Any]) -> dict[str, Sums]:
    gates = gates_in(model)
    sums = {name: Sums(name, gate, owner="fold") for name, gate in gates.items()}
    inputs = 0
    for batch in batches("fold", model, data):
        inputs += len(batch.inputs)
        with record(model) as recorded:
            model(batch.inputs)
        for name, calls in recorded.items():
            for call in calls:
                sums[name].add(call)
    if inputs == 0:
        raise ValueError("fold: expected at least one input, got none")
    return sums


def _one_by_one(
    model: nn.Module, data: Iterable[Any], going: Sequence[Candidate], tolerance: float
) -> tuple[list[Candidate], list[Left], float]:
    """Those that can go together, why the others can't, and what those change."""
    accepted: list[Candidate] = []
    left, change = [], 0.0
    for each in going:
        stay = set(each.needs) - {other.gate for other in accepted}
        if stay:
            left.append(Left(each.gate, "constant, but behind a gate that stays"))
            continue
        found = _change(model, data, [*accepted, each])
        if found <= tolerance:
            accepted.append(each)
            change = found
        else:
            left.append(Left(each.gate, f"undone, outputs would change by {found:.1e}"))
    return accepted, left, change


def _factors(going: Iterable[Candidate]) -> list[tuple[str, Tensor]]:
    return [(each.into, each.factor) for each in going if each.into is not None]


@contextmanager
def _without(model: nn.Module, going: Sequence[Candidate]) -> Iterator[None]:
    """The network as it will be, for the length of a block."""
    gates = gates_in(model)
    with ExitStack() as stack:
        stack.enter_context(scaled(model, _factors(going)))
        for each in going:
            stack.enter_context(replaced(gates[each.gate], torch.ones(())))
        yield


def _change(model: nn.Module, data: Iterable[Any], going: Sequence[Candidate]) -> float:
    """How far the outputs move when gates go, relative to the largest; see ``fold``."""
    if not going:
        return 0.0
    moved: dict[int, float] = defaultdict(float)
    largest: dict[int, float] = defaultdict(float)
    for batch in batches("fold", model, data):
        before = _outputs(model, batch.inputs)
        with _without(model, going):
            after = _outputs(model, batch.inputs)
        if [each.shape for each in before] != [each.shape for each in after]:
            return math.inf
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            if not (old.isfinite().all() and new.isfinite().all()):
                return math.inf
            if old.numel() > 0:
                moved[index] = max(moved[index], (new - old).abs().max().item())
                largest[index] = max(largest[index], old.abs().max().item())
    pairs = [(moved[index], largest[index]) for index in moved]
    return max((_relative(by, of) for by, of in pairs), default=0.0)


def _relative(by: float, of: float) -> float:
    if of == 0:
        return 0.0 if by == 0 else math.inf
    return by / of


def _outputs(model: nn.Module, inputs: Tensor) -> list[Tensor]:
    leaves = tree_leaves(model(inputs))
    found = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    if not found:
        raise ValueError(
            f"fold: expected {type(model).__name__} to give floating-point tensors to compare, got "
            f"{[type(leaf).__name__ for leaf in leaves]}"
        )
    return [each.detach().to("cpu", torch.float64) for each in found]
