"""The batches of a training, in an order that the seed and the epoch alone decide."""

import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from whatwhere.study.data import Augmented, Split
from whatwhere.study.data.stream.order import Layout, near_order
from whatwhere.study.settings import StudySettings


class EpochOrder(Sampler[tuple[int, int]]):
    """Every index once per epoch, in an order that depends on the seed and the epoch alone.

    Args:
        length: how many there are.
        seed: of the order.
        layout: of samples in shards, which are then read in long pieces.
        batch_size: of the batches that this order becomes; only of importance with a layout.
    """

    def __init__(
        self, length: int, *, seed: int, layout: Layout | None = None, batch_size: int = 1
    ) -> None:
        self.length = length
        self.seed = seed
        self.layout = layout
        self.batch_size = batch_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for index in self._order():
            yield self.epoch, index

    def _order(self) -> Iterable[int]:
        if self.layout is not None:
            order = near_order(
                self.layout, batch_size=self.batch_size, seed=self.seed, epoch=self.epoch
            )
            return map(int, order)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        indices: list[int] = torch.randperm(self.length, generator=generator).tolist()
        return indices


class EpochView(Dataset[tuple[Tensor, int]]):
    """Augmented samples by (epoch, index), so that loader processes need no other state."""

    def __init__(self, augmented: Augmented) -> None:
        self.augmented = augmented

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, index = key
        self.augmented.set_epoch(epoch)
        return self.augmented[index]


def training_loader(split: Split, settings: StudySettings, *, seed: int) -> DataLoader[Any]:
    """Augmented batches in the seed's order; a last short batch is dropped, as batch norms ask."""
    return DataLoader(
        EpochView(Augmented(split, seed=seed)),
        batch_size=settings.batch_size,
        sampler=EpochOrder(
            len(split), seed=seed, layout=split.layout, batch_size=settings.batch_size
        ),
        drop_last=len(split) > settings.batch_size,
        num_workers=_loader_processes(),
    )


def evaluation_loader(split: Split, settings: StudySettings) -> DataLoader[Any]:
    """The samples as they are, in order."""
    return DataLoader(split, batch_size=2 * settings.batch_size, num_workers=_loader_processes())


def _loader_processes() -> int:
    # On a CPU the trials themselves use every core; beside a GPU the cores are free to decode.
    if not torch.cuda.is_available():
        return 0
    cores = os.cpu_count()
    return 0 if cores is None else min(8, cores // torch.cuda.device_count())
