"""The batches of a training, in an order that the seed and the epoch alone decide.

Several processes share every batch: together they see what one process would see.
"""

import math
import os
from collections.abc import Iterator
from itertools import islice
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from whatwhere.study.data import Augmented, Split, StudyData
from whatwhere.study.settings import StudySettings


class EpochOrder(Sampler[tuple[int, int]]):
    """Every index once per epoch, in an order that depends on the seed and the epoch alone."""

    def __init__(self, length: int, *, seed: int) -> None:
        self.length = length
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        for index in torch.randperm(self.length, generator=generator).tolist():
            yield self.epoch, index


class EpochView(Dataset[tuple[Tensor, int]]):
    """Augmented samples by (epoch, index), so that loader processes need no other state."""

    def __init__(self, augmented: Augmented) -> None:
        self.augmented = augmented

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, index = key
        self.augmented.set_epoch(epoch)
        return self.augmented[index]


class SharedBatches(BatchSampler):
    """One process's share of every batch of an order; the shares of all make up the batch.

    >>> order = EpochOrder(5, seed=0)
    >>> whole = list(SharedBatches(order, 4, drop_last=True))
    >>> first, second = (
    ...     list(SharedBatches(order, 4, drop_last=True, rank=rank, processes=2)) for rank in (0, 1)
    ... )
    >>> len(first[0]), sorted(first[0] + second[0]) == sorted(whole[0])
    (2, True)
    """

    def __init__(
        self,
        order: EpochOrder,
        batch_size: int,
        *,
        drop_last: bool,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        super().__init__(order, batch_size, drop_last)  # type: ignore[arg-type]  # keys, not ints
        self.rank = rank
        self.processes = processes
        self.first = 0  # of the batches that come next: those before it have been trained on

    def __iter__(self) -> Iterator[list[Any]]:
        for batch in islice(super().__iter__(), self.first, None):
            yield batch[self.rank :: self.processes]


class ResumableLoader(DataLoader[Any]):
    """A loader that goes on within an epoch: Lightning keeps its state in every checkpoint."""

    def __init__(
        self, dataset: Dataset[Any], batches: SharedBatches, *, num_workers: int = 0
    ) -> None:
        super().__init__(dataset, batch_sampler=batches, num_workers=num_workers)
        self.batches = batches
        self._drawn = 0
        self._start = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # A generator, so that nothing is drawn before Lightning has said which epoch it is.
        self.batches.first, self._start = self._start, 0
        self._drawn = self.batches.first
        for batch in super().__iter__():
            self._drawn += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """How many batches of the epoch have been handed out."""
        return {"batches": self._drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Begin after these batches, once."""
        self._start = state["batches"]


class Batches(lightning.LightningDataModule):
    """The loaders of one training, each for this process's share.

    They are made when Lightning asks, for only then the processes know of each other.
    """

    def __init__(self, data: StudyData, settings: StudySettings, *, seed: int) -> None:
        super().__init__()
        self.data = data
        self.settings = settings
        self.seed = seed

    def train_dataloader(self) -> ResumableLoader:
        """Augmented batches in the seed's order."""
        return training_loader(
            self.data.train,
            self.settings,
            seed=self.seed,
            rank=self._trainer().global_rank,
            processes=self._trainer().world_size,
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """The validation split."""
        return self._evaluation(self.data.val)

    def test_dataloader(self) -> DataLoader[Any]:
        """The test split."""
        return self._evaluation(self.data.test)

    def _evaluation(self, split: Split) -> DataLoader[Any]:
        trainer = self._trainer()
        return evaluation_loader(
            split, self.settings, rank=trainer.global_rank, processes=trainer.world_size
        )

    def _trainer(self) -> lightning.Trainer:
        assert self.trainer is not None
        return self.trainer


def training_loader(
    split: Split, settings: StudySettings, *, seed: int, rank: int = 0, processes: int = 1
) -> ResumableLoader:
    """Augmented batches in the seed's order; a last short batch is dropped, as batch norms ask."""
    batches = SharedBatches(
        EpochOrder(len(split), seed=seed),
        settings.batch_size,
        drop_last=len(split) > settings.batch_size,
        rank=rank,
        processes=processes,
    )
    return ResumableLoader(
        EpochView(Augmented(split, seed=seed)), batches, num_workers=_loader_processes()
    )


def evaluation_loader(
    split: Split, settings: StudySettings, *, rank: int = 0, processes: int = 1
) -> DataLoader[Any]:
    """This process's samples as they are: each sample in one process alone.

    Every process has as many batches as the others, of sizes that differ by one at most, for
    networks that are shared wait for each other at every batch.

    Raises:
        ValueError: there are fewer samples than processes.
    """
    if len(split) < processes:
        raise ValueError(
            f"expected at least a sample per device to evaluate on, got {len(split)} samples for "
            f"{processes} devices"
        )
    share = np.arange(rank, len(split), processes)
    at_once = max(2, 2 * settings.batch_size // processes)
    count = math.ceil(math.ceil(len(split) / processes) / at_once)
    batches = [part.tolist() for part in np.array_split(share, count)]
    return DataLoader(split, batch_sampler=batches, num_workers=_loader_processes())


def _loader_processes() -> int:
    # On a CPU the trials themselves use every core; beside a GPU the cores are free to decode.
    if not torch.cuda.is_available():
        return 0
    cores = os.cpu_count()
    return 0 if cores is None else min(8, cores // torch.cuda.device_count())
