"""Eval mode that leaves no trace."""

import pytest
import torch
from torch import nn

from whatwhere import CBAM
from whatwhere.evaluation import evaluating


def test_evaluating_restores_each_flag_of_its_own():
    model = nn.Sequential(nn.BatchNorm2d(3), CBAM(3), nn.Dropout())
    model[0].eval()
    before = [module.training for module in model.modules()]

    def run():
        with evaluating(model):
            assert not any(module.training for module in model.modules())
            assert not torch.is_grad_enabled()
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        run()
    assert [module.training for module in model.modules()] == before
    assert len(set(before)) == 2
