"""One CBAM for another code base: its numbers fitted, named, and proven on random input."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from whatwhere.checkpoints.conversion import proof
from whatwhere.checkpoints.conversion.dialects import (
    DIALECTS,
    OURS,
    CodeBase,
    Spelling,
    our_spelling,
)
from whatwhere.checkpoints.conversion.find import Found
from whatwhere.checkpoints.conversion.fit import (
    Notes,
    check_sizes,
    fitted,
    our_dialect,
    our_options,
    reduction_ratio,
)
from whatwhere.checkpoints.conversion.own import Own
from whatwhere.checkpoints.conversion.weights import Weights, fold_norm, read, write
from whatwhere.gates import Dialect


@dataclass(frozen=True)
class Rewritten:
    """One CBAM, converted.

    Args:
        found: what it was.
        tensors: what it is, by names relative to it.
        options: with which ``whatwhere.CBAM`` is it; empty for other targets.
        channels: that it gates.
        ndim: position axes of what it gates.
        error: the largest difference of both functions on random input, over the largest value.
    """

    found: Found
    tensors: Mapping[str, Tensor]
    options: Mapping[str, Any]
    channels: int
    ndim: int
    error: float


def rewrite(
    found: Sequence[Found],
    target: CodeBase,
    *,
    dialect: Dialect | None,
    spelling: str | None,
    eval_only: bool,
    notes: Notes,
) -> list[Rewritten]:
    """Every CBAM for the target, or a ValueError that says why one can't be."""
    weights = [read(each.tensors, each.spelling) for each in found]
    if target == OURS:
        return [
            _ours(each, own, dialect, eval_only, notes)
            for each, own in zip(found, weights, strict=True)
        ]
    names = _names(target, weights, spelling)
    return [
        _theirs(each, own, target, names, eval_only, notes)
        for each, own in zip(found, weights, strict=True)
    ]


def _names(target: Dialect, weights: Sequence[Weights], spelling: str | None) -> Spelling:
    """The target's names; where it may have biases, it has them if any CBAM needs them."""
    dialect = DIALECTS[target]
    if spelling is not None:
        return dialect.spelling(spelling)
    first = dialect.spellings[0]
    needs = {
        "network_bias": [b for each in weights for b in (each.reduce_bias, each.expand_bias)],
        "conv_bias": [fold_norm(each).conv_bias for each in weights],
    }
    needed = {
        flag: any(bias is not None and bool(bias.count_nonzero()) for bias in needs[flag])
        for flag in dialect.varies
        if flag in needs
    }
    return first.having(needed)


def _ours(
    found: Found, weights: Weights, dialect: Dialect | None, eval_only: bool, notes: Notes
) -> Rewritten:
    chosen = our_dialect(found.dialect, found.spelling) if dialect is None else dialect
    spelling = our_spelling(chosen)
    made = fitted(weights, found.dialect, chosen, spelling, eval_only=eval_only, notes=notes)
    options = our_options(made, chosen)
    tensors = write(made, spelling)
    function = proof.ours(made.channels, len(made.kernel), options, tensors)
    return _proven(found, made, tensors, options, function, eval_only)


def _theirs(
    found: Found,
    weights: Weights,
    target: Dialect,
    spelling: Spelling,
    eval_only: bool,
    notes: Notes,
) -> Rewritten:
    made = fitted(weights, found.dialect, target, spelling, eval_only=eval_only, notes=notes)
    check_sizes(made, target)
    tensors = write(made, spelling)
    ratio = reduction_ratio(made.channels, made.hidden)
    width = f"hidden width {made.hidden}" if ratio is None else f"reduction ratio {ratio}"
    notes[f"modules of {target!r} to load it: {width}, kernel {made.kernel}"] = None
    return _proven(found, made, tensors, {}, proof.foreign(target, tensors), eval_only)


def _proven(
    found: Found,
    made: Weights,
    tensors: Mapping[str, Tensor],
    options: Mapping[str, Any],
    function: proof.Function,
    eval_only: bool,
) -> Rewritten:
    channels, ndim = made.channels, len(made.kernel)
    if isinstance(found, Own):
        source = proof.ours(channels, ndim, found.gate.options, found.tensors)
    else:
        source = proof.foreign(found.dialect, found.tensors)
    modes = (False,) if eval_only else (False, True)
    worst = proof.error(source, function, channels, ndim, modes)
    proof.check(worst, found.prefix, made.conv.dtype, rounded=eval_only)
    return Rewritten(found, tensors, options, channels, ndim, worst)
