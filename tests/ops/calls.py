"""Calls of every public operation with all their tensors, to be compared and differentiated."""

import torch

from whatwhere import ops

STATISTICS = ("mean", "max", "std", "l2")
SHAPES = [(2, 4, 5), (2, 4, 3, 4), (2, 4, 2, 3, 2)]


def inputs(shape, *, dtype=torch.float64, hidden=3, maps=2, grad=True):
    """x, a residual, gates, and the parameters of cbam with biases, by name."""
    n, c, *positions = shape
    ones = (1,) * len(positions)
    shapes = {
        "x": shape,
        "residual": shape,
        "channel_gate": (n, c, *ones),
        "spatial_gate": (n, 1, *positions),
        "temporal_gate": (n, 1, positions[0], *ones[1:]),
        "reduce_weight": (hidden, c),
        "reduce_bias": (hidden,),
        "expand_weight": (c, hidden),
        "expand_bias": (c,),
        "conv_weight": (1, maps, *(3,) * len(positions)),
        "conv_bias": (1,),
    }
    return {
        name: torch.randn(size, dtype=torch.float64).to(dtype).requires_grad_(grad)
        for name, size in shapes.items()
    }


PARAMETERS = (
    "reduce_weight",
    "reduce_bias",
    "expand_weight",
    "expand_bias",
    "conv_weight",
    "conv_bias",
)
# name -> (operation, its tensors after x, its options)
CALLS = {
    "pool_positions": (ops.pool_positions, (), {"statistics": STATISTICS}),
    "pool_positions-max": (ops.pool_positions, (), {"statistics": ["max"]}),
    "pool_channels": (ops.pool_channels, (), {"statistics": STATISTICS}),
    "pool_channels-gate": (ops.pool_channels, ("channel_gate",), {"statistics": STATISTICS}),
    "apply_gates-channel": (ops.apply_gates, ("channel_gate",), {}),
    "apply_gates-spatial": (ops.apply_gates, ("spatial_gate", "residual"), {}),
    "apply_gates-all": (
        ops.apply_gates,
        ("channel_gate", "spatial_gate", "temporal_gate", "residual"),
        {"activation": "relu"},
    ),
    "cbam-plain": (ops.cbam, ("reduce_weight", "expand_weight", "conv_weight"), {}),
    "cbam-all": (
        ops.cbam,
        (*PARAMETERS, "residual"),
        {
            "activation": "relu",
            "spatial_statistics": ("max", "mean"),
            "spatial_activation": "double_sigmoid",
        },
    ),
}


def prepared(name, shape, **options):
    """A call by name as a function of tensors alone, and the tensors."""
    function, names, fixed = CALLS[name]
    tensors = inputs(shape, **options)

    def call(x, *values):
        return function(x, **dict(zip(names, values, strict=True)), **fixed)

    return call, [tensors["x"], *(tensors[each] for each in names)]


def loss(outputs):
    """One number that depends on every output unevenly."""
    parts = outputs if isinstance(outputs, tuple) else (outputs,)
    return sum(
        (part * torch.linspace(-1, 2, part.numel()).view(part.shape)).sum() for part in parts
    )
