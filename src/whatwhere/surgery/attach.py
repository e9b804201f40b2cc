"""Put gates into a network, and take them out again.

A gate becomes the child ``attention`` of its site, and a forward hook of the site applies it. No
module is replaced and none is renamed, so existing state_dict keys stay as they are. The hook is
a plain function, so that copies and pickles of the network carry it.
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from whatwhere.checks import check_choice
from whatwhere.gates import Start, build
from whatwhere.gates.algebra import STARTS
from whatwhere.surgery.compiled import look_at_hooks
from whatwhere.surgery.fusion import fuse as fuse_gates
from whatwhere.surgery.gated import (
    CHILD,
    AttachedGate,
    Replacement,
    gated_sites,
    swap,
)
from whatwhere.surgery.inputs import Example
from whatwhere.surgery.life import describe_in_state_dict, hooks_of
from whatwhere.surgery.making import check_runs, fitted, made
from whatwhere.surgery.places import Skipped, Survey
from whatwhere.surgery.report import Report
from whatwhere.surgery.survey import Where, survey


def attend(
    model: nn.Module,
    gate: str = "cbam",
    *,
    where: Where = "auto",
    replace: Literal["se"] | None = None,
    start: Start | None = None,
    fuse: bool = False,
    example: Example | None = None,
    **options: Any,
) -> Report:
    """Put a gate into a network at every site, in place.

    Args:
        model: any network.
        gate: one of ``whatwhere.names()``.
        where: "blocks" for the end of every residual branch, before its addition, CBAM's place;
            "stages", "bridge", "skips", "depthwise" or "se", as of ``whatwhere.sites``; sites
            from there; qualified names of modules whose outputs are gated, as patterns
            (``"layer?"``, ``["encoder.1", "encoder.3"]``), or a function of such a name and the
            module that chooses them. "auto" is "blocks", where there are none "depthwise", and
            where there are none of these "stages".
        replace: "se" puts the gates in the place of the network's channel gates, which are kept
            aside for ``detach``; ``where`` may be some of ``sites(model, kind="se")``.
        start: "identity" leaves the network's output as it was, bit for bit, until trained;
            "paper" starts the gates as published, which halves what they gate. Gates that replace
            others can't leave the output as it was, and start as published; others, if not told,
            as the identity.
        fuse: whether gates add their block's shortcut and apply its ReLU in their own last pass
            on the CPU, where one run shows that nothing else happens to their output: equal up to
            rounding, and faster. The report says which sites do.
        example: what the network is called with, where its first convolution does not show it: a
            tensor, a tuple of arguments, a dict of keyword arguments, another only argument.
        **options: of the gate, as in ``whatwhere.build``; a function of a ``Site`` gives each site
            its own. ``frames="site"`` and ``resolution="site"`` are each site's own, as gates that
            need them have it if not told otherwise.

    Returns:
        A report of the sites, to print.

    Raises:
        ValueError: no site was found or, with ``fuse``, none that fuses, the network has gates
            already, or an argument is bad. The network is then unchanged.

    The network keeps its modules and their names; only keys with ``.attention.`` are new.

    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> print(attend(network, "se", where="0", reduction_ratio=4))
    se (start=identity) at 1 site (named), 42 parameters added
      0      8 channels  222×222
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"attend: expected a torch.nn.Module, got {type(model).__name__}")
    where, start = _checked(where, replace, start)
    present = attached(model)
    if present:
        raise ValueError(
            f"attend: expected a network without gates, got one with {len(present)} "
            f"({present[0].gate} at {present[0].site}, ...); call detach(model) first"
        )
    found = _usable(model, where, example)
    gates = [
        made(model, gate, site, start, options, replaces=replace is not None)
        for site in found.sites
    ]
    for module, description in gates:
        _attach(model, module, description)
    try:
        check_runs(model, found.sites, example)
        fused = fuse_gates(model, example=example) if fuse else {}
    except ValueError:
        detach(model)
        raise
    added = sum(parameter.numel() for module, _ in gates for parameter in module.parameters())
    return Report(gate, start, found.sites, found.skipped, added, fused)


def _checked(
    where: Where, replace: Literal["se"] | None, start: Start | None
) -> tuple[Where, Start]:
    check_choice("attend", "replace", replace, ("se", None))
    if start is None:
        start = "identity" if replace is None else "paper"
    check_choice("attend", "start", start, STARTS)
    if replace is None:
        return where, start
    if start == "identity":
        raise ValueError(
            'attend: expected start="paper" with replace, got "identity": without the gates that '
            "are replaced the output can't stay as it was"
        )
    chosen = "se" if where == "auto" else where
    kinds = set()
    if isinstance(chosen, Sequence) and not isinstance(chosen, str):
        kinds = {getattr(each, "kind", None) for each in chosen}
    if chosen != "se" and kinds != {"se"}:
        raise ValueError(
            f'attend: expected where to be sites of kind "se" with replace="se", got {where!r}'
        )
    return chosen, start


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
        _attach(model, fitted(module, modules[each.site], model), each)


def attached(model: nn.Module) -> tuple[AttachedGate, ...]:
    """The gates a network has, in the order of its modules.

    Raises:
        RuntimeError: a gate has lost the hook that applies it, so that it would never run.
    """
    found = gated_sites(model)
    for site, description in found:
        if not hooks_of(site, description):
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
    for site, description in found:
        for key in hooks_of(site, description):
            site._forward_hooks.pop(key, None)
            site._forward_pre_hooks.pop(key, None)
            site._forward_pre_hooks_with_kwargs.pop(key, None)
        delattr(site, CHILD)
        if isinstance(site, Replacement):
            swap(model, description.site, site.restored(model))
    return tuple(description for _, description in found)


def _usable(model: nn.Module, where: Where, example: Example | None) -> Survey:
    found, looked_for = survey(model, where, example)
    sites, skipped = [], list(found.skipped)
    taken: set[str] = set()
    for site in found.sites:
        if hasattr(model.get_submodule(site.name), CHILD):
            skipped.append(Skipped(site.name, f"it has an attribute {CHILD!r} of its own"))
        elif site.name in taken:
            skipped.append(Skipped(site.name, "it has a gate at another of its tensors"))
        else:
            taken.add(site.name)
            sites.append(site)
    if not sites:
        seen = "".join(f"\n  {each.name}: {each.reason}" for each in skipped)
        children = ", ".join(name for name, _ in model.named_children())
        raise ValueError(
            f"attend: expected at least one site in {type(model).__name__}, found none. Looked "
            f"for {looked_for}; {'none' if not skipped else 'could not use'}{seen or ' was there'}"
            '\nName the modules whose outputs to gate: where=["NAME", ...], patterns allowed; the '
            f"modules at the top are: {children}"
        )
    return Survey(tuple(sites), tuple(skipped))


def _attach(model: nn.Module, gate: nn.Module, description: AttachedGate) -> None:
    marked: Any = gate
    marked.attachment = description
    marked.fusion = None
    site = model.get_submodule(description.site)
    if description.replaces:
        site = Replacement(site).train(site.training)
        swap(model, description.site, site)
    describe_in_state_dict(gate)
    look_at_hooks()
    site.add_module(CHILD, gate.train(site.training))  # life.follow has the site apply it
