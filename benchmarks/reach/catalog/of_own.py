"""Networks as people write them: functional calls, a shared module, recurrence, 1-D, two inputs."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.reach.catalog.entry import Entry, image, volume


class Functional(nn.Module):
    """A residual network whose additions and activations are written in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.first = nn.Conv2d(16, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.wider = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.third = nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images."""
        x = F.relu(self.stem(x))
        x = F.relu(x + self.second(F.relu(self.first(x))))
        x = F.relu(self.wider(x))
        x = F.relu(x + 0.5 * self.third(x))
        return self.head(x.mean((2, 3)))


class Chain(nn.Sequential):
    """A plain chain without any addition."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
        )


class Waves(nn.Module):
    """A residual network for sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(2, 16, 7, stride=2, padding=3)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(16, 16, 5, padding=2, bias=False),
                nn.BatchNorm1d(16),
                nn.GELU(),
                nn.Conv1d(16, 16, 5, padding=2),
            )
            for _ in range(3)
        )
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Classify sequences."""
        x = self.stem(x)
        for block in self.blocks:
            x = F.gelu(x + block(x))
        return self.head(x.mean(-1))


class Repeated(nn.Module):
    """One block run three times with the same weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.block = nn.Sequential(nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16))
        self.head = nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Label every pixel."""
        x = self.stem(x)
        for _ in range(3):
            x = x + self.block(x)
        return self.head(x)


class TwoViews(nn.Module):
    """Two images in, one vector out, by one encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Functional()

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        """How alike the images are."""
        return {"alike": (self.encoder(left) * self.encoder(right)).sum(1)}


def entries() -> Iterator[Entry]:
    """The networks, in the order of the table."""
    yield Entry("residual, functional", Functional, image(32))
    yield Entry("plain chain", Chain, image(32))
    yield Entry("residual, 1-D", Waves, volume(256, channels=2))
    yield Entry("a block run three times", Repeated, image(32))
    yield Entry("two inputs, one encoder", TwoViews, lambda: image(32)() + image(32)())
    yield Entry("torch.nn.Transformer's tokens, no convolution", _tokens, _sequence)


def _tokens() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)


def _sequence() -> tuple[Tensor]:
    return (torch.randn(2, 12, 16),)
