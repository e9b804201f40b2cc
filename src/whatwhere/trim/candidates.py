"""Which gates are constant over data, and which layer each could become part of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whatwhere.look.sums import Sums
from whatwhere.surgery.trace import trace
from whatwhere.trim.layers import Graph, Unfit, probe
from whatwhere.trim.parts import Attached

PROBED = 2  # inputs


@dataclass(frozen=True)
class Left:
    """A gate that is as it was, and why."""

    gate: str
    reason: str


@dataclass(frozen=True)
class Candidate:
    """A gate that can go.

    Attributes:
        gate: its name.
        into: the name of the layer to be scaled; None for a gate that is one.
        factor: what by: one number, or one per channel.
        deviation: the largest distance of any entry from it.
        needs: the gates that have to go as well, since the layer is before them.
    """

    gate: str
    into: str | None
    factor: Tensor
    deviation: float
    needs: tuple[str, ...]


def candidates(
    model: nn.Module,
    sites: Sequence[Attached],
    sums: Mapping[str, Sums],
    inputs: Tensor,
    tolerance: float,
) -> list[Candidate | Left]:
    """For every gate of the sites, in order, whether and how it can go.

    Args:
        model: the network, in evaluation mode.
        sites: what is attached to it.
        sums: of each gate, over the data.
        inputs: a few of the data.
        tolerance: how far a constant gate's entries may be from their mean.
    """
    graph = Graph(model, trace(model, inputs[:1]))
    found: list[Candidate | Left] = []
    for site in sites:
        own: list[Candidate | Left] = []
        for gate in site.gates:
            front = all(isinstance(each, Candidate) for each in own)
            own.append(_candidate(graph, site, sums[gate], inputs[:PROBED], tolerance, front=front))
        found += own
    return found


def _candidate(
    graph: Graph, site: Attached, sums: Sums, inputs: Tensor, tolerance: float, *, front: bool
) -> Candidate | Left:
    if len(site.gates) > 1 and not site.separable:
        return Left(sums.site, f"{site.name} does not come apart")
    if sums.inputs == 0:
        return Left(sums.site, "it did not run")
    from_one = max(
        (sums.largest - sums.neutral).max().item(), (sums.neutral - sums.smallest).max().item()
    )
    as_one = Candidate(sums.site, None, torch.ones(1), from_one, ())
    if from_one == 0:
        return as_one
    if sums.neutral != 1:
        return Left(sums.site, "it adds, and no layer before it can")
    mean, deviation = sums.per_channel()
    if deviation > tolerance:
        reason = f"not constant, up to {deviation:.1e} from its mean"
    elif not front:
        reason = "constant, but behind a gate that stays"
    else:
        layer = graph.layer_before(site.name)
        if not isinstance(layer, Unfit) and probe(graph.model, inputs, layer, site.module, mean):
            needs = site.gates[: site.gates.index(sums.site)]
            return Candidate(sums.site, layer, mean, deviation, needs)
        reason = (
            f"constant, but {layer.reason}"
            if isinstance(layer, Unfit)
            else f"constant, but scaling {layer} is not seen to scale what it multiplies"
        )
    return as_one if from_one <= tolerance else Left(sums.site, reason)
