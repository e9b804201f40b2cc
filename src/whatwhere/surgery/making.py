"""Gates for sites: built to fit, on the site's device and in its dtype, and checked."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from whatwhere.evaluation import evaluating
from whatwhere.gates import Start, build, needed_options
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
    options = {key: value(site) if callable(value) else value for key, value in options.items()}
    options = _sized(gate, site, options)
    module = build(gate, site.channels, ndim=site.ndim, start=start, **options)
    module = fitted(module, model.get_submodule(site.name), model)
    if start == "identity":
        _check_identity(module, site, sized="resolution" in options)
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


def _sized(gate: str, site: Site, options: dict[str, Any]) -> dict[str, Any]:
    """The options with what only the site knows: its frames, its resolution."""
    missing = [each for each in needed_options(gate) if each not in options]
    if options.get("form") == "dense" and "frames" not in options:
        missing.append("frames")
    asked = {**options, **dict.fromkeys(missing, "site")}
    known = {"frames": site.resolution[0], "resolution": tuple(site.resolution)}
    return {
        name: known[name] if name in known and value == "site" else value
        for name, value in asked.items()
    }


def fitted(gate: nn.Module, site: nn.Module, model: nn.Module) -> nn.Module:
    """The gate on the device and in the floating-point dtype of its site, or of the network."""
    for parameter in (*site.parameters(), *model.parameters()):
        if parameter.is_floating_point():
            return gate.to(device=parameter.device, dtype=parameter.dtype)
    return gate


def _check_identity(gate: nn.Module, site: Site, *, sized: bool) -> None:
    parameter = next(gate.parameters())
    if parameter.is_meta:
        return
    # Frames as built for; the other axes may have any length, but for gates of one resolution.
    rest = site.resolution[1:] if sized else (3,) * (site.ndim - 1)
    shape = (2, site.channels, site.resolution[0], *rest)
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
