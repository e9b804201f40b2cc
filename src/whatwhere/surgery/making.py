"""Gates for sites: built to fit, on the site's device and in its dtype, and checked."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from whatwhere.evaluation import evaluating
from whatwhere.gates import Start, build
from whatwhere.surgery.gated import CHILD, AttachedGate
from whatwhere.surgery.inputs import Example
from whatwhere.surgery.places import Site
from whatwhere.surgery.trace import trace


def made(
    model: nn.Module,
    gate: str,
    site: Site,
    start: Start,
    options: dict[str, Any],
    *,
    replaces: bool,
) -> tuple[nn.Module, AttachedGate]:
    """A gate for a site, and what it is.

    Raises:
        ValueError: the gate or its options are not what was expected.
        RuntimeError: an identity start that is none.
    """
    if options.get("form") == "dense" and "frames" not in options:
        options = {**options, "frames": "site"}
    if options.get("frames") == "site":
        options = {**options, "frames": site.resolution[0]}
    options = {key: value(site) if callable(value) else value for key, value in options.items()}
    module = build(gate, site.channels, ndim=site.ndim, start=start, **options)
    module = fitted(module, model.get_submodule(site.name), model)
    if start == "identity":
        _check_identity(module, site)
    description = AttachedGate(
        site=site.name,
        gate=gate,
        channels=site.channels,
        ndim=site.ndim,
        start=start,
        options=dict(options),
        argument=site.argument,
        replaces=replaces,
        channels_last=site.channels_last,
    )
    return module, description


def fitted(gate: nn.Module, site: nn.Module, model: nn.Module) -> nn.Module:
    """The gate on the device and in the floating-point dtype of its site, or of the network."""
    for parameter in (*site.parameters(), *model.parameters()):
        if parameter.is_floating_point():
            return gate.to(device=parameter.device, dtype=parameter.dtype)
    return gate


def _check_identity(gate: nn.Module, site: Site) -> None:
    parameter = next(gate.parameters())
    if parameter.is_meta:
        return
    frames = site.resolution[:1]  # as built for; the other axes may have any length
    shape = (2, site.channels, *frames, *(3,) * (site.ndim - 1))
    # Nothing random: a check must not change the weights that the next gate draws.
    x = torch.linspace(-1, 1, math.prod(shape), device=parameter.device).reshape(shape)
    x = x.to(parameter.dtype)
    with evaluating(gate):
        unchanged = torch.equal(gate(x), x)
    if not unchanged:
        raise RuntimeError(f"the gate after {site.name} does not start as the identity")


def check_runs(model: nn.Module, sites: Sequence[Site], example: Example | None) -> None:
    """Refuse gates that can't run where they are, or that their site runs by itself as well."""
    runs = trace(model, example).runs
    for site in sites:
        times = runs[f"{site.name}.{CHILD}"]
        if times != runs[site.name]:
            raise ValueError(
                f"attend: expected the gate after {site.name} to run once with it, got {times} "
                f"times in {runs[site.name]} runs: it runs every child it has; name another module"
            )
