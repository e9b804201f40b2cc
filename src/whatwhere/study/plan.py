"""Before training: the capacity control's width, and what each variant costs."""

from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from torch import nn

from whatwhere import cost
from whatwhere.study.backbones import Backbone, BackboneError
from whatwhere.study.build import build_network
from whatwhere.study.costs import measured_costs
from whatwhere.study.data import StudyData
from whatwhere.study.settings import StudyError, StudySettings, Variant, widened
from whatwhere.surgery import attached

WIDEST = 2.0
SEARCH_STEPS = 24
LATENCY_WIDTHS = tuple(1 + 0.05 * step for step in range(21))


def build(
    backbone: Backbone, variant: Variant, settings: StudySettings, study_data: StudyData
) -> nn.Module:
    """A variant's network, for measuring: the weights of seed 0."""
    return build_network(
        backbone,
        variant,
        where=settings.where,
        start=settings.start,
        shape=study_data.shape,
        seed=0,
    )


def control_variant(
    backbone: Backbone,
    variants: Sequence[Variant],
    settings: StudySettings,
    study_data: StudyData,
) -> Variant | None:
    """The plain network widened to at least the dearest gated variant; None if none is asked for.

    "parameters": the least width at which it has as many parameters. "latency": the least width,
    in steps of 5%, at which its forward pass takes as long.

    Raises:
        StudyError: the backbone can't be widened.
    """
    gated = [variant for variant in variants if variant.role == "attention"]
    if settings.control == "none" or not gated:
        return None
    if not backbone.widens():
        raise StudyError(
            f"expected a backbone that can be widened for --control {settings.control}, and "
            f"{settings.backbone} can't: small, timm's ResNets, torchvision's bottleneck ResNets "
            "and functions with a parameter width can. --control none goes without"
        )
    if settings.control == "parameters":
        target = max(
            cost.parameters(build(backbone, variant, settings, study_data)) for variant in gated
        )
        return widened(_width_for_parameters(backbone, target))
    return widened(_width_for_latency(backbone, gated, settings, study_data))


def _width_for_parameters(backbone: Backbone, target: int) -> float:
    low, high = 1.0, WIDEST
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        try:
            enough = backbone.parameters_at(middle) >= target
        except BackboneError:  # grouped convolutions take some widths only
            low = middle
            continue
        low, high = (low, middle) if enough else (middle, high)
    return high


def _width_for_latency(
    backbone: Backbone,
    gated: Sequence[Variant],
    settings: StudySettings,
    study_data: StudyData,
) -> float:
    x = example_batch(settings, study_data)
    plain = {"plain": backbone.build(seed=0).to(x.device)}
    networks = {v.name: build(backbone, v, settings, study_data).to(x.device) for v in gated}
    measured = cost.latencies({**plain, **networks}, x)
    target = max(median(measured[name].ratios) for name in networks)
    for width in LATENCY_WIDTHS[1:]:
        try:
            wide = {"wide": backbone.build(seed=0, width=width).to(x.device)}
        except BackboneError:
            continue
        if median(cost.latencies({**plain, **wide}, x, seconds=3)["wide"].ratios) >= target:
            return width
    return LATENCY_WIDTHS[-1]


def example_batch(settings: StudySettings, study_data: StudyData) -> torch.Tensor:
    """One training batch's worth of noise on the device that trains."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    count = min(settings.batch_size, len(study_data.train))
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, *study_data.shape, generator=generator).to(device)


def measure(
    backbone: Backbone,
    variants: Sequence[Variant],
    settings: StudySettings,
    study_data: StudyData,
) -> list[dict[str, Any]]:
    """What every variant costs: parameters, MACs, memory; latency interleaved, baseline first."""
    x = example_batch(settings, study_data)
    networks = {v.name: build(backbone, v, settings, study_data).to(x.device) for v in variants}
    costs = measured_costs(networks, x)
    return [
        {
            "name": variant.name,
            "role": variant.role,
            "gate": variant.gate,
            "options": variant.options,
            "width": variant.width,
            "description": _describe(variant, networks[variant.name]),
            "sites": len(attached(networks[variant.name])),
            **costs[variant.name],
        }
        for variant in variants
    ]


def _describe(variant: Variant, network: nn.Module) -> str:
    if variant.role == "baseline":
        return "the network as it is"
    if variant.role == "control":
        return f"the plain network with its channels widened by {100 * (variant.width - 1):.1f}%"
    return f"gates at {len(attached(network))} sites"
