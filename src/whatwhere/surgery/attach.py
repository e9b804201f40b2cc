"""Put gates into a network, and take them out again.

A gate becomes the child ``attention`` of its site, and a forward hook of the site applies it. No
module is replaced and none is renamed, so existing state_dict keys stay as they are. The hook is
a plain function, so that copies and pickles of the network carry it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from whatwhere.checks import check_choice
from whatwhere.evaluation import evaluating
from whatwhere.gates import Start, build
from whatwhere.gates.algebra import STARTS
from whatwhere.surgery.deferred import Last
from whatwhere.surgery.fusion import apply_attention
from whatwhere.surgery.fusion import fuse as fuse_gates
from whatwhere.surgery.gated import CHILD, AttachedGate, gated_sites
from whatwhere.surgery.life import describe_in_state_dict
from whatwhere.surgery.sites import Site, Skipped, Survey, block_sites, named_sites
from whatwhere.surgery.trace import trace


@dataclass(frozen=True)
class Report:
    """What ``attend`` did; print it."""

    gate: str
    start: Start
    sites: tuple[Site, ...]
    skipped: tuple[Skipped, ...]
    parameters_added: int
    fused: dict[str, Last]

    def __str__(self) -> str:
        width = max(len(site.name) for site in self.sites)
        lines = [
            f"{self.gate} (start={self.start}) after {len(self.sites)} modules, "
            f"{self.parameters_added:,} parameters added"
        ]
        for site in self.sites:
            size = "×".join(str(length) for length in site.resolution)
            line = f"  {site.name:<{width}}  {site.channels:>5} channels  {size}"
            if site.name in self.fused:
                line += "  fused with add" + (", relu" if self.fused[site.name] == "relu" else "")
            lines.append(line)
        lines += [f"  skipped {each.name}: {each.reason}" for each in self.skipped]
        return "\n".join(lines)


def attend(
    model: nn.Module,
    gate: str = "cbam",
    *,
    where: str | Sequence[str] = "blocks",
    start: Start = "identity",
    fuse: bool = False,
    example: Tensor | None = None,
    **options: Any,
) -> Report:
    """Put a gate into a network at every site, in place.

    Args:
        model: any network whose forward takes one tensor.
        gate: one of ``whatwhere.names()``.
        where: "blocks" for the end of every residual branch, before its addition, or the
            qualified names of modules whose outputs are gated, as patterns: ``"layer?"``,
            ``["encoder.1", "encoder.3"]``.
        start: "identity" leaves the network's output as it was, bit for bit, until trained;
            "paper" starts the gates as published, which halves what they gate.
        fuse: whether gates add their block's shortcut and apply its ReLU in their own last pass
            on the CPU, where one run shows that nothing else happens to their output: equal up to
            rounding, and faster. The report says which sites do.
        example: an input, where the model's first convolution does not show it.
        **options: of the gate, as in ``whatwhere.build``; ``frames="site"`` is each site's own
            number of frames, as the dense temporal form has it if not told otherwise.

    Returns:
        A report of the sites, to print.

    Raises:
        ValueError: no site was found or, with ``fuse``, none that fuses, the network has gates
            already, or an argument is bad. The network is then unchanged.

    The network keeps its modules and their names; only keys with ``.attention.`` are new.

    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> print(attend(network, "se", where="0", reduction_ratio=4))
    se (start=identity) after 1 modules, 42 parameters added
      0      8 channels  222×222
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"attend: expected a torch.nn.Module, got {type(model).__name__}")
    check_choice("attend", "start", start, STARTS)
    present = attached(model)
    if present:
        raise ValueError(
            f"attend: expected a network without gates, got one with {len(present)} "
            f"({present[0].gate} at {present[0].site}, ...); call detach(model) first"
        )
    survey = _survey(model, where, example)
    gates = [_build(model, gate, site, start, options) for site in survey.sites]
    for site, (module, description) in zip(survey.sites, gates, strict=True):
        _attach(model.get_submodule(site.name), module, description)
    try:
        _check_runs(model, survey.sites, example)
        fused = fuse_gates(model, example=example) if fuse else {}
    except ValueError:
        detach(model)
        raise
    added = sum(parameter.numel() for module, _ in gates for parameter in module.parameters())
    return Report(gate, start, survey.sites, survey.skipped, added, fused)


def reattach(model: nn.Module, gates: Sequence[AttachedGate]) -> None:
    """Put described gates back into a network of the same shape, as loading a checkpoint does.

    Raises:
        ValueError: a site is missing or has a gate already. The network is then unchanged.
    """
    modules = dict(model.named_modules())
    missing = [
        each.site
        for each in gates
        if each.site not in modules or hasattr(modules[each.site], CHILD)
    ]
    if missing:
        raise ValueError(
            f"reattach: expected {type(model).__name__} to have the modules {missing} without an "
            f"attribute {CHILD!r}; is it the network the gates were made for, without gates there?"
        )
    built = [
        build(each.gate, each.channels, ndim=each.ndim, start=each.start, **each.options)
        for each in gates
    ]
    for each, module in zip(gates, built, strict=True):
        site = modules[each.site]
        _attach(site, _placed(module, site, model), each)


