"""The numbers of one CBAM, apart from names and layouts, and how they are made to fit a dialect."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from whatwhere.checkpoints.conversion.dialects import Spelling

EPSILON = 1e-5  # of every dialect's batch norm
MISSING = "it has no"
STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class Weights:
    """W0 (hidden, C), W1 (C, hidden), the convolution (1, 2, *kernel), their biases, the norm."""

    reduce: Tensor
    reduce_bias: Tensor | None
    expand: Tensor
    expand_bias: Tensor | None
    conv: Tensor
    conv_bias: Tensor | None
    norm: dict[str, Tensor] | None

    @property
    def channels(self) -> int:
        """C."""
        return self.expand.shape[0]

    @property
    def hidden(self) -> int:
        """Units of the hidden layer."""
        return self.expand.shape[1]

    @property
    def kernel(self) -> tuple[int, ...]:
        """Kernel size of the convolution, one number per position axis."""
        return tuple(self.conv.shape[2:])


def names(spelling: Spelling) -> list[str]:
    """Every key that one CBAM so spelt may have."""
    layers = (spelling.reduce, spelling.expand, spelling.conv)
    keys = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    if spelling.norm is not None:
        kinds = ("weight", "bias", *STATISTICS, "num_batches_tracked")
        keys += [f"{spelling.norm}.{kind}" for kind in kinds]
    return keys


def read(tensors: Mapping[str, Tensor], spelling: Spelling) -> Weights:
    """The numbers of the CBAM with these keys, which ``fault`` found nothing wrong with."""
    norm = None
    if spelling.norm is not None and f"{spelling.norm}.weight" in tensors:
        start = f"{spelling.norm}."
        norm = {
            key.removeprefix(start): tensors[key] for key in names(spelling)
            if key.startswith(start) and key in tensors
        }  # fmt: skip
    return Weights(
        reduce=tensors[f"{spelling.reduce}.weight"].flatten(1),
        reduce_bias=tensors.get(f"{spelling.reduce}.bias"),
        expand=tensors[f"{spelling.expand}.weight"].flatten(1),
        expand_bias=tensors.get(f"{spelling.expand}.bias"),
        conv=tensors[f"{spelling.conv}.weight"],
        conv_bias=tensors.get(f"{spelling.conv}.bias"),
        norm=norm,
    )


def write(weights: Weights, spelling: Spelling) -> dict[str, Tensor]:
    """The state_dict of the CBAM so spelt."""
    ones = () if spelling.linear else (1,) * len(weights.kernel)
    tensors = {
        f"{spelling.reduce}.weight": weights.reduce.reshape(*weights.reduce.shape, *ones),
        f"{spelling.reduce}.bias": weights.reduce_bias,
        f"{spelling.expand}.weight": weights.expand.reshape(*weights.expand.shape, *ones),
        f"{spelling.expand}.bias": weights.expand_bias,
        f"{spelling.conv}.weight": weights.conv,
        f"{spelling.conv}.bias": weights.conv_bias,
    }
    if weights.norm is not None:
        tensors |= {f"{spelling.norm}.{kind}": each for kind, each in weights.norm.items()}
    return {key: tensor for key, tensor in tensors.items() if tensor is not None}


def fault(tensors: Mapping[str, Tensor], spelling: Spelling) -> str | None:
    """What keeps the tensors of a module from being a CBAM so spelt; None where nothing does."""
    layers = {
        spelling.reduce: spelling.network_bias,
        spelling.expand: spelling.network_bias,
        spelling.conv: spelling.conv_bias,
    }
    needed = [f"{layer}.weight" for layer in layers]
    needed += [f"{layer}.bias" for layer, biased in layers.items() if biased]
    if spelling.norm is not None:
        needed += [f"{spelling.norm}.{kind}" for kind in ("weight", "bias", *STATISTICS)]
    missing = [key for key in needed if key not in tensors]
    if missing:
        return f"{MISSING} {', '.join(missing[:3])}"
    parts = tuple({f"{layer.split('.')[0]}." for layer in layers})
    known = {*needed, f"{spelling.norm}.num_batches_tracked"}
    unknown = [key for key in tensors if key.startswith(parts) and key not in known]
    if unknown:
        return f"it has {', '.join(unknown[:3])}, which that code has not"
    return _bad_shape(tensors, spelling)


def _bad_shape(tensors: Mapping[str, Tensor], spelling: Spelling) -> str | None:
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    conv = shapes[f"{spelling.conv}.weight"]
    if len(conv) not in (3, 4, 5) or conv[:2] != (1, 2):
        return f"{spelling.conv}.weight is {conv}, where a CBAM's is (1, 2, *kernel)"
    if any(size % 2 == 0 for size in conv[2:]):
        return f"{spelling.conv}.weight is {conv}: even kernels change the size of what they gate"
    reduce = shapes[f"{spelling.reduce}.weight"]
    expand = shapes[f"{spelling.expand}.weight"]
    ones = () if spelling.linear else (1,) * (len(conv) - 2)
    if len(reduce) < 2 or reduce != (*reversed(expand[:2]), *ones) or expand[2:] != ones:
        return f"{spelling.reduce}.weight is {reduce} and {spelling.expand}.weight {expand}"
    if 0 in reduce:
        return f"{spelling.reduce}.weight is {reduce}: the reduction ratio left no hidden unit"
    sizes = {spelling.reduce: reduce[0], spelling.expand: reduce[1], spelling.conv: 1}
    for layer, size in sizes.items():
        if shapes.get(f"{layer}.bias", (size,)) != (size,):
            return f"{layer}.bias is {shapes[f'{layer}.bias']}, expected ({size},)"
    if spelling.norm is not None:
        for kind in ("weight", "bias", *STATISTICS):
            if prod(shapes.get(f"{spelling.norm}.{kind}", (1,))) != 1:
                return f"{spelling.norm}.{kind} is {shapes[f'{spelling.norm}.{kind}']}"
    return None


def fold_norm(weights: Weights) -> Weights:
    """The norm as part of the convolution: the same in eval mode."""
    norm = weights.norm
    if norm is None:
        return weights
    wide = {kind: each.double() for kind, each in norm.items()}
    scale = wide["weight"] / (wide["running_var"] + EPSILON).sqrt()
    bias = wide["bias"] - wide["running_mean"] * scale
    if weights.conv_bias is not None:
        bias = bias + weights.conv_bias.double() * scale
    dtype = weights.conv.dtype
    conv = (weights.conv.double() * scale).to(dtype)
    return replace(weights, conv=conv, conv_bias=bias.to(dtype), norm=None)


def add_norm(weights: Weights) -> Weights:
    """A norm that, in eval mode, adds the convolution's bias and nothing else."""
    one = torch.ones(1, dtype=weights.conv.dtype)
    bias = torch.zeros_like(one) if weights.conv_bias is None else weights.conv_bias
    norm = {
        "weight": one,
        "bias": bias,
        "running_mean": torch.zeros_like(one),
        "running_var": one - EPSILON,
        "num_batches_tracked": torch.tensor(0),
    }
    return replace(weights, conv_bias=None, norm=norm)
