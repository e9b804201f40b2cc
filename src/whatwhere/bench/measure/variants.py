"""The modules of one row: ours and the peers, eager and compiled, with the same weights."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from whatwhere import CBAM
from whatwhere.bench.measure.peers import build_peer, has_norm
from whatwhere.bench.measure.specification import Weights
from whatwhere.bench.settings import CompileConfig, Row, Settings

Kind = Literal["ours", "eager", "compiled"]

DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
COMPILE_OPTIONS: dict[CompileConfig, dict[str, Any]] = {
    "default": {},
    # Inductor turns images to channels_last for the sake of the convolution, which costs more
    # here than it gains.
    "no-layout": {"layout_optimization": False},
}


@dataclass(frozen=True)
class Variant:
    """One module to measure; ``norm`` says which of the two specifications it is held to."""

    name: str
    kind: Kind
    module: nn.Module
    norm: bool = False


@dataclass(frozen=True)
class Inputs:
    """x and the gradient of y, in the row's dtype and layout, and the weights in its dtype."""

    x: Tensor
    dy: Tensor
    weights: Mapping[bool, Weights]


def make_inputs(row: Row, *, seed: int = 0) -> Inputs:
    """Normal values; the weights without and with a norm, keyed by whether they have one."""
    generator = torch.Generator().manual_seed(seed)
    dtype = DTYPES[row.dtype]
    x, dy = (
        placed(torch.randn(row.shape, generator=generator).to(dtype), row.layout) for _ in range(2)
    )
    ndim = len(row.shape) - 2
    weights = {
        norm: _rounded(Weights.random(row.shape[1], ndim=ndim, norm=norm, seed=seed), dtype)
        for norm in (False, True)
    }
    return Inputs(x, dy, weights)


def placed(x: Tensor, layout: str) -> Tensor:
    """The tensor in a memory layout.

    >>> placed(torch.zeros(1, 2, 3, 3), "channels_last").stride()
    (18, 1, 6, 2)
    """
    if layout == "contiguous":
        return x.contiguous()
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.contiguous(memory_format=formats[x.ndim])


def build_ours(channels: int, *, ndim: int, weights: Weights) -> nn.Module:
    """Ours as a user builds it, with these weights."""
    return weights.fill(CBAM(channels, ndim=ndim))


def build_variants(
    row: Row, settings: Settings, inputs: Inputs
) -> tuple[list[Variant], dict[str, str]]:
    """Every variant the row can have, in eval mode, and why it has not the others."""
    channels, ndim = row.shape[1], len(row.shape) - 2

    def finished(module: nn.Module) -> nn.Module:
        module = module.to(DTYPES[row.dtype]).eval()
        # As torch advises users of channels_last to do with their networks.
        return module.to(memory_format=torch.channels_last) if _is_image(row) else module

    ours = finished(build_ours(channels, ndim=ndim, weights=inputs.weights[False]))
    variants = [Variant("ours", "ours", ours)]
    absent: dict[str, str] = {}
    for peer in settings.peers:
        norm = has_norm(peer)
        module = build_peer(peer, channels, ndim=ndim, weights=inputs.weights[norm])
        if isinstance(module, str):
            absent[peer] = module
            continue
        module = finished(module)
        variants.append(Variant(peer, "eager", module, norm))
        for config in settings.compiled:
            variants.append(compiled(Variant(peer, "eager", module, norm), config))
    return variants, absent


def compiled(variant: Variant, config: CompileConfig) -> Variant:
    """A copy of the variant under torch.compile; what compiles is its first call."""
    module: Any = torch.compile(
        copy.deepcopy(variant.module), dynamic=False, options=COMPILE_OPTIONS[config]
    )
    return Variant(f"{variant.name} compiled {config}", "compiled", module, variant.norm)


def _is_image(row: Row) -> bool:
    return row.layout == "channels_last" and len(row.shape) == 4


def _rounded(weights: Weights, dtype: torch.dtype) -> Weights:
    # The reference gets the weights that the variants have, not those they were rounded from.
    def rounded(value: Tensor) -> Tensor:
        return value.to(dtype).to(torch.float32)

    return Weights(
        rounded(weights.reduce),
        rounded(weights.expand),
        rounded(weights.conv),
        None if weights.norm is None else rounded(weights.norm),
        None if weights.statistics is None else rounded(weights.statistics),
    )
