"""The pointing game: does the peak of a where or when gate lie on what is known to matter?"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from whatwhere.gates import Kind

DILATION = 2  # pixels around the true place that count as a hit; frames are not dilated

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


class Truth(Protocol):
    """The true places of samples: masks (M, *S) of where and (M, T) of when, either may be None."""

    @property
    def where(self) -> Tensor | None:
        """Masks (M, *S), bool."""

    @property
    def when(self) -> Tensor | None:
        """Masks (M, T), bool."""


@dataclass(frozen=True)
class Hits:
    """The pointing game of one gate: share of hits, the share expected by chance, and of how many.

    Chance is the mean share of positions that count as a hit.
    """

    rate: float
    chance: float
    samples: int


class Pointing:
    """Counts the hits of one gate against masks, both in the order of the samples."""

    def __init__(self, masks: Tensor, *, name: str) -> None:
        self.masks = masks
        self.name = name
        self.hit = 0
        self.covered = 0.0
        self.samples = 0

    def add(self, gate: Tensor, first: int) -> None:
        """Count the gates (N, C or 1, *positions) of the samples that begin at number ``first``.

        One for each channel counts as the mean over them.
        """
        gate = gate.mean(1, keepdim=True)
        last = first + gate.shape[0]
        if last > len(self.masks):
            raise ValueError(
                f"diagnose: expected at most {len(self.masks)} inputs, as many as truth.{self.name}"
                f" has masks, got {last} or more"
            )
        masks = self.masks[first:last].cpu()
        if self.name == "where":
            masks = dilate(masks)
        else:
            gate = gate.flatten(2)  # (N, 1, T', 1, 1) -> (N, 1, T')
        if gate.ndim != masks.ndim + 1:
            raise ValueError(
                f"diagnose: expected truth.{self.name} to have the {gate.ndim - 2} position axes "
                f"of the gate, got masks of shape {tuple(masks.shape)}"
            )
        size = tuple(masks.shape[1:])
        maps = F.interpolate(gate, size=size, mode=_LINEAR[len(size)], align_corners=False)
        peaks = maps.flatten(1).argmax(1, keepdim=True)
        on_target = masks.flatten(1).gather(1, peaks).squeeze(1)
        # A map without a peak points nowhere; argmax would say position 0.
        flat = gate.flatten(1)
        points = flat.amax(1) > flat.amin(1)
        self.hit += int((on_target & points).sum())
        self.covered += masks.flatten(1).double().mean(1).sum().item()
        self.samples += gate.shape[0]

    def hits(self) -> Hits:
        """The counts as shares."""
        return Hits(
            rate=self.hit / self.samples, chance=self.covered / self.samples, samples=self.samples
        )


def pointing_for(kind: Kind, truth: Truth) -> Pointing | None:
    """The counter for a gate of this kind; None where the truth says nothing of it."""
    if kind == "where" and truth.where is not None:
        return Pointing(truth.where, name="where")
    if kind == "when" and truth.when is not None:
        return Pointing(truth.when, name="when")
    return None


def dilate(masks: Tensor) -> Tensor:
    """Grow masks (N, *S) by ``DILATION`` pixels to each side, over the last two axes of S at most.

    >>> line = torch.zeros(1, 9, dtype=torch.bool)
    >>> line[0, 4] = True
    >>> dilate(line).int()
    tensor([[0, 0, 1, 1, 1, 1, 1, 0, 0]], dtype=torch.int32)
    """
    size = 2 * DILATION + 1
    planes = masks.to(torch.float32)
    if masks.ndim == 2:
        grown = F.max_pool1d(planes, size, stride=1, padding=DILATION)
    else:
        grown = F.max_pool2d(planes, size, stride=1, padding=DILATION)
    return grown > 0
