"""Every kind of gate fuses with its block's end, and gates with classes of one's own do not."""

import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from tests.cases import randomise
from tests.surgery.fused import RELU, WAITED, Block, X, gated_and_fused, gradients
from whatwhere import ChannelAttention, Seq, SpatialAttention, attend, build
from whatwhere.study.networks import SmallResNet
from whatwhere.surgery import fuse

GATES = {
    "se": ("se", {}),
    "channel, all statistics": ("channel", {"statistics": ["std", "l2", "max", "mean"]}),
    "spatial": ("spatial", {}),
    "spatial, norm": ("spatial", {"norm_momentum": 0.1, "statistics": ["l2"]}),
    "official": ("cbam", {"dialect": "official"}),
    "timm": ("cbam", {"dialect": "timm"}),
    "spatial-channel": ("cbam", {"order": "spatial-channel"}),
    "temporal": ("temporal", {}),
    "temporal, dense": ("temporal", {"form": "dense", "frames": "site"}),
    "clips": ("cbam", {"order": "temporal-channel-spatial", "dialect": "official"}),
}


@pytest.mark.parametrize("kernels", ["cpu"], indirect=True)
@pytest.mark.parametrize("name", GATES)
def test_gates_are_equal_in_values_gradients_and_statistics(name, passes):
    gate, options = GATES[name]
    if "temporal" in name or "clips" in name:
        model, x = (
            SmallResNet(3, channels=(4, 8), blocks=(1, 1), ndim=3),
            torch.randn(3, 3, 4, 8, 8),
        )
    else:
        model, x = torchvision.models.resnet18(), torch.randn(2, 3, 48, 40)
    x = x.double()
    model, fused, sites = gated_and_fused(model.double(), gate, example=x, **options)
    with torch.no_grad():
        torch.testing.assert_close(fused.eval()(x), model.eval()(x), rtol=1e-9, atol=1e-9)
    assert passes == [(True, "relu", not isinstance(model, SmallResNet))] * len(sites)
    for training in (False, True):
        passes.clear()
        y, ours = gradients(fused.train(training), x)
        expected, theirs = gradients(model.train(training), x)
        assert passes == [RELU] * len(sites)
        torch.testing.assert_close(y, expected, rtol=1e-8, atol=1e-8)
        largest = max(each.abs().max() for each in theirs)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9 * float(largest))
    for one, other in zip(fused.buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["se", "spatial", "cbam"])
def test_the_last_pass_may_overwrite_its_tensor(name, kernels):
    gate, x, residual = randomise(build(name, 3)), X.clone(), torch.randn_like(X)
    gate = gate.gates if name == "cbam" else gate
    with torch.no_grad():
        expected = (gate(x) + residual).relu()
        x, finish = gate.last_pass(x)
        assert finish(x, residual=residual, activation="relu", inplace=True) is x
    torch.testing.assert_close(x, expected)


def test_a_gate_whose_output_is_used_twice_runs_once(passes):
    def end(block, branch, x):
        total = F.relu(branch + x)
        return total + branch * 1 if block.training else total

    model = Block(end)
    attend(model, "cbam", where="bn", start="paper", dialect="timm", reduction_ratio=1, example=X)
    randomise(model)
    fused = copy.deepcopy(model)
    fuse(fused)
    torch.testing.assert_close(fused.train()(X), model.train()(X))
    assert passes == [RELU, WAITED]
    for one, other in zip(fused.buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(one, other)


def a_gate(gates):
    class Doubled(type(gates.spatial)):
        def forward(self, x):
            return 2 * super().forward(x)

    gates.spatial.__class__ = Doubled


def a_last_pass(gates):
    class Doubled(type(gates.spatial)):
        def last_pass(self, x):
            x, finish = super().last_pass(x)
            return x, lambda x: 2 * finish(x)

    gates.spatial.__class__ = Doubled


def a_mix(gates):
    class Doubled(type(gates.channel.mix)):
        def forward(self, descriptors):
            return 2 * super().forward(descriptors)

    gates.channel.mix.__class__ = Doubled


def all_gates(gates):
    class Doubled(type(gates)):
        def forward(self, x):
            return 2 * super().forward(x)

    gates.__class__ = Doubled


def another_module(gates):
    class Doubled(nn.Module):
        def forward(self, x):
            return 2 * x

        gate = forward

    gates.doubled = Doubled()


@pytest.mark.parametrize("change", [a_gate, a_last_pass, a_mix, all_gates, another_module])
@pytest.mark.parametrize("dialect", ["paper", "official"])
def test_classes_of_ones_own_are_not_fused(change, dialect, passes):
    model, fused, _ = gated_and_fused(SmallResNet(5, channels=(8,), blocks=(1,)), dialect=dialect)
    before = fused.eval()(X)
    assert passes == [RELU]
    for each in (model, fused):
        change(each.stages[0][0].bn2.attention.gates)
    torch.testing.assert_close(fused(X), model.eval()(X))
    assert passes == [RELU]
    assert not torch.equal(fused(X), before)
    with pytest.raises(ValueError, match="found none"):
        fuse(fused)


@pytest.mark.parametrize("training", [False, True])
def test_gates_put_together_by_hand(training, passes):
    model, fused, sites = gated_and_fused(SmallResNet(5, channels=(8,), blocks=(1,)))
    gates = Seq(
        where=SpatialAttention(),
        what=ChannelAttention(8, statistics=["std", "l2"]),
        again=Seq(where=SpatialAttention(norm_momentum=0.1), what=ChannelAttention(8)),
    )
    for each in (model, fused):
        each.stages[0][0].bn2.attention.gates = copy.deepcopy(gates)
    assert fuse(fused) == sites
    y, ours = gradients(fused.train(training), X)
    expected, theirs = gradients(model.train(training), X)
    assert passes == [RELU]
    torch.testing.assert_close(y, expected)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
