"""CBAM: channel, then spatial, then (for clips) temporal attention, in any order or in parallel."""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, cast, get_args

from torch import Tensor, nn

from whatwhere.checks import check_choice, check_distinct
from whatwhere.gates.activations import ActivationName
from whatwhere.gates.algebra import STARTS, Gate, LastPass, Start, gated
from whatwhere.gates.attention import ChannelAttention, SpatialAttention, TemporalAttention
from whatwhere.gates.composition import Seq
from whatwhere.gates.parallel import Par

Dialect = Literal["paper", "official", "timm", "pytorchcv", "mmyolo", "external"]
Part = Literal["channel", "spatial", "temporal"]

PARTS: tuple[Part, ...] = get_args(Part)
DIALECTS: dict[Dialect, dict[str, dict[str, Any]]] = {
    "paper": {"channel": {}, "spatial": {}},
    "official": {
        "channel": {"bias": True},
        "spatial": {"statistics": ("max", "mean"), "norm_momentum": 0.01},
    },
    "timm": {
        "channel": {"rounding": "nearest"},
        "spatial": {"norm_momentum": 0.1},
    },
    "pytorchcv": {
        "channel": {"bias": True},
        "spatial": {"statistics": ("max", "mean"), "norm_momentum": 0.1},
    },
    "mmyolo": {"channel": {"bias": True}, "spatial": {"bias": True}},
    "external": {
        "channel": {},
        "spatial": {"statistics": ("max", "mean"), "bias": True},
    },
}
RESIDUAL: tuple[Dialect, ...] = ("external",)  # y = x + x · Mc · Ms


