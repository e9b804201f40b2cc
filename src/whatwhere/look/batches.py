"""Reading data: batches of inputs, with targets or without, as lists and DataLoaders give them."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils._pytree import tree_map


class Batch(NamedTuple):
    """Inputs (N, C, *S), and the targets they came with, or None."""

    inputs: Tensor
    targets: Any


def batches(owner: str, model: nn.Module, data: Iterable[Any]) -> Iterator[Batch]:
    """The batches of data, moved to the network's device.

    Args:
        owner: who says so, where something else comes.
        model: the network.
        data: tensors, or lists or tuples of a tensor and, if there are any, targets.

    Raises:
        ValueError: data is a tensor, or a batch is none of these.

    >>> from torch import ones
    >>> [batch.targets for batch in batches("example", nn.Identity(), [(ones(2, 3), "cats")])]
    ['cats']
    """
    if isinstance(data, Tensor):
        raise ValueError(
            f"{owner}: expected data to be batches, as [x] or a DataLoader, got a tensor of shape "
            f"{tuple(data.shape)}"
        )
    tensors = chain(model.parameters(), model.buffers())
    device = next((tensor.device for tensor in tensors), None)

    def moved(value: Any) -> Any:
        return value.to(device) if isinstance(value, Tensor) and device is not None else value

    for batch in data:
        parts = batch if isinstance(batch, list | tuple) else (batch,)
        if len(parts) not in (1, 2) or not isinstance(parts[0], Tensor) or parts[0].ndim == 0:
            raise ValueError(
                f"{owner}: expected every batch to be a tensor, or a tensor and targets, got "
                f"{type(batch).__name__} of {[type(part).__name__ for part in parts]}"
            )
        targets = tree_map(moved, parts[1]) if len(parts) == 2 else None
        yield Batch(moved(parts[0]), targets)


def check_repeatable(owner: str, data: Iterable[Any], why: str) -> None:
    """Refuse what can be gone through once only, as a generator."""
    if isinstance(data, Iterator):
        raise ValueError(
            f"{owner}: expected data that can be gone through more than once, {why}, got a "
            f"{type(data).__name__}; pass a list or a DataLoader"
        )
