"""Where every sample of a source is, from the indices of its shards: a few numbers a sample."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whatwhere.study.data.stream.index import ShardIndex
from whatwhere.study.data.stream.names import Kind

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Places:
    """Samples by row, and the blocks that they are read with.

    Args:
        shard, block: of each sample.
        place: first byte of a sample in a tar shard, row of its group in a table.
        size: bytes of each sample.
        shard_of_block: as it says.
        starts: first byte of a block or a record batch, number of a row group.
        bytes: of each block.
    """

    shard: Ints
    block: Ints
    place: Ints
    size: Ints
    shard_of_block: Ints
    starts: Ints
    bytes: Ints


def places_of(indices: Sequence[ShardIndex], kinds: Sequence[Kind]) -> Places:
    """The table of all samples, in the order of the shards."""
    blocks: list[tuple[Ints, Ints, Ints]] = []  # the shard, start and size of each
    numbers, before = [], 0
    for shard, (index, kind) in enumerate(zip(indices, kinds, strict=True)):
        own, inverse = np.unique(index.block, return_inverse=True)
        numbers.append(before + inverse)
        before += len(own)
        if kind == "tar":
            starts = np.full(len(own), np.iinfo(np.int64).max)
            np.minimum.at(starts, inverse, index.place)
            stops = np.zeros(len(own), np.int64)
            np.maximum.at(stops, inverse, index.place + index.size)
            sizes = stops - starts
        else:
            starts = own
            sizes = np.zeros(len(own), np.int64)
            np.add.at(sizes, inverse, index.size)
        blocks.append((np.full(len(own), shard), starts, sizes))
    shard_of_block, starts, sizes = (np.concatenate(each) for each in zip(*blocks, strict=True))
    block = np.concatenate(numbers)
    return Places(
        shard=shard_of_block[block],
        block=block,
        place=np.concatenate([index.place for index in indices]),
        size=np.concatenate([index.size for index in indices]),
        shard_of_block=shard_of_block,
        starts=starts,
        bytes=sizes,
    )
