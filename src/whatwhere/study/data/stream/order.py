"""An order of samples that reads shards in long pieces, and is the same on any number of processes.

A shuffled order asks for a sample here and a sample there: from a disk that turns or a server far
away, that is a hundred times slower than reading on. So the samples of a *block*, neighbours that
are read together, are used close to each other. A training's batches are dealt to *lanes*:

    lane(position j of batch t) = (t mod K, j mod P)

K lanes by batch, since K loader processes take batches in turn, and P by position, since each of
P ranks takes every Pth sample of a batch. The blocks, in random order and shuffled inside, are cut
into as many stretches, one for each lane, and each stretch is shuffled among a few blocks at a
time. With up to K processes and up to P ranks, if these divide K and P, every block is read by one
process, except for those at the cuts.

K and P depend on the data alone, so that the order depends on the seed, the epoch and the batch
size, not on who reads.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

TOGETHER = 2  # blocks of a lane that are shuffled together
MOST = 8  # lanes by batch, and by position
MEMORY = 2**29  # bytes of blocks that the processes of one rank keep, all together
# Half of it for the blocks in use, half for those done with: the least recently used is let go, and
# it would be one that is needed next if there were no others.
IN_USE = MEMORY // 2


@dataclass(frozen=True)
class Layout:
    """How samples lie in their shards.

    Args:
        blocks: of each sample, the block that it is read with.
        by_batch: K above.
        by_position: P above.
    """

    blocks: Ints
    by_batch: int
    by_position: int

    def take(self, rows: Ints) -> "Layout":
        """Of some of the samples."""
        return Layout(self.blocks[rows], self.by_batch, self.by_position)


def layout_of(blocks: Ints, largest: int) -> Layout:
    """As many lanes as there is memory for.

    Args:
        blocks: of each sample.
        largest: bytes of the largest block.

    >>> layout = layout_of(np.arange(10), 2**24)
    >>> layout.by_batch, layout.by_position
    (8, 1)
    """
    lanes = max(1, IN_USE // (TOGETHER * max(1, largest)))
    by_batch = _power(min(MOST, lanes))
    return Layout(blocks, by_batch, _power(min(MOST, lanes // by_batch)))


def loader_processes(layout: Layout, most: int) -> int:
    """As many loader processes as have lanes of their own, up to ``most``; others would each fetch
    every block.

    >>> [loader_processes(layout_of(np.arange(10), 2**21), most) for most in (0, 1, 6, 20)]
    [0, 1, 4, 8]
    """
    return 0 if most == 0 else min(layout.by_batch, _power(most))


def near_order(layout: Layout, *, batch_size: int, seed: int, epoch: int) -> Ints:
    """The positions of all samples, every one once, shuffled as the module says.

    >>> order = near_order(layout_of(np.arange(100) // 10, 1), batch_size=8, seed=0, epoch=0)
    >>> sorted(order.tolist()) == list(range(100))
    True
    """
    random = np.random.default_rng((seed, epoch))
    _, blocks = np.unique(layout.blocks, return_inverse=True)
    rank = random.permutation(blocks.max() + 1)[blocks]
    dealt = np.lexsort((random.random(len(blocks)), rank))
    batch, position = np.divmod(np.arange(len(blocks)), batch_size)
    parts = layout.by_position
    lanes = batch % layout.by_batch * parts + position % parts
    slots = np.argsort(lanes, kind="stable")  # the places of the order, the first lane's first
    lane = lanes[slots]
    together = _runs_of(lane, rank[dealt]) // TOGETHER
    mixed = dealt[np.lexsort((random.random(len(blocks)), together, lane))]
    order = np.empty_like(mixed)
    order[slots] = mixed
    return order


def in_turn(batches: int, lanes: int) -> Ints:
    """An order of batches in which neighbours go to the same of so many readers that take turns.

    >>> in_turn(5, 2).tolist()
    [0, 3, 1, 4, 2]
    """
    order = np.empty(batches, np.int64)
    order[np.argsort(np.arange(batches) % lanes, kind="stable")] = np.arange(batches)
    return order


def _runs_of(lane: Ints, block: Ints) -> Ints:
    """The number of each sample's block among those of its lane, in both of which equals adjoin."""
    new_lane = np.diff(lane, prepend=-1) != 0
    run = np.cumsum(new_lane | (np.diff(block, prepend=-1) != 0))
    first = np.maximum.accumulate(np.where(new_lane, run, 0))
    return run - first


def _power(most: int) -> int:
    return 1 << (most.bit_length() - 1)
