"""Gates by name, for all that builds them from words: ``attend``, ``compare``, checkpoints."""

import inspect
from typing import Any

from torch import nn

from whatwhere.checks import check_choice, check_positive
from whatwhere.gates.algebra import Start
from whatwhere.gates.family import CLIPS, FAMILY, FRAMES


def names() -> tuple[str, ...]:
    """The names that ``build`` knows.

    >>> names()[:6]
    ('cbam', 'channel', 'spatial', 'temporal', 'se', 'ese')
    """
    return tuple(FAMILY)


def gate_options(name: str) -> tuple[str, ...]:
    """The options that the named gate takes, beside channels, ndim and start.

    >>> gate_options("spatial")
    ('kernel_size', 'statistics', 'bias', 'norm_momentum')
    """
    return tuple(_parameters(name))


def needed_options(name: str) -> tuple[str, ...]:
    """Those of them that have no default: sizes that a site knows.

    >>> needed_options("ge_theta")
    ('resolution',)
    """
    return tuple(
        option
        for option, parameter in _parameters(name).items()
        if parameter.default is inspect.Parameter.empty
    )


def _parameters(name: str) -> dict[str, inspect.Parameter]:
    check_choice("gate_options", "name", name, names())
    given = {"channels", "ndim", "start", "activation"}
    parameters = inspect.signature(FAMILY[name]).parameters
    return {option: each for option, each in parameters.items() if option not in given}


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
        ValueError: the name, the options or their values are not what was expected, or the gate
            has no equation for such maps.

    >>> import torch
    >>> build("cbam", 32, kernel_size=3, start="identity").gate(torch.randn(1, 32, 4, 4)).unique()
    tensor([1.], grad_fn=...)
    """
    check_choice("build", "name", name, names())
    check_choice("build", "ndim", ndim, (1, 2, 3))
    check_positive("build", "channels", channels)
    known = gate_options(name)
    for option in options:
        if option not in known:
            listed = ", ".join(known) if known else "none"
            raise ValueError(f"build: {name} takes the options {listed}; got {option!r}")
    missing = [option for option in needed_options(name) if option not in options]
    if missing:
        raise ValueError(f"build: expected {', '.join(missing)} for {name}, got none")
    if name in FRAMES and ndim == 2:
        raise ValueError(
            f"build: expected ndim 1 or 3 for {name}, got 2: (N, C, H, W) has no frame axis; "
            "frames stacked as channels are gated by channel"
        )
    if name in CLIPS and ndim != 3:
        raise ValueError(
            f"build: expected ndim 3 for {name}, got {ndim}: it is defined on clips "
            "(N, C, T, H, W) alone"
        )
    builder = FAMILY[name]
    taken = inspect.signature(builder).parameters
    given = {"channels": channels, "ndim": ndim, "start": start}
    return builder(**{k: v for k, v in given.items() if k in taken}, **options)
