"""What a gate is, in a line: read off the modules that run, so that it can't say another thing."""

from functools import singledispatch

from torch import nn

from whatwhere.gates import apart, describe, layers, norms
from whatwhere.gates.activations import ACTIVATIONS
from whatwhere.gates.algebra import Gate
from whatwhere.gates.cbam import CBAM, Residual
from whatwhere.gates.composition import Seq
from whatwhere.gates.mixes import DenseMix, PositionConv
from whatwhere.gates.parallel import LOGIT_JOINS, Par, Split

JOINS = {
    "logits": "sum",
    "logit_product": "product",
    "gates": "product of gates",
    "mean": "mean of outputs",
    "sum": "sum of outputs",
    "max": "maximum of outputs",
}
STEPS: dict[type[nn.Module], str] = {
    layers.Affine: "affine",
    norms.BatchNorm: "BN",
    norms.Standardise: "standardise(S)",
    norms.ChannelRms: "rms(C)",
    norms.Energy: "energy(S)",
    describe.SoftmaxMean: "softmax mean",
    describe.Frequencies: "cosines",
    describe.AxisMeans: "sum of axis means",
    describe.Similarity: "likeness to the mean",
    describe.Motion: "motion",
    apart.CrossSpatial: "CrossSpatial (not of the algebra)",
}


@singledispatch
def expression(module: nn.Module) -> str:
    """The expression of a gate: what it keeps, of which statistics, through which steps.

    Raises:
        ValueError: the module is nothing of the algebra.

    >>> from whatwhere import build
    >>> expression(build("srm", 8))
    'C: [mean, std] → affine → BN → σ'
    >>> expression(build("cbam", 32))
    'Seq(C: [mean, max] → dense(32→2→32) → σ, S: [mean, max] → conv(7×7 over S) → σ)'
    >>> expression(build("cbam", 32, order="spatial-channel", dialect="external"))
    'x + Seq(S: [max, mean] → conv(7×7 over S) → σ, C: [mean, max] → dense(32→2→32) → σ)'
    """
    if type(module) not in STEPS:
        raise ValueError(f"expression: expected a gate, got {type(module).__name__}")
    return STEPS[type(module)]


@expression.register
def _(module: Gate) -> str:
    if module.describe is not None:
        statistics = expression(module.describe)
    elif not module.statistics:
        statistics = "x"
    elif len(module.statistics) == 1:
        statistics = module.statistics[0]
    else:
        statistics = f"[{', '.join(module.statistics)}]"
    if module.source is not None:
        statistics = f"{statistics} of {expression(module.source)}"
    steps = [statistics] if module.mix is None else [statistics, expression(module.mix)]
    symbol = ACTIVATIONS[module.activation.name].symbol
    steps += [] if symbol == "z" else [symbol]
    added = ", added" if module.apply_as == "add" else ""
    return f"{module.keep}: {' → '.join(steps)}{added}"


@expression.register
def _(module: CBAM) -> str:
    return expression(module.gates)


@expression.register
def _(module: Seq) -> str:
    return f"Seq({', '.join(map(expression, module.children()))})"


@expression.register
def _(module: Residual) -> str:
    return f"x + Seq({', '.join(map(expression, module.children()))})"


@expression.register
def _(module: Par) -> str:
    parts = ", ".join(map(expression, module.parts))
    if module.source is not None:
        parts = f"of {expression(module.source)}: {parts}"
    how = JOINS[module.join]
    if module.join in LOGIT_JOINS:
        how = f"{how} → {ACTIVATIONS[module.activation.name].symbol}"
    if module.trunk is not None:
        together = "together" if module.trunk_over == "all" else "each"
        how = f"{how}; {together} through {expression(module.trunk)}"
    return f"Par({parts}; {how})"


@expression.register
def _(module: Split) -> str:
    groups = f"; in {module.groups} groups" if module.groups > 1 else ""
    shuffled = "; shuffled" if module.shuffle else ""
    return f"Split({', '.join(map(expression, module.children()))}{groups}{shuffled})"


@expression.register
def _(module: DenseMix) -> str:
    size, hidden = module.reduce.in_features, module.reduce.out_features
    return f"dense({size}→{hidden}→{size})"


@expression.register
def _(module: PositionConv) -> str:
    ring = ", circular" if module.conv.padding_mode == "circular" else ""
    norm = "" if module.norm is None else " → BN"
    return f"conv({_size(module.conv.kernel_size)} over {module.over}{ring}){norm}"


@expression.register
def _(module: layers.Chain) -> str:
    return " → ".join(map(expression, module.children()))


@expression.register
def _(module: layers.Shared) -> str:
    return f"Σ({expression(module.mix)})"


@expression.register
def _(module: layers.Linear) -> str:
    return f"linear({module.linear.in_features}→{module.linear.out_features})"


@expression.register
def _(module: layers.Conv) -> str:
    conv = module.conv
    over = "its axis" if module.over == "any" else module.over
    channels = (
        "by channel"
        if conv.groups == conv.in_channels
        else f"{conv.in_channels}→{conv.out_channels}"
    )
    dilated = "" if set(conv.dilation) == {1} else f", dilated by {max(conv.dilation)}"
    return f"conv({_size(conv.kernel_size)} over {over}, {channels}{dilated})"


@expression.register
def _(module: norms.GroupNorm) -> str:
    return f"GN({module.norm.num_groups})"


@expression.register
def _(module: layers.Function) -> str:
    return module.name.replace("_", "-")


@expression.register
def _(module: layers.Repeat) -> str:
    return f"repeat(×{module.times})"


@expression.register
def _(module: describe.WindowMean) -> str:
    return f"mean of windows {module.extent} apart"


def _size(kernel_size: tuple[int, ...]) -> str:
    return "×".join(map(str, kernel_size))
