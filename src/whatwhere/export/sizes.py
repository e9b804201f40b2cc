"""Which sizes a network takes: found by running it, before anything is exported."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from whatwhere.surgery.inputs import guesses

BATCH = 0
CHANNELS = 1
BATCHES = (1, 3, 5, 4, 8)
ENOUGH = 3  # sizes of an axis, and whole shapes, other than the traced one


def first_input(model: nn.Module) -> Tensor:
    """Noise of the first size that the network runs on.

    Raises:
        ValueError: none of the sizes tried works.
    """
    tried = []
    for guess in guesses(model):
        x = noise(guess.shape)
        if runs(model, x):
            return x
        tried.append("x".join(map(str, guess.shape[1:])))
    raise ValueError(
        f"expected {type(model).__name__} to run on one of the shapes {', '.join(tried)}; pass an "
        "example, a tensor the network takes"
    )


def noise(shape: Sequence[int]) -> Tensor:
    """Normal noise, the same at every call with the same shape."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(0))


def runs(model: nn.Module, x: Tensor) -> bool:
    """Whether the network runs on a tensor."""
    try:
        model(x)
    except Exception:  # whatever a network says to a size it can't take
        return False
    return True


def alternatives(model: nn.Module, shape: Sequence[int]) -> dict[int, list[int]]:
    """By axis but that of the channels, up to three sizes the network takes there instead.

    The axes are varied one at a time, and one that has no entry takes no other size.

    >>> alternatives(nn.Conv2d(3, 8, 3), (2, 3, 16, 16))
    {0: [1, 3, 5], 2: [17, 23, 12], 3: [17, 23, 12]}
    >>> alternatives(nn.Sequential(nn.Flatten(), nn.Linear(768, 2)), (2, 3, 16, 16))
    {0: [1, 3, 5]}
    """
    found: dict[int, list[int]] = {}
    for axis in range(len(shape)):
        if axis == CHANNELS:
            continue
        taken: list[int] = []
        for size in _candidates(axis, shape[axis]):
            other = [size if each == axis else held for each, held in enumerate(shape)]
            if len(taken) < ENOUGH and runs(model, noise(other)):
                taken.append(size)
        if taken:
            found[axis] = taken
    return found


def other_shapes(
    model: nn.Module, shape: Sequence[int], taken: Mapping[int, Sequence[int]]
) -> list[tuple[int, ...]]:
    """Up to three shapes the network takes, that differ from ``shape`` on every axis that may."""
    found: list[tuple[int, ...]] = []
    for other in _combinations(shape, taken):
        if len(found) < ENOUGH and other not in found and runs(model, noise(other)):
            found.append(other)
    return found


def _candidates(axis: int, size: int) -> list[int]:
    if axis == BATCH:
        sizes = [each for each in BATCHES if each != size] + [2 * size]
    else:
        # Odd ones, smaller ones, and multiples of 32 for networks that ask for them.
        near = [size + 1, size + size // 4 + 3, size * 3 // 4, size + 32, size - 32, size + 64]
        sizes = [*near, 2 * size, size // 2, size - 1]
    return [each for each in dict.fromkeys(sizes) if each > 0 and each != size]


def _combinations(
    shape: Sequence[int], taken: Mapping[int, Sequence[int]]
) -> Iterator[tuple[int, ...]]:
    for turn in (1, 0):  # axes out of step with each other, so that sides differ; then in step
        for index in range(ENOUGH):
            yield tuple(
                taken[axis][(index + turn * (axis == len(shape) - 1)) % len(taken[axis])]
                if axis in taken
                else size
                for axis, size in enumerate(shape)
            )
    for axis, sizes in taken.items():
        for size in sizes:
            yield tuple(size if each == axis else held for each, held in enumerate(shape))
