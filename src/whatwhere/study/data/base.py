"""What every source of data becomes: normalised splits, and what a report has to say about them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from whatwhere.study.data.stream.order import Layout

Transform = Callable[[Tensor], Tensor]


class DataError(ValueError):
    """Something is wrong with the user's data or with what was asked of it."""


@dataclass(frozen=True)
class SkippedFile:
    """A file that could not be read, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class DataSettings:
    """What the user asked; plain values only, so that it can be stored as JSON.

    Args:
        source: "digits" or "clips" (embedded), the path of a folder or an .npz file,
            "torchvision:NAME", shards by path or URL, as in "train-{000..011}.tar", or "hf:NAME".
        size: side of a sample in pixels; None leaves it to the source.
        validation_fraction: cut from the training samples where the source has no such split.
        test_fraction: likewise for the test.
        split_seed: of those cuts and of ``max_train``.
        max_unreadable: more unreadable files than this are an error.
        max_train: at most so many training samples, for a first look; the other splits shrink
            in proportion.
        root: where torchvision's sets are kept; None for ``data`` in the current folder.
        download: whether torchvision may fetch what is not there.

    Raises:
        DataError: a value is out of range.

    >>> DataSettings(source="clips", max_train=500).validation_fraction
    0.15
    """

    source: str = "digits"
    size: int | None = None
    validation_fraction: float = 0.15
    test_fraction: float = 0.15
    split_seed: int = 0
    max_unreadable: int = 20
    max_train: int | None = None
    root: str | None = None
    download: bool = False

    def __post_init__(self) -> None:
        cut = (self.validation_fraction, self.test_fraction)
        if min(cut) <= 0 or sum(cut) >= 1:
            raise DataError(
                "expected validation_fraction and test_fraction above 0 that leave something to "
                f"train on, got {cut[0]} and {cut[1]}"
            )
        for name, lowest in {
            "size": 8,
            "max_train": 2,
            "max_unreadable": 0,
            "split_seed": 0,
        }.items():
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise DataError(f"expected {name} to be at least {lowest}, got {value}")


@dataclass(frozen=True)
class Truth:
    """Where and when the digit really is, for the test samples of the embedded sets in order."""

    where: Tensor | None  # (M, *S) bool: the digit's own ink
    when: Tensor | None  # (M, T) bool: the frames that show it


class Samples(Protocol):
    """Samples before normalisation, by row: uint8 (C, *S), or float32 (C, L)."""

    def __getitem__(self, row: int, /) -> Tensor: ...


@dataclass(frozen=True)
class Views:
    """How a stored sample becomes what a network sees: at evaluation, and in training."""

    evaluate: Transform
    augment: Transform


@dataclass(frozen=True)
class Scale:
    """Per-channel normalisation: x = (unit - mean) / std, unit = stored / full."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    full: float  # 255 for pixels, 1 for sequences

    def normalise(self, stored: Tensor) -> Tensor:
        """A stored sample as a normalised float32 tensor."""
        positions = (1,) * (stored.ndim - 1)
        mean = torch.tensor(self.mean).view(-1, *positions)
        std = torch.tensor(self.std).view(-1, *positions)
        # Division first: it makes the copy, so that what is stored stays as it is.
        return (stored / self.full).sub_(mean).div_(std)


class Split(Dataset[tuple[Tensor, int]]):
    """The samples of one split as the network sees them: normalised, not augmented."""

    def __init__(
        self,
        samples: Samples,
        *,
        rows: "np.ndarray[tuple[int], np.dtype[np.int64]]",
        labels: "np.ndarray[tuple[int], np.dtype[np.int64]]",
        views: Views,
        scale: Scale,
        layout: Layout | None = None,
    ) -> None:
        self._samples = samples
        self._rows = rows
        self._labels = labels
        self._views = views
        self._scale = scale
        self.labels = torch.from_numpy(labels)
        self.layout = layout  # how the samples lie in files that are best read in long pieces

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The normalised sample and its label."""
        return self._view(index, self._views.evaluate)

    def take(self, positions: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> "Split":
        """The split of the samples at these positions alone."""
        return Split(
            self._samples,
            rows=self._rows[positions],
            labels=self._labels[positions],
            views=self._views,
            scale=self._scale,
            layout=None if self.layout is None else self.layout.take(positions),
        )

    def augmented(self, index: int) -> tuple[Tensor, int]:
        """The same with a random augmentation, drawn from torch's CPU generator."""
        return self._view(index, self._views.augment)

    def _view(self, index: int, view: Transform) -> tuple[Tensor, int]:
        stored = self._samples[int(self._rows[index])]
        return self._scale.normalise(view(stored)), int(self.labels[index])


class Augmented(Dataset[tuple[Tensor, int]]):
    """A split with augmentation that is a pure function of (seed, epoch, index).

    So neither the number of worker processes nor resuming changes a run. ``set_epoch`` reaches
    workers that start after it: with persistent workers it does not.
    """

    def __init__(self, split: Split, *, seed: int) -> None:
        self.split = split
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Draw other augmentations from here on."""
        self.epoch = epoch

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The augmented, normalised sample and its label."""
        entropy = np.random.SeedSequence((self.seed, self.epoch, index))
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed: that would also reseed the GPUs, which fork_rng leaves out
            # here, and so give every step the same dropout.
            torch.default_generator.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))
            return self.split.augmented(index)


@dataclass
class StudyData:
    """A source, ready to train on: ``load`` makes it."""

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]  # (C, *S) of one sample
    train: Split
    val: Split
    test: Split
    skipped: tuple[SkippedFile, ...]
    truth: Truth | None
    fingerprint: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    value_range: tuple[float, float]  # what unnormalise maps to 0 and 1
    stored: int  # last axis of a sample as kept, of which evaluation sees the centre

    @property
    def ndim(self) -> int:
        """Position axes: 1 (L), 2 (H, W) or 3 (D or T, H, W)."""
        return len(self.shape) - 1

    def unnormalise(self, x: Tensor) -> Tensor:
        """Values in [0, 1] for display, of one sample or a batch of them."""
        positions = (1,) * self.ndim
        mean = torch.tensor(self.mean, device=x.device).view(-1, *positions)
        std = torch.tensor(self.std, device=x.device).view(-1, *positions)
        low, high = self.value_range
        return ((x * std + mean - low) / (high - low)).clamp(0, 1)
