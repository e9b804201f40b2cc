"""Parameter groups for an optimiser: gates learn at a rate of their own."""

import math
from typing import Any

from torch import nn

from whatwhere.surgery.gated import CHILD, gated_sites


def parameter_groups(model: nn.Module, lr: float, *, gate_lr: float) -> list[dict[str, Any]]:
    """The network's parameters and its gates', in two groups for any optimiser of torch.

    Args:
        model: a network with gates.
        lr: learning rate of the network.
        gate_lr: learning rate of the gates. Those that start as the identity have a last layer of
            zeros, and at the rate of a finetuned network barely leave it.

    Returns:
        ``[{"name": "network", "params": [...], "lr": lr}, {"name": "gates", ...}]``. Every
        parameter that learns is in one of them; frozen ones are left out, and the network's group
        where it would be empty.

    Raises:
        ValueError: the network has no gate that learns, or a rate is no number of at least 0.

    >>> import torch
    >>> from whatwhere.surgery import attend
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> report = attend(network, "se", where="0")
    >>> optimizer = torch.optim.SGD(parameter_groups(network, 0.01, gate_lr=0.1), lr=0.01)
    >>> [(group["name"], len(group["params"]), group["lr"]) for group in optimizer.param_groups]
    [('network', 2, 0.01), ('gates', 4, 0.1)]
    """
    for name, rate in (("lr", lr), ("gate_lr", gate_lr)):
        if not (isinstance(rate, int | float) and 0 <= rate < math.inf):
            raise ValueError(f"parameter_groups: expected {name} to be a number >= 0, got {rate!r}")
    of_gates = {
        id(parameter)
        for site, _ in gated_sites(model)
        for parameter in site.get_submodule(CHILD).parameters()
    }
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gates = [parameter for parameter in learning if id(parameter) in of_gates]
    network = [parameter for parameter in learning if id(parameter) not in of_gates]
    if not gates:
        raise ValueError(
            f"parameter_groups: expected {type(model).__name__} to have gates that learn, got "
            f"{'none' if not of_gates else 'frozen ones alone'}"
        )
    groups = [{"name": "network", "params": network, "lr": lr}] if network else []
    return [*groups, {"name": "gates", "params": gates, "lr": gate_lr}]
