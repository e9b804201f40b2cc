"""What a gate takes along: its description in every state_dict, its hook to a site rebuilt.

A state_dict's tensors do not tell σ from 2σ, or a maximum before a mean. So each gate writes its
description into the state_dict's metadata, where ``torch.save`` keeps it and code that goes over
the values does not meet it; a gate that is another refuses to load.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from whatwhere.gates import build
from whatwhere.surgery.fusion import apply_attention
from whatwhere.surgery.gated import CHILD, AttachedGate, apply_to_argument

KEY = "whatwhere"


def described(state_dict: Mapping[str, Tensor]) -> tuple[AttachedGate, ...]:
    """The gates of the network that a state_dict is of, for ``surgery.reattach``.

    Their sites are named as the state_dict's keys are.

    Raises:
        ValueError: it holds a description that this version does not know.

    >>> from whatwhere.surgery import attend, reattach
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> report = attend(network, "se", where="0", start="paper")
    >>> state_dict = network.state_dict()        # also after torch.save and torch.load
    >>> plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> reattach(plain, described(state_dict))
    >>> plain.load_state_dict(state_dict)
    <All keys matched successfully>
    """
    metadata: Mapping[str, Any] = getattr(state_dict, "_metadata", {})
    return tuple(
        gate_of({**metadata[name][KEY], "site": name.removesuffix(f".{CHILD}")})
        for name in metadata
        if KEY in metadata[name]
    )


def gate_of(description: Mapping[str, Any]) -> AttachedGate:
    """The gate that ``AttachedGate.as_dict`` described, from JSON too.

    Raises:
        ValueError: a later version described it, with more than this one knows.
    """
    unknown = set(description) - {field.name for field in fields(AttachedGate)}
    if unknown:
        raise ValueError(
            f"the gate at {description['site']} is described with {', '.join(sorted(unknown))}, "
            "which this version of whatwhere does not know; a later one wrote it"
        )
    options = {
        name: tuple(value) if isinstance(value, list) else value  # JSON has no tuples
        for name, value in description["options"].items()
    }
    return AttachedGate(**{**description, "options": options})


def describe_in_state_dict(gate: nn.Module) -> None:
    """Have a gate that says what it is say so in every state_dict too, and check those it loads."""
    gate.register_state_dict_post_hook(_write)
    gate.register_load_state_dict_pre_hook(_check)


def _write(gate: nn.Module, _state_dict: Any, _prefix: str, metadata: dict[str, Any]) -> None:
    description = cast(Any, gate).attachment.as_dict()
    del description["site"]  # the metadata's own key says it
    metadata[KEY] = description


def _check(
    gate: nn.Module,
    _state_dict: Any,
    prefix: str,
    metadata: dict[str, Any],
    _strict: bool,
    _missing: list[str],
    _unexpected: list[str],
    errors: list[str],
) -> None:
    if KEY not in metadata:
        return
    site = prefix.removesuffix(f"{CHILD}.").removesuffix(".")
    own: AttachedGate = cast(Any, gate).attachment
    try:
        saved = gate_of({**metadata[KEY], "site": site})
    except ValueError as error:
        errors.append(str(error))
        return
    differences = list(_differences(own, saved))
    if differences and not _same(own, saved):
        errors.append(
            f"the gate at {site} is another than the one saved: {'; '.join(differences)}. Give "
            "the plain network the gates it was saved with, reattach(model, described(state_dict))"
            "; load_state_dict(dict(state_dict)) loads the numbers all the same"
        )


def _differences(own: AttachedGate, saved: AttachedGate) -> Iterator[str]:
    mine, theirs = own.as_dict(), saved.as_dict()
    for name in mine:
        if name not in ("site", "options") and mine[name] != theirs[name]:
            yield f"{name} is {theirs[name]!r} in the file and {mine[name]!r} here"
    for name in {**mine["options"], **theirs["options"]}:
        here, there = (each["options"].get(name, "not given") for each in (mine, theirs))
        if here != there:
            yield f"{name} is {there!r} in the file and {here!r} here"


def _same(own: AttachedGate, saved: AttachedGate) -> bool:
    """Whether two descriptions are of one function: an option may be given its default."""
    told = [
        {**each.as_dict(), "options": None, "gate": None, "start": None, "site": None}
        for each in (own, saved)
    ]
    if told[0] != told[1]:
        return False
    try:
        with torch.device("meta"):
            mine, theirs = (
                build(each.gate, each.channels, ndim=each.ndim, start=each.start, **each.options)
                for each in (own, saved)
            )
    except ValueError:
        return False
    return repr(mine) == repr(theirs)


def follow(site: nn.Module, name: str, gate: nn.Module | None) -> None:
    """Have a module that is given a gate as its child apply it.

    ``nn.SyncBatchNorm.convert_sync_batchnorm`` and its like build a new norm and give it the old
    one's children, without its hooks: the gate would be there and never run.
    """
    description = getattr(gate, "attachment", None)
    if name != CHILD or not isinstance(description, AttachedGate) or hooks_of(site, description):
        return
    if description.argument is None:
        site.register_forward_hook(apply_attention)
    else:
        site.register_forward_pre_hook(apply_to_argument, with_kwargs=True)


def hooks_of(site: nn.Module, description: AttachedGate) -> list[int]:
    """The keys of the hooks that apply a site's gate: one, or none if it was dropped."""
    hooks: dict[int, Any]
    own: Any
    if description.argument is None:
        hooks, own = site._forward_hooks, apply_attention
    else:
        hooks, own = site._forward_pre_hooks, apply_to_argument
    return [key for key, hook in hooks.items() if hook is own]


# Nothing tells a gate that its site was rebuilt but this. The process that loads a pickled network
# imports the file with its gates' hooks, and so this one.
register_module_module_registration_hook(follow)
