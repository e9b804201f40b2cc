"""``convert``: the state_dict of a CBAM, or of a network with CBAMs, for another code base."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from whatwhere.checkpoints.conversion.dialects import (
    CODE_BASES,
    DIALECTS,
    OURS,
    ULTRALYTICS,
    ULTRALYTICS_REASON,
    CodeBase,
)
from whatwhere.checkpoints.conversion.find import Found, find, joined, prefixes
from whatwhere.checkpoints.conversion.fit import Notes
from whatwhere.checkpoints.conversion.own import Metadata, find_own
from whatwhere.checkpoints.conversion.places import placed, translated
from whatwhere.checkpoints.conversion.rewrite import Rewritten, rewrite
from whatwhere.checks import check_choice
from whatwhere.gates import Dialect
from whatwhere.surgery.gated import CHILD, AttachedGate
from whatwhere.surgery.life import KEY

OUR_KEY = "gates.channel.mix.reduce.weight"


@dataclass(frozen=True)
class Conversion:
    """What ``convert`` made; print it.

    Attributes:
        state_dict: for the target. Where that is whatwhere, its metadata describes the gates, for
            ``surgery.described`` and ``whatwhere.load``.
        source: the code base it came from.
        target: the one it is for.
        spelling: of the source's names, for ``convert(..., spelling=)`` back.
        modules: the CBAMs' names there, and here.
        gates: where whatwhere is the target, what its gates are, and where.
        error: the largest difference of the two functions on random input, over the largest value.
        notes: what else there is to know.
    """

    state_dict: OrderedDict[str, Tensor]
    source: CodeBase
    target: CodeBase
    spelling: str
    modules: Mapping[str, str]
    gates: tuple[AttachedGate, ...]
    error: float
    notes: tuple[str, ...]

    def __str__(self) -> str:
        count = f"{len(self.modules)} CBAM{'' if len(self.modules) == 1 else 's'}"
        lines = [
            f"{count} from {self.source} to {self.target}: largest difference on random input "
            f"{self.error:.1e}, relative"
        ]
        lines += [f"  {theirs} -> {ours}" for theirs, ours in self.modules.items() if theirs]
        for each in {_options(gate): gate for gate in self.gates}.values():
            lines.append(f'  gate "cbam", start="{each.start}", {_options(each)}')
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def _options(gate: AttachedGate) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in gate.options.items())


def convert(
    state_dict: Mapping[str, Tensor],
    *,
    source: CodeBase | None = None,
    target: CodeBase = OURS,
    dialect: Dialect | None = None,
    spelling: str | None = None,
    sites: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    eval_only: bool = False,
) -> Conversion:
    """The state_dict of CBAMs, alone or in a network, for another code base: the same function.

    Args:
        state_dict: of a CBAM or a network, with or without "module." before its names.
        source: the code base; if not given, whichever the names and shapes show.
        target: the code base it is for.
        dialect: of ``whatwhere.CBAM``, for that target; if not given, the one that holds the
            source's weights as they are.
        spelling: the target's names, where it has several: ``Conversion.spelling``, or
            "ca.sharedMLP.0 sa.conv1".
        sites: where the CBAMs go in a network: patterns (``re``) of their names in it, and what
            these become. Without it a CBAM that is a child of a block is the gate after the last
            batch norm of the block, which is where the authors' networks call it.
        options: of whatwhere's CBAMs, for that source, where the state_dict does not describe
            them: {"dialect": "official", "start": "paper"}.
        eval_only: allow functions that are equal in eval mode alone: a norm that one of them
            lacks is folded into the convolution, or a neutral one added.

    Returns:
        The state_dict, and what was found and done; it prints. Tensors that did not change are
        the very ones that came.

    Raises:
        ValueError: there is no CBAM, or the code base is not to be told; the target can't compute
            what the source does; or a comparison of both on random input shows a difference.

    >>> from timm.layers.cbam import CbamModule
    >>> from whatwhere import CBAM
    >>> theirs, ours = CbamModule(32).eval(), CBAM(32, dialect="timm").eval()
    >>> converted = convert(theirs.state_dict())
    >>> print(converted)
    1 CBAM from timm to whatwhere: largest difference on random input ..., relative
      gate "cbam", start="paper", dialect='timm', reduction_ratio=16, kernel_size=7
    >>> ours.load_state_dict(converted.state_dict)
    <All keys matched successfully>
    """
    _check(source, target, dialect, spelling, options)
    tensors, metadata = _unwrapped(state_dict)
    found, origin = _found(tensors, metadata, source, options)
    keys = {key for each in found for key in each.keys}
    rest = {key: tensor for key, tensor in tensors.items() if key not in keys}
    notes: Notes = {}
    modules = rewrite(
        found, target, dialect=dialect, spelling=spelling, eval_only=eval_only, notes=notes
    )
    places = placed(modules, rest, origin, target, sites)
    gates = tuple(_gate(each, places) for each in modules) if target == OURS else ()
    name = partial(translated, source=origin, target=target)
    converted = _assembled(tensors, modules, places, name)
    vars(converted)["_metadata"] = _metadata(metadata, modules, places, gates, name)
    return Conversion(
        state_dict=converted,
        source=origin,
        target=target,
        spelling=found[0].spelling.name,
        modules=places,
        gates=gates,
        error=max(each.error for each in modules),
        notes=tuple(notes),
    )


def _check(
    source: CodeBase | None,
    target: CodeBase,
    dialect: Dialect | None,
    spelling: str | None,
    options: Mapping[str, Any] | None,
) -> None:
    if ULTRALYTICS in (source, target):
        raise ValueError(f"convert: {ULTRALYTICS_REASON}")
    check_choice("convert", "source", source, (None, *CODE_BASES))
    check_choice("convert", "target", target, CODE_BASES)
    if dialect is not None:
        check_choice("convert", "dialect", dialect, tuple(DIALECTS))
        if target != OURS:
            raise ValueError(
                f"convert: dialect is that of whatwhere.CBAM, got {dialect!r} with {target=}"
            )
    if spelling is not None and target == OURS:
        raise ValueError(f"convert: whatwhere has one spelling, got {spelling=}")
    if options is not None and source not in (None, OURS):
        raise ValueError(f"convert: options are of whatwhere's CBAMs, got {options} with {source=}")


def _unwrapped(state_dict: Mapping[str, Tensor]) -> tuple[OrderedDict[str, Tensor], Metadata]:
    """A copy by the names of the network itself, and its metadata."""
    other = [name for name, each in state_dict.items() if not isinstance(each, Tensor)]
    if other:
        raise ValueError(f"convert: expected tensors by name, got others at {other[:5]}")
    tensors = OrderedDict(state_dict)
    metadata: Metadata = dict(getattr(state_dict, "_metadata", {}))
    vars(tensors)["_metadata"] = metadata
    for prefix in ("module.", "_orig_mod."):  # of DistributedDataParallel and torch.compile
        consume_prefix_in_state_dict_if_present(tensors, prefix)
    return tensors, metadata


def _found(
    tensors: Mapping[str, Tensor],
    metadata: Metadata,
    source: CodeBase | None,
    options: Mapping[str, Any] | None,
) -> tuple[Sequence[Found], CodeBase]:
    """The CBAMs, and whose they are."""
    own = any(KEY in each for each in metadata.values()) or any(
        True for _ in prefixes(tensors, OUR_KEY)
    )
    if source == OURS or (source is None and own):
        gates = find_own(tensors, metadata, options)
        if not gates:
            raise ValueError("convert: expected a gate of whatwhere, found none")
        return gates, OURS
    if options is not None:
        raise ValueError(
            f"convert: options are of whatwhere's CBAMs, and there are none: {options}"
        )
    found = find(tensors, source)
    return found, found[0].dialect


def _gate(module: Rewritten, places: Mapping[str, str]) -> AttachedGate:
    site = places[module.found.prefix].removesuffix(CHILD).removesuffix(".")
    options = dict(module.options)
    return AttachedGate(site, "cbam", module.channels, module.ndim, "paper", options)


def _assembled(
    tensors: Mapping[str, Tensor],
    modules: Sequence[Rewritten],
    places: Mapping[str, str],
    name: Callable[[str], str],
) -> OrderedDict[str, Tensor]:
    """The whole state_dict, in the order of the one that came."""
    owner = {key: each for each in modules for key in each.found.keys}
    converted: OrderedDict[str, Tensor] = OrderedDict()
    for key, tensor in tensors.items():
        if key not in owner:
            new = {name(key): tensor}
        elif key == owner[key].found.keys[0]:
            prefix = places[owner[key].found.prefix]
            new = {joined(prefix, own): each for own, each in owner[key].tensors.items()}
        else:
            continue
        taken = [each for each in new if each in converted]
        if taken:
            raise ValueError(f"convert: expected one tensor of each name, got two of {taken}")
        converted.update(new)
    return converted


def _metadata(
    metadata: Metadata,
    modules: Sequence[Rewritten],
    places: Mapping[str, str],
    gates: Sequence[AttachedGate],
    name: Callable[[str], str],
) -> Metadata:
    """That of the network's other modules, and the descriptions of the gates."""
    inside = tuple(
        f"{joined(each.found.prefix, key.partition('.')[0])}."
        for each in modules
        for key in each.found.tensors
    )
    kept = {
        name(module): each
        for module, each in metadata.items()
        if KEY not in each and not f"{module}.".startswith(inside)
    }
    for prefix, gate in zip(places.values(), gates, strict=False):  # none for other targets
        description = gate.as_dict()
        del description["site"]  # the metadata's own key says it
        kept[prefix] = {"version": 1, KEY: description}
    return kept
