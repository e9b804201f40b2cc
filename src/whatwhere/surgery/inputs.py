"""What to run a network on: an example of the caller's, or zeros of a size that it takes."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

CONVOLUTIONS = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
# By position axes; the first is reported if none of them works.
SIZES: dict[int, tuple[tuple[int, ...], ...]] = {
    1: ((256,), (1024,), (64,), (128,), (16000,)),
    2: tuple((side, side) for side in (224, 256, 32, 28, 64, 96, 128, 299, 384, 512)),
    3: ((16, 112, 112), (16, 64, 64), (64, 64, 64), (32, 32, 32), (8, 224, 224), (32, 224, 224)),
}

# What a network is called with: a tuple is its positional arguments, a mapping its keyword
# arguments, and anything else its only argument.
Example = Any


def called_with(example: Example) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments an example stands for.

    Raises:
        ValueError: there is no tensor in it.

    >>> called_with(torch.zeros(1, 3, 8, 8))[0][0].shape
    torch.Size([1, 3, 8, 8])
    >>> called_with({"pixel_values": torch.zeros(1)})
    ((), {'pixel_values': tensor([0.])})
    """
    if not any(isinstance(leaf, Tensor) for leaf in tree_leaves(example)):
        raise ValueError(
            "expected example to be a tensor, or a tuple, list or dict with tensors, got "
            f"{type(example).__name__}"
        )
    if isinstance(example, Mapping):
        return (), dict(example)
    return (example if isinstance(example, tuple) else (example,)), {}


def moved(example: Example, device: torch.device | str, dtype: torch.dtype | None) -> Example:
    """The example on a device, its floating-point tensors in a dtype if one is given."""

    def move(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return leaf.to(device=device, dtype=dtype if leaf.is_floating_point() else None)

    return tree_map(move, example)


def guesses(model: nn.Module) -> Iterator[Tensor]:
    """Zeros on the meta device with the channels of the first convolution, likeliest size first.

    Raises:
        ValueError: the model has no convolution to read the channels off.
    """
    first = next((m for m in model.modules() if isinstance(m, tuple(CONVOLUTIONS))), None)
    if first is None:
        raise ValueError(
            f"expected {type(model).__name__} to have a convolution that shows its input's "
            "channels, got none; pass example=, a tensor the model takes"
        )
    ndim = next(ndim for kind, ndim in CONVOLUTIONS.items() if isinstance(first, kind))
    said: Any = first.in_channels
    sizes, channels = [], [said]
    record = getattr(model, "pretrained_cfg", None)  # timm's
    if isinstance(record, Mapping) and len(record.get("input_size", ())) == ndim + 1:
        channels.append(record["input_size"][0])
        sizes.append(tuple(record["input_size"][1:]))
    side = getattr(getattr(model, "config", None), "image_size", None)  # that of transformers
    if isinstance(side, int):
        sizes.append((side,) * ndim)
    sizes += SIZES[ndim]
    # A stem may rearrange the input before its first convolution.
    for width in dict.fromkeys((*channels, 3, 1)):
        for size in dict.fromkeys(sizes):
            yield torch.zeros(1, width, *size, device="meta")
