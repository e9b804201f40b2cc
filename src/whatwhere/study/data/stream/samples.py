"""Samples read from their shards as they are needed, a block at a time, the last ones kept."""

from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from whatwhere.study.data.base import DataError
from whatwhere.study.data.pixels import in_rgb
from whatwhere.study.data.stream import arrow, parquet
from whatwhere.study.data.stream.index import read_sample
from whatwhere.study.data.stream.order import MEMORY
from whatwhere.study.data.stream.places import Places
from whatwhere.study.data.stream.shards import Shard, fetch, opened

Ints = NDArray[np.int64]


class ShardSamples:
    """Samples by row, from any place that files are read from.

    Args:
        shards: where.
        places: of all samples.
        side: of images as they are stored.
        grey: whether the images have one channel; None of what is no image.
    """

    def __init__(
        self, shards: tuple[Shard, ...], places: Places, *, side: int, grey: bool | None
    ) -> None:
        self.shards = shards
        self.places = places
        self.side = side
        self.grey = grey
        self._kept: OrderedDict[int, bytes | list[bytes]] = OrderedDict()
        self._bytes = 0

    def __getitem__(self, row: int, /) -> Tensor:
        """One sample."""
        places = self.places
        shard = self.shards[places.shard[row]]
        block = self._block(int(places.block[row]))
        place, size = int(places.place[row]), int(places.size[row])
        if isinstance(block, bytes):
            place -= int(places.starts[places.block[row]])
            content = block[place : place + size]
        else:
            content = block[place]
        try:
            sample = read_sample(content, self.side)
        except Exception as problem:
            raise DataError(
                f"{shard.url}: its sample of {size} bytes at {places.place[row]} was readable at "
                f"first and no longer is: {type(problem).__name__}: {problem}"
            ) from problem
        return in_rgb(sample) if self.grey is False else sample

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: not the bytes kept."""
        return {**self.__dict__, "_kept": OrderedDict(), "_bytes": 0}

    def _block(self, number: int) -> bytes | list[bytes]:
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        worker = get_worker_info()
        room = MEMORY if worker is None else MEMORY // worker.num_workers
        size = int(self.places.bytes[number])
        while self._kept and self._bytes + size > room:
            old, _ = self._kept.popitem(last=False)
            self._bytes -= int(self.places.bytes[old])
        self._kept[number] = self._read(number)
        self._bytes += size
        return self._kept[number]

    def _read(self, number: int) -> bytes | list[bytes]:
        places = self.places
        shard = self.shards[places.shard_of_block[number]]
        start = int(places.starts[number])
        if shard.kind == "tar":
            return fetch(shard.url, start, start + int(places.bytes[number]))
        read_group = parquet.read_group if shard.kind == "parquet" else arrow.read_group
        with opened(shard.url) as file:
            return read_group(file, start)
