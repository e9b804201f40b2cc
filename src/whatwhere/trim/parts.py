"""The single gates of an attended network, and taking some of them out.

A CBAM in sequence comes apart: without its channel part it is the CBAM of the other parts, and
says so in its description, so that checkpoints build the same again. Any other gate goes whole.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, cast

from torch import nn

from whatwhere.gates import CBAM, Seq
from whatwhere.look import gates_in
from whatwhere.surgery import AttachedGate, attached, detach
from whatwhere.surgery.gated import CHILD, gated_sites


@dataclass(frozen=True)
class Attached:
    """What is attached at one site.

    Attributes:
        site: its name.
        name: that of what is attached.
        gates: the names of the single gates in it, in the order in which they run; their last
            part is that of the CBAM's part where ``separable``.
        separable: whether one can go and the others stay.
    """

    site: str
    name: str
    module: nn.Module
    gates: tuple[str, ...]
    separable: bool


def attached_gates(model: nn.Module) -> tuple[Attached, ...]:
    """What is attached to a network, site by site.

    Raises:
        RuntimeError: a gate has lost the hook that applies it.

    >>> from whatwhere import attend
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> report = attend(network, "cbam", where="0")
    >>> attached_gates(network)[0].gates
    ('0.attention.gates.channel', '0.attention.gates.spatial')
    """
    attached(model)  # checks the hooks
    found = []
    for site, description in gated_sites(model):
        module: Any = getattr(site, CHILD)
        name = f"{description.site}.{CHILD}".lstrip(".")
        separable = (
            description.gate == "cbam" and type(module) is CBAM and type(module.gates) is Seq
        )
        inside = gates_in(module)
        gates = tuple(f"{name}.{each}".rstrip(".") for each in inside)
        found.append(Attached(description.site, name, module, gates, separable))
    return tuple(found)


def take_out(model: nn.Module, gates: Iterable[str]) -> None:
    """Take single gates out of a network, by name.

    Raises:
        ValueError: there is no such gate, ``attend`` did not put it there, or it is one of several
            that don't come apart. The network is then unchanged.
    """
    wanted = set(gates)
    sites = attached_gates(model)
    unknown = wanted - {name for each in sites for name in each.gates}
    if unknown:
        raise ValueError(
            f"expected gates that attend put in, {type(model).__name__} has none of the names "
            f"{sorted(unknown)}"
        )
    whole, parts = [], []
    for each in sites:
        gone = [name for name in each.gates if name in wanted]
        if len(gone) == len(each.gates):
            whole.append(each.site)
        elif gone and not each.separable:
            raise ValueError(
                f"expected to take out what is attached to {each.site!r} as a whole, which does "
                f"not come apart, got {gone} of {list(each.gates)}"
            )
        elif gone:
            parts.append((each, gone))
    for each, gone in parts:
        _take_parts(each.module, [name.rpartition(".")[2] for name in gone])
    if whole:
        detach(model, sites=whole)


def _take_parts(module: Any, parts: Iterable[str]) -> None:
    for part in parts:
        delattr(module.gates, part)
    left = list(module.gates._modules)
    description: AttachedGate = module.attachment
    options = {**description.options, "order": "-".join(left)}
    if "temporal" not in left:
        options.pop("frames", None)
    cast(Any, module).attachment = replace(description, options=options)
