"""Gates by name, for all that builds them from words: ``attend``, ``compare``, checkpoints."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from whatwhere.checks import check_choice
from whatwhere.gates.algebra import Start
from whatwhere.gates.attention import ChannelAttention, SpatialAttention, TemporalAttention
from whatwhere.gates.cbam import CBAM

# name -> (class, options it fixes); "channels" and "ndim" go to the classes that take them.
_GATES: dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]] = {
    "cbam": (CBAM, {}),
    "channel": (ChannelAttention, {}),
    "se": (ChannelAttention, {"statistics": ("mean",), "bias": True}),
    "spatial": (SpatialAttention, {}),
    "temporal": (TemporalAttention, {}),
}


def names() -> tuple[str, ...]:
    """The names that ``build`` knows.

    >>> names()
    ('cbam', 'channel', 'se', 'spatial', 'temporal')
    """
    return tuple(_GATES)


def gate_options(name: str) -> tuple[str, ...]:
    """The options that the named gate takes, beside channels, ndim and start.

    >>> gate_options("spatial")
    ('kernel_size', 'statistics', 'bias', 'norm_momentum')
    """
    check_choice("gate_options", "name", name, names())
    builder, fixed = _GATES[name]
    given = {"channels", "ndim", "start", "activation", *fixed}
    return tuple(p for p in inspect.signature(builder).parameters if p not in given)


def build(
    name: str, channels: int, *, ndim: int = 2, start: Start = "paper", **options: Any
) -> nn.Module:
    """Build a gate by name.

    Args:
        name: one of ``names()``.
        channels: channels of the feature map.
        ndim: its position axes: 1, 2 or 3.
        start: "identity" for a gate that leaves x unchanged until trained.
        **options: of that gate, one of ``gate_options(name)``.

    Raises:
        ValueError: the name, the options or their values are not what was expected.

    >>> import torch
    >>> build("cbam", 32, kernel_size=3, start="identity").gate(torch.randn(1, 32, 4, 4)).unique()
    tensor([1.], grad_fn=...)
    """
    check_choice("build", "name", name, names())
    check_choice("build", "ndim", ndim, (1, 2, 3))
    known = gate_options(name)
    for option in options:
        if option not in known:
            listed = ", ".join(known)
            raise ValueError(f"build: {name} takes the options {listed}; got {option!r}")
    if name == "temporal" and ndim == 2:
        raise ValueError(
            "build: expected ndim 1 or 3 for temporal, got 2: (N, C, H, W) has no frame axis; "
            "frames stacked as channels are gated by channel"
        )
    builder, fixed = _GATES[name]
    taken = inspect.signature(builder).parameters
    given = {"channels": channels, "ndim": ndim, "start": start}
    return builder(**{k: v for k, v in given.items() if k in taken}, **fixed, **options)
