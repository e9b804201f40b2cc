"""How a feature map is cut into tiles and shares: from its shape and layout alone.

A tile is 16 to 128 elements along the axis that is contiguous in memory and 16 or more along the
other, powers of two, so that few kernels are compiled whatever the shapes are.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

SMALLEST, WIDEST = 16, 128
# Elements of a tile, and the threads in warps of 32 that share them.
ELEMENTS, WARPS = 4096, 8
# Elements along one axis where a kernel works on rows.
BLOCK = 256
# Programs that are enough to fill a device: so many a reduction is cut into, where it can be.
ENOUGH = 512


def _power(size: int, least: int, most: int) -> int:
    return min(most, max(least, 1 << (size - 1).bit_length()))


@dataclass(frozen=True)
class Plan:
    """What kernels need to know of an x."""

    samples: int
    channels: int
    space: tuple[int, int, int]  # frames, height, width
    stride_c: int
    stride_p: int
    block_c: int
    block_p: int

    @property
    def positions(self) -> int:
        """P."""
        return math.prod(self.space)

    @property
    def strides(self) -> tuple[int, int, int, int]:
        """C, P and the strides along both, as kernels take them."""
        return self.channels, self.positions, self.stride_c, self.stride_p

    @property
    def tiles_c(self) -> int:
        """Tiles along the channels."""
        return -(-self.channels // self.block_c)

    @property
    def tiles_p(self) -> int:
        """Tiles along the positions."""
        return -(-self.positions // self.block_p)

    @property
    def blocks(self) -> dict[str, int]:
        """The keywords of a kernel that works on tiles."""
        return {"BC": self.block_c, "BP": self.block_p, "num_warps": WARPS}

    def shares(self, tiles: int, steps: int) -> tuple[int, int]:
        """Into how many shares ``steps`` are cut, ``tiles`` a sample not being cut, and each's."""
        wanted = -(-ENOUGH // max(self.samples * tiles, 1))
        each = -(-steps // min(wanted, steps))
        return -(-steps // each), each


@lru_cache(maxsize=1024)
def _plan(shape: tuple[int, ...], by_pixel: bool, elements: int) -> Plan:
    samples, channels, *positions = shape
    frames, height, width = (1,) * (3 - len(positions)) + tuple(positions)
    count = frames * height * width
    fast, slow = (channels, count) if by_pixel else (count, channels)
    fast_block = _power(fast, SMALLEST, WIDEST)
    slow_block = _power(slow, SMALLEST, elements // fast_block)
    return Plan(
        samples=samples,
        channels=channels,
        space=(frames, height, width),
        stride_c=1 if by_pixel else count,
        stride_p=channels if by_pixel else 1,
        block_c=fast_block if by_pixel else slow_block,
        block_p=slow_block if by_pixel else fast_block,
    )


def plan(x: Tensor, parts: int = 1) -> Plan:
    """The plan of x, which is contiguous or channels_last; tiles are a part of the usual size."""
    return _plan(tuple(x.shape), not x.is_contiguous(), ELEMENTS // parts)


def rows(length: int) -> tuple[int, int]:
    """Tiles of a row of so many numbers, and the elements of one."""
    block = _power(length, SMALLEST, BLOCK)
    return -(-length // block), block


def absent(x: Tensor) -> Tensor:
    """What stands for an output that there is not."""
    return x.new_empty((0,), dtype=torch.float32)
