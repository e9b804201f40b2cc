"""The numbers of one CBAM as those of another dialect: exactly the same function, or refused."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor

from whatwhere.checkpoints.conversion.dialects import (
    DIALECTS,
    CbamDialect,
    Spelling,
    our_spelling,
)
from whatwhere.checkpoints.conversion.weights import Weights, add_norm, fold_norm
from whatwhere.gates import DIALECTS as OPTIONS
from whatwhere.gates import Dialect
from whatwhere.gates.attention import Rounding, hidden_size

Notes = dict[str, None]  # what to tell of a conversion, once each, in order


def fitted(
    weights: Weights,
    source: Dialect,
    target: Dialect,
    spelling: Spelling,
    *,
    eval_only: bool,
    notes: Notes,
) -> Weights:
    """Weights with which the target computes what the source does.

    Args:
        weights: of the source.
        source: whose function they are of.
        target: whose function they are to be of.
        spelling: says which biases and whether a norm the target has.
        eval_only: whether the functions may differ in training mode, by a norm.
        notes: what there is to tell is added here.

    Raises:
        ValueError: the target can't compute the same.
    """
    theirs, ours = DIALECTS[source], DIALECTS[target]
    if theirs.residual != ours.residual:
        has, lacks = (source, target) if theirs.residual else (target, source)
        raise ValueError(
            f"convert: {has!r} adds x to what it gates, y = x + x · Mc · Ms, and {lacks!r} does "
            "not: no weights make one the other"
        )
    weights = _normed(weights, source, target, eval_only, notes)
    if theirs.max_first != ours.max_first:
        weights = replace(weights, conv=weights.conv.flip(1))
        notes[
            f"input channels of the convolution swapped: {_inputs(theirs)} to {_inputs(ours)}"
        ] = None
    if None not in (theirs.momentum, ours.momentum) and theirs.momentum != ours.momentum:
        notes[
            f"the norm's momentum is {theirs.momentum} in {source!r} and {ours.momentum} in "
            f"{target!r}: in training, its running statistics will move at another rate"
        ] = None
    size, dtype = weights.hidden, weights.reduce.dtype
    wanted = spelling.network_bias
    return replace(
        weights,
        reduce_bias=_bias(weights.reduce_bias, wanted, size, dtype, "network", target, notes),
        expand_bias=_bias(
            weights.expand_bias, wanted, weights.channels, dtype, "network", target, notes
        ),
        conv_bias=_bias(
            weights.conv_bias, spelling.conv_bias, 1, weights.conv.dtype, "convolution", target,
            notes,
        ),
    )  # fmt: skip


def _inputs(dialect: CbamDialect) -> str:
    return "[max, mean]" if dialect.max_first else "[mean, max]"


def _normed(
    weights: Weights, source: Dialect, target: Dialect, eval_only: bool, notes: Notes
) -> Weights:
    wanted = DIALECTS[target].momentum is not None
    if wanted == (weights.norm is not None):
        return weights
    what, done = (
        (f"{target!r} has a norm that {source!r} lacks", "neutral norm added")
        if wanted
        else (f"{source!r} has a norm that {target!r} lacks", "norm folded into the convolution")
    )
    if not eval_only:
        raise ValueError(
            f"convert: {what}: in training mode they differ. With eval_only=True they are made "
            "equal in eval mode alone"
        )
    notes[f"{done}: equal in eval mode alone"] = None
    return add_norm(weights) if wanted else fold_norm(weights)


def _bias(
    bias: Tensor | None,
    wanted: bool,
    size: int,
    dtype: torch.dtype,
    name: str,
    target: Dialect,
    notes: Notes,
) -> Tensor | None:
    if wanted:
        if bias is None:
            notes[f"zero biases added to the {name}, which {target!r} has"] = None
            return torch.zeros(size, dtype=dtype)
        return bias
    if bias is not None:
        if bias.count_nonzero():
            raise ValueError(
                f"convert: expected no bias in the {name}, since {target!r} has none, got one "
                f"that is not zero, up to {bias.abs().max().item():g}"
            )
        notes[f"zero biases of the {name} left out, which {target!r} has not"] = None
    return None


def reduction_ratio(channels: int, hidden: int) -> int | None:
    """An integer r with C // r hidden units, as other code bases count them: 16 if it is one.

    >>> reduction_ratio(256, 16), reduction_ratio(64, 8), reduction_ratio(10, 7)
    (16, 8, None)
    """
    for ratio in chain([16], range(1, channels + 1)):
        if channels // ratio == hidden:
            return ratio
    return None


def check_sizes(weights: Weights, target: Dialect) -> None:
    """Refuse a kernel size or a hidden width that the target's code can't build.

    Raises:
        ValueError: it can't.
    """
    dialect = DIALECTS[target]
    if dialect.sizes and not set(weights.kernel) <= set(dialect.sizes):
        raise ValueError(
            f"convert: expected a kernel size of {', '.join(map(str, dialect.sizes))}, all that "
            f"{target!r} has, got {weights.kernel}"
        )
    if not dialect.any_width and reduction_ratio(weights.channels, weights.hidden) is None:
        raise ValueError(_no_ratio(weights, target))


def _no_ratio(weights: Weights, target: str) -> str:
    return (
        f"convert: expected a hidden width that is {weights.channels} channels over an integer, "
        f"rounded, as {target!r} has it, got {weights.hidden}"
    )


def our_dialect(source: Dialect, have: Spelling) -> Dialect:
    """The dialect of ``whatwhere.CBAM`` that holds a source's weights: its own if that does.

    Otherwise one that is the same function where biases that the source lacks are zero.
    """
    theirs = DIALECTS[source]
    alike: Iterable[Dialect] = (
        name
        for name, each in DIALECTS.items()
        if each.momentum == theirs.momentum and each.residual == theirs.residual
    )
    for name in (source, *alike):
        ours = our_spelling(name)
        if ours.network_bias >= have.network_bias and ours.conv_bias >= have.conv_bias:
            return name
    raise AssertionError(f"no dialect holds {have}")  # DIALECTS has one for all that find finds


def our_options(weights: Weights, dialect: Dialect) -> dict[str, object]:
    """The options with which ``whatwhere.CBAM`` has weights of these sizes.

    Raises:
        ValueError: no reduction ratio gives the hidden width.
    """
    rounding: Rounding = OPTIONS[dialect]["channel"].get("rounding", "floor")
    ratio = next(
        (
            each
            for each in chain([16], range(1, weights.channels + 1))
            if hidden_size(weights.channels, each, rounding) == weights.hidden
        ),
        None,
    )
    if ratio is None:
        raise ValueError(_no_ratio(weights, "whatwhere"))
    kernel = weights.kernel
    return {
        "dialect": dialect,
        "reduction_ratio": ratio,
        "kernel_size": kernel[0] if len(set(kernel)) == 1 else kernel,
    }
