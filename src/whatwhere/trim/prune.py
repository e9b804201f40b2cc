"""Taking out the gates that a diagnosis found to do nothing for the score."""

from dataclasses import dataclass

from torch import nn

from whatwhere.look import Diagnosis, gates_in
from whatwhere.trim.parts import take_out


@dataclass(frozen=True)
class Pruning:
    """What ``prune`` did; print it.

    Attributes:
        removed: names of the gates that were taken out.
        kept: names of the others.
        parameters_removed: how many values went with them.
    """

    removed: tuple[str, ...]
    kept: tuple[str, ...]
    parameters_removed: int

    def __str__(self) -> str:
        lines = [
            f"{len(self.removed)} of {len(self.removed) + len(self.kept)} gates removed, "
            f"{self.parameters_removed:,} parameters"
        ]
        return "\n".join([*lines, *(f"  {name}" for name in self.removed)])


def prune(model: nn.Module, report: Diagnosis) -> Pruning:
    """Take out, in place, the gates whose advice in a diagnosis is "remove".

    Without its channel part a CBAM goes on as one of the other parts, with their very modules, and
    a site whose gates all go is as before ``attend``. Checkpoints saved afterwards build the gates
    that are left. The diagnosis measured each gate alone: several that do nothing one by one may
    do something together, so measure the score afterwards, or diagnose and prune again.

    Build the optimiser afterwards, or it will hold parameters that no longer are.

    Args:
        model: the network that was diagnosed, with gates that ``attend`` put in.
        report: from ``diagnose`` with targets.

    Raises:
        ValueError: the report has no costs, or is of a network with other gates, or one of the
            gates to be removed was not put in by ``attend``. The network is then unchanged.

    >>> import torch, whatwhere
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> gates = whatwhere.attend(network, "cbam", where="0", example=torch.zeros(1, 1, 8, 8))
    >>> data = [(torch.randn(400, 1, 8, 8), torch.randint(4, (400,)))]
    >>> print(prune(network, whatwhere.diagnose(network, data)))
    2 of 2 gates removed, 106 parameters
      0.attention.gates.channel
      0.attention.gates.spatial
    """
    if not isinstance(report, Diagnosis):
        raise ValueError(f"prune: expected a report from diagnose, got {type(report).__name__}")
    if any(each.advice is None for each in report):
        raise ValueError(
            "prune: expected a report with the costs of the gates, got one without: diagnose the "
            "network on data with targets"
        )
    own = {name: gate.kind for name, gate in gates_in(model).items()}
    others = [each.site for each in report if own.get(each.site) != each.kind]
    if others:
        raise ValueError(
            f"prune: expected a report of this network, which has no gates {others} of the same "
            "kinds"
        )
    removed = tuple(each.site for each in report if each.advice == "remove")
    before = _parameters(model)
    take_out(model, removed)
    kept = tuple(name for name in own if name not in removed)
    return Pruning(removed, kept, before - _parameters(model))


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
