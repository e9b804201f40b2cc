"""Networks of papers by name: "resnet50", "resnet50-cbam", "mobilenet_0.7-se"."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from whatwhere.checks import check_choice
from whatwhere.paper.attention import (
    MOBILENET,
    RESNET,
    attend_mobilenet,
    attend_resnet,
)
from whatwhere.paper.networks import MobileNet, ResNet

RESNETS: Mapping[str, Mapping[str, Any]] = {
    "resnet18": {"depth": 18},
    "resnet34": {"depth": 34},
    "resnet50": {"depth": 50},
    "resnet101": {"depth": 101},
    "wrn18_1.5": {"depth": 18, "widen": 1.5},
    "wrn18_2.0": {"depth": 18, "widen": 2.0},
    "resnext50_32x4d": {"depth": 50, "groups": 32, "width_per_group": 4},
    "resnext101_32x4d": {"depth": 101, "groups": 32, "width_per_group": 4},
}
MOBILENETS: Mapping[str, Mapping[str, Any]] = {
    "mobilenet_0.7": {"alpha": 0.7},
    "mobilenet_1.0": {"alpha": 1.0},
}


def network_names() -> tuple[str, ...]:
    """The plain networks.

    >>> network_names()[:3]
    ('resnet18', 'resnet34', 'resnet50')
    """
    return (*RESNETS, *MOBILENETS)


def attentions(network: str) -> tuple[str, ...]:
    """The attention that a network was published with.

    Raises:
        ValueError: there is no such network.

    >>> attentions("mobilenet_0.7")
    ('se', 'cbam')
    """
    check_choice("paper", "network", network, network_names())
    if network in MOBILENETS:
        return tuple(MOBILENET)
    with_eca = set(RESNETS[network]) == {"depth"}  # its kernels are given for these alone
    return tuple(name for name in RESNET if name != "eca" or with_eca)


def build(name: str, *, classes: int = 1000, in_channels: int = 3, width: float = 1.0) -> nn.Module:
    """A network of a paper, with the attention that the name asks for.

    Args:
        name: one of ``network_names()``, or with one of its ``attentions``: "resnet50-cbam".
        classes: number of classes.
        in_channels: channels of x.
        width: a factor on the network's channels, those of a ResNet's stem excepted.

    Returns:
        A network for (N, in_channels, H, W); its gates start as published.

    Raises:
        ValueError: no such network or attention, or a gate that can't be built for its channels.

    >>> from whatwhere.cost import parameters
    >>> parameters(build("resnet18-cbam")) - parameters(build("resnet18"))
    89880
    """
    network, attention = _parse(name)
    arguments = recipe(name, classes=classes, in_channels=in_channels, width=width)["arguments"]
    if network in MOBILENETS:
        built: nn.Module = MobileNet(**arguments)
        if attention is not None:
            attend_mobilenet(built, attention)
        return built
    built = ResNet(**arguments)
    if attention is not None:
        attend_resnet(built, attention, arguments["depth"])
    return built


def recipe(
    name: str, *, classes: int = 1000, in_channels: int = 3, width: float = 1.0
) -> dict[str, Any]:
    """What ``whatwhere.save`` is told of how such a network is built without its gates.

    Raises:
        ValueError: no such network or attention.

    >>> recipe("mobilenet_0.7-se")["arguments"]
    {'alpha': 0.7, 'classes': 1000, 'in_channels': 3}
    """
    network, _ = _parse(name)
    kind, arguments = (
        (MobileNet, dict(MOBILENETS[network]))
        if network in MOBILENETS
        else (ResNet, {"widen": 1.0, **RESNETS[network]})
    )
    factor = "alpha" if network in MOBILENETS else "widen"
    arguments[factor] = arguments[factor] * width
    return {
        "network": f"{kind.__module__}.{kind.__name__}",
        "arguments": {**arguments, "classes": classes, "in_channels": in_channels},
    }


def _parse(name: str) -> tuple[str, str | None]:
    network, dash, attention = name.partition("-")
    check_choice("paper", "network", network, network_names())
    if not dash:
        return network, None
    check_choice(f"paper/{network}", "attention", attention, attentions(network))
    return network, attention
