"""The order in which samples of shards are taken: every one once, and neighbours together."""

from collections import OrderedDict, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatwhere.study.data.stream.order import (
    MEMORY,
    MOST,
    TOGETHER,
    Layout,
    in_turn,
    layout_of,
    loader_processes,
    near_order,
)


def layout(count, each, *, by_batch=8, by_position=8):
    return Layout(np.arange(count) // each, by_batch, by_position)


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    batch_size=st.integers(1, 20),
    powers=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    epoch=st.integers(0, 3),
)
def test_every_sample_comes_once(sizes, batch_size, powers, epoch):
    blocks = np.repeat(np.arange(len(sizes)) * 7, sizes)  # the numbers of some of a source's blocks
    lies = Layout(blocks, 1 << powers[0], 1 << powers[1])
    order = near_order(lies, batch_size=batch_size, seed=3, epoch=epoch)
    assert sorted(order.tolist()) == list(range(len(blocks)))


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        return near_order(layout(200, 10), batch_size=8, seed=seed, epoch=epoch).tolist()

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def fetches(lies, order, *, batch_size, ranks, workers, room):
    """How often a block is fetched, by readers that keep ``room`` of them, the last ones used."""
    kept = defaultdict(OrderedDict)
    count = 0
    for place, position in enumerate(order):
        batch, j = divmod(place, batch_size)
        own, block = kept[batch % workers, j % ranks], lies.blocks[position]
        if block not in own:
            count += 1
            if len(own) == room // workers:
                own.popitem(last=False)
        own[block] = True
        own.move_to_end(block)
    return count


@pytest.mark.parametrize("each", [4, 20, 80])
@pytest.mark.parametrize(("ranks", "workers"), [(1, 1), (1, 4), (2, 4), (4, 8), (8, 8), (3, 8)])
def test_a_block_is_fetched_by_one_process_once(ranks, workers, each):
    size = 2**21
    lies = layout_of(np.arange(500 * each) // each, size)
    assert loader_processes(lies, workers) == workers
    order = near_order(lies, batch_size=64, seed=0, epoch=0)
    count = fetches(lies, order, batch_size=64, ranks=ranks, workers=workers, room=MEMORY // size)
    readers = 1 if 8 % ranks == 0 else ranks  # three ranks can't share eight lanes
    assert 500 <= count <= 1.2 * 500 * readers


def test_other_numbers_of_processes_would_fetch_more():
    lies = layout_of(np.arange(10_000) // 20, 2**21)
    order = near_order(lies, batch_size=64, seed=0, epoch=0)
    assert fetches(lies, order, batch_size=64, ranks=1, workers=6, room=256) > 2 * 500
    assert loader_processes(lies, 6) == 4
    large = layout_of(np.arange(10_000) // 20, 2**26)
    assert loader_processes(large, 8) == large.by_batch == 2


def test_a_block_is_done_with_soon():
    lies = layout(6400, 20, by_batch=2, by_position=2)
    order = near_order(lies, batch_size=16, seed=0, epoch=0)
    seen = lies.blocks[order]
    spans = [np.ptp(np.flatnonzero(seen == block)) for block in np.unique(seen)]
    # Each of four lanes shuffles so many blocks of 20 at once, and one at a cut is in two lanes.
    within = TOGETHER * 20 * 4
    assert sorted(spans)[-4] <= within < len(order) / 10


def test_samples_are_mixed():
    # One block after the other, as a source sorted by class has them.
    lies = layout(6400, 100)
    order = near_order(lies, batch_size=64, seed=0, epoch=0)
    per_batch = [len(set(lies.blocks[batch])) for batch in order.reshape(-1, 64)]
    assert min(per_batch) >= 8
    together = near_order(layout(100, 100), batch_size=10, seed=0, epoch=0)
    assert np.abs(np.diff(together)).mean() > 20  # a third of 100 if shuffled, 1 if not


@pytest.mark.parametrize(
    ("largest", "lanes"),
    [(2**21, (8, 8)), (2**24, (8, 1)), (2**26, (2, 1)), (2**28, (1, 1)), (2**30, (1, 1))],
)
def test_large_blocks_leave_room_for_few_lanes(largest, lanes):
    lies = layout_of(np.arange(5), largest)
    assert (lies.by_batch, lies.by_position) == lanes


@pytest.mark.parametrize("batches", [1, 7, 8, 23])
def test_batches_in_turn_are_neighbours_to_each_reader(batches):
    order = in_turn(batches, MOST)
    assert sorted(order.tolist()) == list(range(batches))
    for reader in range(MOST):
        assert set(np.diff(order[reader::MOST])) <= {1}
