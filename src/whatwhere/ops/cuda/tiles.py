"""How a feature map is cut into chunks of samples, tiles and shares: from its shape and layout.

A tile is 16 to 128 elements along the axis that is contiguous in memory and 16 or more along the
other, powers of two, so that few kernels are compiled whatever the shapes are. Samples are planned
for a chunk at a time: as many as are computed together before the next ones begin.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

import torch
from torch import Tensor

SMALLEST, WIDEST = 16, 128
# Elements of a tile, and the threads in warps of 32 that share them.
ELEMENTS, WARPS = 4096, 8
# Elements along one axis where a kernel works on rows.
BLOCK = 256
# Programs that are enough to fill a device: so many a reduction is cut into, where it can be, into
# so many shares at most, of so many tiles at least: a program of one tile is over before it began.
ENOUGH, MOST_SHARES, LEAST_TILES = 512, 32, 2
# Programs that a pass over all channels is cut into by narrower tiles, where it can be.
NARROWED = 256
# Of the last cache, what a chunk's tensors of the size of x may fill. The rest is for what is
# written meanwhile; an H100's cache is two halves that may each keep a copy of the same line.
SHARE_OF_CACHE = 0.4


def _power(size: int, least: int, most: int) -> int:
    return min(most, max(least, 1 << (size - 1).bit_length()))


@dataclass(frozen=True)
class Plan:
    """What kernels need to know of an x, of which ``samples`` are computed at a time."""

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
        wanted = min(-(-ENOUGH // max(self.samples * tiles, 1)), MOST_SHARES)
        each = max(-(-steps // min(wanted, steps)), min(LEAST_TILES, steps))
        return -(-steps // each), each


@lru_cache(maxsize=1024)
def _plan(
    samples: int, sample: tuple[int, ...], by_pixel: bool, elements: int, narrow: bool
) -> Plan:
    channels, *positions = sample
    frames, height, width = (1,) * (3 - len(positions)) + tuple(positions)
    count = frames * height * width
    fast, slow = (channels, count) if by_pixel else (count, channels)
    if fast % SMALLEST:  # no whole vectors: each element takes registers for its own address
        elements //= 2
    fast_block = _power(fast, SMALLEST, WIDEST)
    slow_block = _power(slow, SMALLEST, elements // fast_block)
    block_c, block_p = (fast_block, slow_block) if by_pixel else (slow_block, fast_block)
    while narrow and block_p > SMALLEST and samples * -(-count // block_p) < NARROWED:
        block_p //= 2
        if block_c < channels and not by_pixel:
            block_c *= 2
    return Plan(
        samples=samples,
        channels=channels,
        space=(frames, height, width),
        stride_c=1 if by_pixel else count,
        stride_p=channels if by_pixel else 1,
        block_c=block_c,
        block_p=block_p,
    )


def plan(x: Tensor, samples: int, *, parts: int = 1, narrow: bool = False) -> Plan:
    """The plan of x, which is contiguous or channels_last, for so many samples at a time.

    Tiles are one of ``parts`` of the usual size; narrow ones cut the positions as fine as it takes
    to have enough programs without cutting the channels.
    """
    by_pixel = not x.is_contiguous()
    return _plan(samples, tuple(x.shape[1:]), by_pixel, ELEMENTS // parts, narrow)


@cache
def cache_bytes(device: torch.device) -> int | None:
    """The size of a device's last cache, None where that is nobody's business."""
    if device.type != "cuda":  # the interpreter's
        return None
    return int(torch.cuda.get_device_properties(device).L2_cache_size)


def chunk_of(x: Tensor, tensors: int) -> int:
    """How many samples of so many tensors like x stay in the cache between passes; at least one.

    All of them where even one sample doesn't fit: then there is nothing to gain.
    """
    samples, size = x.shape[0], cache_bytes(x.device)
    if size is None or x.numel() == 0:
        return samples
    fitting = int(SHARE_OF_CACHE * size) // (tensors * x.nbytes // samples)
    if fitting == 0 or fitting >= samples:
        return samples
    return -(-samples // -(-samples // fitting))


def chunks(samples: int, each: int) -> Iterator[tuple[int, int]]:
    """Where every chunk begins, and its samples.

    >>> list(chunks(5, 2)), list(chunks(0, 0))
    ([(0, 2), (2, 2), (4, 1)], [])
    """
    return ((start, min(each, samples - start)) for start in range(0, samples, max(each, 1)))


def rows(length: int) -> tuple[int, int]:
    """Tiles of a row of so many numbers, and the elements of one."""
    block = _power(length, SMALLEST, BLOCK)
    return -(-length // block), block


def absent(x: Tensor) -> Tensor:
    """What stands for an output that there is not."""
    return x.new_empty((0,), dtype=torch.float32)
