"""pytorchvideo's networks for clips; SlowFast takes a list of two."""

from collections.abc import Iterator

import torch
from pytorchvideo.models.resnet import create_resnet
from pytorchvideo.models.slowfast import create_slowfast
from pytorchvideo.models.x3d import create_x3d

from benchmarks.reach.catalog.entry import Arguments, Entry, volume


def entries() -> Iterator[Entry]:
    """The networks, in the order of the table."""
    yield Entry("resnet", create_resnet, volume(8, 224, 224, channels=3))
    yield Entry("x3d", create_x3d, volume(13, 160, 160, channels=3))
    yield Entry("slowfast", create_slowfast, _two_rates)


def _two_rates() -> Arguments:
    return ([torch.randn(2, 3, 8, 224, 224), torch.randn(2, 3, 32, 224, 224)],)
