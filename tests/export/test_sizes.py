"""Which sizes a network takes, and adaptive pooling as matrices: nothing is exported here."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from whatwhere.export.pooling import adaptive_average
from whatwhere.export.sizes import alternatives, first_input, other_shapes
from whatwhere.study.networks import SmallResNet


def test_sizes_are_guessed():
    model = SmallResNet(3, in_channels=2, ndim=3, channels=(4,), blocks=(1,)).eval()
    assert first_input(model).shape == (1, 2, 16, 112, 112)


def test_the_shapes_differ_on_every_axis_that_may():
    model = nn.Conv2d(3, 4, 3)
    shape = (2, 3, 12, 12)
    others = other_shapes(model, shape, alternatives(model, shape))
    assert len(others) == 3
    for other in others:
        assert other[1] == 3
        assert all(other[axis] != shape[axis] for axis in (0, 2, 3))
    assert any(height != width for _, _, height, width in others)


def test_what_a_network_refuses_is_no_size_of_its():
    class Strided(nn.Module):
        def forward(self, x):
            if x.shape[2] % 32 or x.shape[3] != 64:
                raise ValueError("no such size")
            return x

    taken = alternatives(Strided(), (2, 3, 64, 64))
    assert taken[2] == [96, 32, 128]
    assert 3 not in taken
    for _, _, height, width in other_shapes(Strided(), (2, 3, 64, 64), taken):
        assert height % 32 == 0
        assert width == 64


def test_squares_only():
    class Squares(nn.Module):
        def forward(self, x):
            return x + x.transpose(2, 3)

    assert list(alternatives(Squares(), (2, 3, 8, 8))) == [0]


@pytest.mark.parametrize("sizes", [(7,), (1, 7), (5, 3), (2, 7, 4)])
@pytest.mark.parametrize("lengths", [(5, 16, 9), (14, 7, 31)])
def test_pooling_as_matrices(sizes, lengths):
    pool = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[len(sizes) - 1]
    x = torch.randn(2, 3, *lengths[: len(sizes)], dtype=torch.float64)
    torch.testing.assert_close(adaptive_average(x, sizes), pool(x, sizes))