def attached(model: nn.Module) -> tuple[AttachedGate, ...]:
    """The gates a network has, in the order of its modules.

    Raises:
        RuntimeError: a gate has lost the hook that applies it, so that it would never run.
    """
    found = gated_sites(model)
    for site, description in found:
        if apply_attention not in site._forward_hooks.values():
            raise RuntimeError(
                f"the gate {description.site}.{CHILD} is no longer applied: its hook was "
                "dropped; detach(model) takes it out, and attend puts one in again"
            )
    return tuple(description for _, description in found)


def detach(model: nn.Module, *, sites: Sequence[str] | None = None) -> tuple[AttachedGate, ...]:
    """Take out gates that ``attend`` put in; a network without any has its very modules again.

    Args:
        model: the network.
        sites: the names of the sites to take them from; all of them if not given.

    Returns:
        The descriptions of the gates taken out.

    Raises:
        ValueError: one of the sites has no gate. The network is then unchanged.

    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> keys = list(network.state_dict())
    >>> report = attend(network, "channel", where="0")
    >>> len(detach(network)), list(network.state_dict()) == keys
    (1, True)
    """
    found = gated_sites(model)
    if sites is not None:
        gated = [description.site for _, description in found]
        unknown = [name for name in sites if name not in gated]
        if isinstance(sites, str) or unknown:
            raise ValueError(f"detach: expected names among the gated sites {gated}, got {sites!r}")
        found = [(site, description) for site, description in found if description.site in sites]
    for site, _ in found:
        for key, hook in list(site._forward_hooks.items()):
            if hook is apply_attention:
                del site._forward_hooks[key]
        delattr(site, CHILD)
    return tuple(description for _, description in found)


def _survey(model: nn.Module, where: str | Sequence[str], example: Tensor | None) -> Survey:
    if where == "blocks":
        survey = block_sites(model, example)
        looked_at = "additions of a branch with convolutions to a shortcut"
    elif not isinstance(where, str | Sequence):
        raise ValueError(f'attend: expected where to be "blocks" or names, got {where!r}')
    else:
        survey = named_sites(model, [where] if isinstance(where, str) else where, example)
        looked_at = f"modules named {where!r}"
    sites, skipped = [], list(survey.skipped)
    for site in survey.sites:
        if hasattr(model.get_submodule(site.name), CHILD):
            skipped.append(Skipped(site.name, f"it has an attribute {CHILD!r} of its own"))
        else:
            sites.append(site)
    if not sites:
        seen = "".join(f"\n  {each.name}: {each.reason}" for each in skipped)
        children = ", ".join(name for name, _ in model.named_children())
        raise ValueError(
            f"attend: expected at least one site in {type(model).__name__}, found none. Looked "
            f"for {looked_at}; {'none' if not skipped else 'could not use'}{seen or ' was there'}"
            '\nName the modules whose outputs to gate: where=["NAME", ...], patterns allowed; the '
            f"modules at the top are: {children}"
        )
    return Survey(tuple(sites), tuple(skipped))


def _build(
    model: nn.Module, gate: str, site: Site, start: Start, options: dict[str, Any]
) -> tuple[nn.Module, AttachedGate]:
    if options.get("form") == "dense" and "frames" not in options:
        options = {**options, "frames": "site"}
    if options.get("frames") == "site":
        options = {**options, "frames": site.resolution[0]}
    module = build(gate, site.channels, ndim=site.ndim, start=start, **options)
    module = _placed(module, model.get_submodule(site.name), model)
    if start == "identity":
        _check_identity(module, site)
    return module, AttachedGate(site.name, gate, site.channels, site.ndim, start, dict(options))


def _placed(gate: nn.Module, site: nn.Module, model: nn.Module) -> nn.Module:
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


def _check_runs(model: nn.Module, sites: Sequence[Site], example: Tensor | None) -> None:
    """Refuse gates that can't run where they are, or that their site runs by itself as well."""
    calls = trace(model, example).calls
    for site in sites:
        times = calls.get(f"{site.name}.{CHILD}", 0)
        if times != calls[site.name]:
            raise ValueError(
                f"attend: expected the gate after {site.name} to run once with it, got {times} "
                f"times in {calls[site.name]} runs: it runs every child it has; name another module"
            )


def _attach(site: nn.Module, gate: nn.Module, description: AttachedGate) -> None:
    cast(Any, gate).attachment = description
    cast(Any, gate).fusion = None
    describe_in_state_dict(gate)
    site.add_module(CHILD, gate.train(site.training))  # life.follow has the site apply it
