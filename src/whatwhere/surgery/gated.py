"""What a network with gates looks like: each gate is a child of its site, and says what it is."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from whatwhere.gates import Start

CHILD = "attention"


@dataclass(frozen=True)
class AttachedGate:
    """What was put where: enough to build the same gate again."""

    site: str
    gate: str
    channels: int
    ndim: int
    start: Start
    options: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-able values."""
        return asdict(self)


def gated_sites(model: nn.Module) -> list[tuple[nn.Module, AttachedGate]]:
    """The sites that have gates, by their names in this model.

    It may be a part of the one attended, or hold it.
    """
    found = []
    for name, site in model.named_modules():
        description = getattr(getattr(site, CHILD, None), "attachment", None)
        if isinstance(description, AttachedGate):
            found.append((site, replace(description, site=name)))
    return found
