"""Costs against integers worked out by hand."""

import pytest
import torch
import torchvision
from torch import nn

from whatwhere import attend, cost


def test_resnet50_has_torchvisions_published_parameters_and_macs():
    with torch.device("meta"):
        model = torchvision.models.resnet50()
        x = torch.zeros(1, 3, 224, 224)
    assert cost.parameters(model) == 25_557_032
    assert cost.macs(model, x) == 4_089_184_256


def test_cbam_adds_what_the_paper_counts():
    model = torchvision.models.resnet18()
    before = cost.parameters(model)
    attend(model, "cbam", dialect="official")
    assert cost.parameters(model) - before == 11_779_392 - 11_689_512  # CBAM's Table 4


def test_frozen_parameters_are_not_learnable():
    model = nn.Linear(3, 4)
    model.bias.requires_grad_(False)
    assert cost.parameters(model) == 12


def test_training_memory_counts_what_is_saved_once_and_leaves_the_model_alone():
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.ReLU()).eval()
    x = torch.randn(4, 2, 5, 5)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kept = cost.training_memory(model, x)
    # x for the convolution, its output for the norm, the ReLU's output; the norm's statistics.
    maps = 4 * (x.numel() + 2 * 4 * 3 * 25)
    assert maps <= kept <= maps + 200
    assert not model.training
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_latencies_are_relative_to_the_first_network():
    x = torch.randn(2, 4, 16, 16)
    slow = nn.Sequential(*[nn.Conv2d(4, 4, 3, padding=1) for _ in range(30)])
    measured = cost.latencies({"one": slow[0], "thirty": slow}, x, seconds=0)
    one, thirty = measured["one"], measured["thirty"]
    assert one.ratios == (1.0,) * cost.LEAST_ROUNDS
    for milliseconds, base, ratio in zip(
        thirty.milliseconds, one.milliseconds, thirty.ratios, strict=True
    ):
        assert ratio == pytest.approx(milliseconds / base)
    assert slow.training