class CBAM(nn.Module):
    r"""Convolutional Block Attention Module: x' = x · Mc(x), y = x' · Ms(x').

    Source: Woo, Park, Lee, Kweon, ECCV 2018 (arXiv 1807.06521), equations 1 to 3. The dialects
    are different functions published under that name:

    ========= ========== ================= ========================= ============ ========
    dialect   network    hidden width      spatial convolution       its inputs   output
    ========= ========== ================= ========================= ============ ========
    paper     no biases  floor(C/r), >= 1  no bias, no norm          [mean, max]  y
    official  biases     floor(C/r), >= 1  batch norm, momentum .01  [max, mean]  y
    timm      no biases  round(C/r), >= 1  batch norm, momentum .1   [mean, max]  y
    pytorchcv biases     floor(C/r), >= 1  batch norm, momentum .1   [max, mean]  y
    mmyolo    biases     floor(C/r), >= 1  bias, no norm             [mean, max]  y
    external  no biases  floor(C/r), >= 1  bias, no norm             [max, mean]  x + y
    ========= ========== ================= ========================= ============ ========

    ``official`` is Jongchan/attention-module@459efad with the start that its networks give it
    (biases 0, norm weight 0, so a spatial gate of 1/2), except that at C < r, where that code
    builds a layer of width 0, the width is 1. ``timm`` is pytorch-image-models' CbamModule,
    ``pytorchcv`` osmr/pytorchcv@08805dd, ``mmyolo`` open-mmlab/mmyolo@2021152, ``external``
    xmu-xiaoma666/External-Attention-pytorch@8f69516, whose kernel is 49 if not told otherwise.

    Args:
        channels: C.
        reduction_ratio: r of the channel gate.
        kernel_size: odd k of the spatial gate, or one per position axis.
        ndim: position axes: 1 for (N, C, L), 2 for (N, C, H, W), 3 for (N, C, T, H, W).
        order: the parts in order, joined by "-" ("channel-spatial", "temporal-channel-spatial"),
            or by "+" for the parallel form y = x · σ(sum of the parts' logits) of the paper's
            Table 3 ("channel+spatial").
        dialect: which published function.
        frames: T, for a temporal part of the dense form; without it the form is "conv".
        start: "identity" makes y = x until trained, "paper" is the dialect's own start. A dialect
            that adds x has no identity start.

    Raises:
        ValueError: from a bad argument, or from x of another rank or channel count.

    >>> import torch
    >>> cbam = CBAM(64)
    >>> x = torch.randn(2, 64, 8, 8)
    >>> cbam(x).shape, cbam.gate(x).shape
    (torch.Size([2, 64, 8, 8]), torch.Size([2, 64, 8, 8]))
    >>> clips = CBAM(16, ndim=3, kernel_size=(1, 7, 7), order="channel-spatial-temporal")
    >>> clips(torch.randn(1, 16, 6, 9, 9)).shape
    torch.Size([1, 16, 6, 9, 9])
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction_ratio: int = 16,
        kernel_size: int | Sequence[int] = 7,
        ndim: int = 2,
        order: str = "channel-spatial",
        dialect: Dialect = "paper",
        frames: int | None = None,
        start: Start = "paper",
    ) -> None:
        check_choice("CBAM", "dialect", dialect, tuple(DIALECTS))
        check_choice("CBAM", "start", start, STARTS)
        parallel, names = _parse_order(order)
        if frames is not None and "temporal" not in names:
            raise ValueError(
                f"CBAM: expected frames only with a temporal part, got {frames=} with {order=}"
            )
        if "temporal" in names and ndim == 2:
            raise ValueError(
                "CBAM: expected ndim 1 or 3 with a temporal part, got ndim=2; frames stacked as "
                "channels are gated by the channel part"
            )
        if dialect in RESIDUAL and (parallel or start == "identity"):
            raise ValueError(
                f'CBAM: expected parts in sequence and start="paper" with {dialect=}, which adds x '
                f"to what it gates, got {order=}, {start=}"
            )
        super().__init__()
        activation: ActivationName = "identity" if parallel else "sigmoid"
        part_start: Start = "paper" if parallel else start
        options: dict[str, Any] = {"activation": activation, "start": part_start}
        parts: dict[str, Gate] = {}
        for name in names:
            if name == "channel":
                parts[name] = ChannelAttention(
                    channels,
                    reduction_ratio=reduction_ratio,
                    **DIALECTS[dialect]["channel"],
                    **options,
                )
            elif name == "spatial":
                parts[name] = SpatialAttention(
                    kernel_size=kernel_size, ndim=ndim, **DIALECTS[dialect]["spatial"], **options
                )
            else:
                form: dict[str, Any] = {} if frames is None else {"form": "dense", "frames": frames}
                parts[name] = TemporalAttention(**form, **options)
        self.dialect = dialect
        if dialect == "official":
            _start_as_official(parts)
        sequence = Residual if dialect in RESIDUAL else Seq
        self.gates = (
            Par(join="logits", start=start, **cast(Any, parts)) if parallel else sequence(**parts)
        )

    def gate(self, x: Tensor) -> Tensor:
        """The whole gate: what x is multiplied by, in all."""
        gate: Tensor = self.gates.gate(x)
        return gate

    def forward(self, x: Tensor) -> Tensor:
        """The gated x: same shape and dtype as x."""
        output: Tensor = self.gates(x)
        return output

    def extra_repr(self) -> str:
        """The dialect, for printing."""
        return f"dialect={self.dialect!r}"


class Residual(Seq):
    """Gates one after another, and x added to the result: y = x + x · Π gates.

    >>> import torch
    >>> x = torch.randn(2, 4, 5, 5)
    >>> added = Residual(spatial=SpatialAttention())
    >>> torch.allclose(added(x), x * added.gate(x))
    True
    """

    def gate(self, x: Tensor) -> Tensor:
        """What x is multiplied by, in all: 1 + the product of the gates."""
        return 1 + super().gate(x)

    def last_pass(self, x: Tensor) -> LastPass:
        """Compute all: the addition is the last pass."""
        refined, finish = super().last_pass(x)
        return x + finish(refined), partial(gated, gates={})


def _parse_order(order: str) -> tuple[bool, list[str]]:
    if not isinstance(order, str):
        raise ValueError(f"CBAM: expected order as in 'channel-spatial', got {order!r}")
    parallel = "+" in order
    if parallel and "-" in order:
        raise ValueError(f'CBAM: expected order with "-" or "+", not both, got {order!r}')
    names = re.split(r"[-+]", order)
    check_distinct("CBAM", "order", names, PARTS)
    return parallel, names


def _start_as_official(parts: dict[str, Gate]) -> None:
    # The authors' ResNet zeroes every bias and the weight of the spatial gate's norm.
    for name, parameter in ((n, p) for part in parts.values() for n, p in part.named_parameters()):
        if name.endswith("bias") or name == "mix.norm.weight":
            nn.init.zeros_(parameter)
