"""Folding the gates of the whole family: those that are one go, and the output stays."""

import pytest
import torch

from whatwhere import attached, attend, fold, names
from whatwhere.gates.family import CLIPS, FRAMES
from whatwhere.study.networks import SmallResNet


def gated(name, start):
    ndim = 3 if name in CLIPS | FRAMES else 2
    torch.manual_seed(0)
    model = SmallResNet(3, in_channels=2, ndim=ndim, channels=(8, 16), blocks=(1, 1)).eval()
    x = torch.randn(4, 2, *(3, 9, 10)[-ndim:])
    attend(model, name, example=x, start=start)
    return model, x


@pytest.mark.parametrize("name", sorted(set(names()) - {"ge", "simam", "ema"}))
def test_gates_that_are_one_are_folded_away(name):
    model, x = gated(name, "identity")
    before = model(x)
    fold(model, [x])
    assert torch.equal(model(x), before)
    if len(model.stages[0][0].bn2._modules) == 0:
        assert attached(model) == ()


@pytest.mark.parametrize("name", names())
def test_what_stays_gives_what_it_gave(name):
    model, x = gated(name, "paper")
    before = model(x)
    fold(model, [x], tolerance=1e-6)
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)
