"""Running sums of one gate over any number of inputs."""

import math

import torch
from torch import Tensor

from whatwhere.gates import ACTIVATIONS, Gate, Par

EDGE = 0.02  # of the range: below it an entry is low, above 1 - EDGE it is high


class Sums:
    """Of a gate's distance from its start, which keeps them exact, and its extremes.

    >>> from whatwhere import SpatialAttention
    >>> sums = Sums("spatial", SpatialAttention(), owner="example")
    >>> sums.add(torch.tensor([0.25, 0.75]).reshape(2, 1, 1, 1))
    >>> sums.mean().item(), sums.deviation(), sums.moved
    (0.5, 0.25, 0.25)
    """

    def __init__(self, site: str, gate: Gate | Par, *, owner: str) -> None:
        self.site = site
        self.owner = owner
        self.kind = gate.kind
        self.neutral = gate.neutral
        squash = ACTIVATIONS[gate.activation.name]
        self.start = gate.neutral if math.isinf(squash.top) else squash.zero
        # A gate below ``bottom`` is low, one above ``top`` high; without a range (NaN) none is.
        margin = EDGE * (squash.top - squash.bottom)
        self.bottom, self.top = squash.bottom + margin, squash.top - margin
        self.shuts = squash.bottom == 0
        self.inputs = 0
        self.sum = torch.zeros(())
        self.squares = torch.zeros(())
        self.smallest = torch.tensor(torch.inf)
        self.largest = torch.tensor(-torch.inf)
        self.distance = 0.0
        self.low = 0
        self.high = 0

    def add(self, gate: Tensor) -> None:
        """Take in the gate (N, ...) of N more inputs."""
        gate = gate.to("cpu", torch.float64)
        if self.inputs and self.sum.shape != gate.shape[1:]:
            raise ValueError(
                f"{self.owner}: expected {self.site} to have one shape for all inputs, got "
                f"{tuple(self.sum.shape)} and {tuple(gate.shape[1:])}"
            )
        if not gate.isfinite().all():
            raise ValueError(
                f"{self.owner}: expected {self.site} to give finite gates, got "
                f"{int((~gate.isfinite()).sum())} NaN or infinite entries"
            )
        if gate.shape[0] == 0:
            return
        shifted = gate - self.start
        self.inputs += gate.shape[0]
        self.sum = self.sum + shifted.sum(0)
        self.squares = self.squares + shifted.square().sum(0)
        low, high = gate.aminmax(dim=0)
        self.smallest = torch.minimum(self.smallest, low)
        self.largest = torch.maximum(self.largest, high)
        self.distance += shifted.abs().sum().item()
        self.low += int((gate < self.bottom).sum())
        self.high += int((gate > self.top).sum())

    @property
    def entries(self) -> int:
        """How many values there were."""
        return self.inputs * self.sum.numel()

    @property
    def moved(self) -> float:
        """Mean distance from the start."""
        return self.distance / self.entries

    def mean(self) -> Tensor:
        """Of each entry over inputs: the shape of the gate of one input."""
        return self.start + self.sum / self.inputs

    def deviation(self) -> float:
        """The largest distance of any entry from its mean over inputs."""
        return _farthest(self.mean(), self.smallest, self.largest)

    def per_channel(self) -> tuple[Tensor, float]:
        """The mean of each channel over inputs and positions (C, or 1), and the largest distance.

        A gate that keeps positions or frames has one channel.
        """
        mean = self.mean().flatten(1).mean(1)
        low = self.smallest.flatten(1).min(1).values
        high = self.largest.flatten(1).max(1).values
        return mean, _farthest(mean, low, high)


def _farthest(mean: Tensor, low: Tensor, high: Tensor) -> float:
    return torch.maximum(high - mean, mean - low).max().item()
