"""Our own CBAMs in a state_dict: what their descriptions say, and the same for converted ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from whatwhere.checkpoints.conversion.dialects import our_spelling
from whatwhere.checkpoints.conversion.find import Found, below, prefixes
from whatwhere.checkpoints.conversion.weights import fault, names
from whatwhere.surgery.gated import CHILD, AttachedGate
from whatwhere.surgery.life import KEY, gate_of

Metadata = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Own(Found):
    """One of our CBAMs in a state_dict, and its description."""

    gate: AttachedGate


def find_own(
    state_dict: Mapping[str, Tensor], metadata: Metadata, options: Mapping[str, Any] | None
) -> list[Own]:
    """Every gate of ours in a state_dict.

    Args:
        state_dict: of a gate or a network.
        metadata: of the state_dict, which describes its gates, if it was kept.
        options: of the CBAMs, where it was not.

    Raises:
        ValueError: one is not whole, not described, or no CBAM such as other code bases have.
    """
    described = {
        prefix: gate_of({**each[KEY], "site": _site(prefix)})
        for prefix, each in metadata.items()
        if KEY in each
    }
    there = sorted(set(prefixes(state_dict, "gates.channel.mix.reduce.weight")))
    if options is not None and described:
        raise ValueError("convert: expected no options=, since the state_dict describes its gates")
    undescribed = [prefix for prefix in there if prefix not in described]
    if undescribed and options is None:
        raise ValueError(
            f"convert: nothing says which CBAM the one at {undescribed[0]!r} is; its tensors fit "
            'dialects and starts that are other functions. Pass its options: {"dialect": ..., '
            '"start": "paper" or "identity", "order": ...}'
        )
    for prefix in undescribed:
        described[prefix] = _told(state_dict, prefix, options)
    return [_read(state_dict, prefix, gate) for prefix, gate in described.items()]


def _site(prefix: str) -> str:
    return prefix.removesuffix(CHILD).removesuffix(".")


def _told(
    state_dict: Mapping[str, Tensor], prefix: str, options: Mapping[str, Any] | None
) -> AttachedGate:
    tensors = below(state_dict, prefix)
    told = dict({} if options is None else options)
    if "start" not in told:
        raise ValueError(f'convert: expected options with "start", got {told}')
    start = told.pop("start")
    channels = tensors["gates.channel.mix.expand.weight"].shape[0]
    ndim = tensors["gates.spatial.mix.conv.weight"].ndim - 2
    return AttachedGate(_site(prefix), "cbam", channels, ndim, start, told)


def _read(state_dict: Mapping[str, Tensor], prefix: str, gate: AttachedGate) -> Own:
    plain = {"order": "channel-spatial", "frames": None}
    other = {
        key: gate.options[key] for key in plain if gate.options.get(key, plain[key]) != plain[key]
    }
    if gate.gate != "cbam" or gate.start != "paper" or other:
        what = ", ".join(
            f"{key}={value!r}" for key, value in {"start": gate.start, **other}.items()
        )
        raise ValueError(
            f"convert: other code bases have no gate such as {gate.gate}({what}) at {prefix!r}: "
            'expected CBAMs with start="paper", whose gates are σ and not 2σ, channel, then spatial'
        )
    if gate.argument is not None or gate.replaces or gate.channels_last:
        raise ValueError(
            f"convert: expected gates on the outputs of modules, channels first; that at "
            f"{gate.site} is on an argument, in place of a module or channels last"
        )
    dialect = gate.options.get("dialect", "paper")
    spelling = our_spelling(dialect)
    tensors = below(state_dict, prefix)
    wrong = fault(tensors, spelling)
    if wrong is not None:
        raise ValueError(
            f"convert: expected a whole CBAM of dialect {dialect!r} at {prefix!r}, but {wrong}"
        )
    own = {key: tensors[key] for key in names(spelling) if key in tensors}
    return Own(prefix, dialect, spelling, own, gate)
