"""What a gate is worth: costs computed by hand, planted gates, and that samples stay paired."""

import copy
import json
import sys

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from whatwhere import CBAM, ChannelAttention, Par, SpatialAttention, attend
from whatwhere.look import Cost, diagnose
from whatwhere.study.networks import SmallResNet

X = torch.rand(300, 2, 3, 3, generator=torch.Generator().manual_seed(5)) + 0.5


class Crossed(nn.Module):
    """Logits of each channel from the mean of the other one, times a factor; plus a constant."""

    def __init__(self, factor, constant=(0.0, 0.0)):
        super().__init__()
        self.factor = factor
        self.register_buffer("constant", torch.tensor(constant).reshape(1, 2, 1, 1))

    def check(self, owner, x):
        pass

    def forward(self, descriptors):
        return self.factor * descriptors[0].flip(1) + self.constant


class Fixed(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def check(self, owner, x):
        pass

    def forward(self, descriptors):
        return self.logits.expand(len(descriptors[0]), *self.logits.shape[1:])


class Classifier(nn.Module):
    """The class of (N, 2, H, W) is the larger channel after a what gate of 2σ(logits)."""

    def __init__(self, factor, constant=(0.0, 0.0)):
        super().__init__()
        self.gate = ChannelAttention(2, start="identity")
        self.gate.mix = Crossed(factor, constant)

    def forward(self, x):
        return self.gate(x).mean((2, 3))


def labelled(model, x=X, size=64):
    """Batches whose labels the network always gets right."""
    with torch.no_grad():
        labels = model(x).argmax(1)
    return list(zip(x.split(size), labels.split(size), strict=True))


def interval(drops, span=1.0):
    more = np.append(drops, [span, -span])
    found = stats.ttest_1samp(more, 0.0).confidence_interval(0.95)
    return found.low, found.high


def test_costs_and_intervals_are_those_computed_by_hand():
    model = Classifier(9.0, (-9.0, -9.0))
    means = X.mean((2, 3))
    gates = 2 * torch.sigmoid(9 * means.flip(1) - 9)
    labels = torch.where(torch.rand(300) < 0.7, (means * gates).argmax(1), 0)
    [found] = diagnose(model, [(X, labels)])
    right = (means * gates).argmax(1) == labels
    for cost, constant in (
        (found.cost_of_mean, gates.mean(0)),
        (found.cost_of_one, torch.ones(2)),
    ):
        after = (means * constant).argmax(1) == labels
        drops = right.double().numpy() - after.double().numpy()
        assert set(drops) >= {-1, 1}
        assert cost.mean == pytest.approx(drops.mean(), abs=1e-12)
        assert (cost.low, cost.high) == pytest.approx(interval(drops))


@pytest.mark.parametrize(
    ("factor", "constant", "advice"),
    [
        (9.0, (-9.0, -9.0), "keep"),  # turns the order round where channels are close
        (0.0, (1.0, -1.0), "fold"),
        (0.0, (0.7, 0.7), "remove"),
        (0.0, (-40.0, -40.0), "remove"),
    ],
)
def test_planted_gates_get_the_advice_they_deserve(factor, constant, advice):
    model = Classifier(factor, constant)
    [found] = report = diagnose(model, labelled(model))
    assert (found.advice, report.score) == (advice, 1.0)
    if advice == "fold":
        assert found.cost_of_mean.mean == 0 < found.cost_of_one.low


def test_few_samples_that_change_nothing_prove_nothing():
    model = Classifier(0.0, (0.7, 0.7))
    few, many = (diagnose(model, labelled(model, X[:count]))[0] for count in (20, 300))
    assert (few.advice, many.advice) == ("unsure", "remove")
    assert few.cost_of_one.mean == many.cost_of_one.mean == 0
    assert 2.5 / 300 < many.cost_of_one.high < 3.5 / 300
    [strict] = diagnose(model, labelled(model), tolerance=0.001)
    assert strict.advice == "unsure"
    wrong = [(x, 1 - labels) for x, labels in labelled(model, X[:20])]
    report = diagnose(model, wrong)
    assert (report.score, report[0].advice) == (0.0, "unsure")


def test_scores_that_are_close_together_are_still_measured_from_0():
    model = Classifier(0.0, (0.7, 0.7))

    def score(outputs, targets):
        return 0.3 + 0.001 * outputs[:, 0]

    [found] = diagnose(model, labelled(model, X[:4]), score=score)
    assert found.cost_of_one.high > 0.15
    assert found.advice == "unsure"

    def negative(outputs, targets):
        return -score(outputs, targets)

    [found] = diagnose(model, labelled(model, X[:4]), score=negative)
    assert found.cost_of_one.low < -0.15
    assert found.advice == "unsure"


def test_a_gate_that_harms_has_negative_costs():
    model = Classifier(9.0, (-9.0, -9.0))
    means = X.mean((2, 3)).argmax(1)
    [found] = diagnose(model, [(X, means)])
    assert found.cost_of_one.high < 0
    assert found.advice == "remove"


def test_samples_are_compared_with_themselves_in_any_order():
    model = Classifier(9.0, (-9.0, -9.0))
    labels = model(X).argmax(1)
    loader = DataLoader(TensorDataset(X, labels), batch_size=50, shuffle=True)
    [shuffled], [ordered] = diagnose(model, loader), diagnose(model, labelled(model))
    assert shuffled.cost_of_one == ordered.cost_of_one
    assert shuffled.cost_of_mean.mean == pytest.approx(ordered.cost_of_mean.mean, abs=1e-12)


def test_the_mean_is_that_of_each_entry():
    # A map that differs by position: its mean over positions would turn classes round.
    logits = torch.tensor([2.0, -2.0, 1.0, 0.0]).reshape(1, 1, 1, 4)
    gate = SpatialAttention(start="identity", kernel_size=1)
    gate.mix = Fixed(logits)
    model = nn.Sequential(gate, nn.Flatten())
    x = torch.rand(300, 1, 1, 4) + 0.5
    [found] = diagnose(model, labelled(model, x))
    assert found.cost_of_mean.mean == 0
    assert found.cost_of_one.low > 0
    assert found.deviation < 1e-6


@pytest.mark.parametrize("fused", [False, True])
def test_every_gate_of_a_network_is_replaced_alone(fused):
    torch.manual_seed(0)
    model = SmallResNet(5, channels=(8, 16), blocks=(1, 1)).eval()
    attend(model, "cbam", start="paper", fuse=fused)
    for name, parameter in model.named_parameters():
        if ".attention." in name:
            nn.init.normal_(parameter, std=0.7)
    x = torch.randn(40, 3, 16, 16)
    with torch.no_grad():
        labels = model(x).argmax(1)

    def margin(outputs, targets):
        return outputs.gather(1, targets[:, None]).squeeze(1)

    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = diagnose(model, [(x, labels)], score=margin)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert len(report) == 4
    with torch.no_grad():
        untouched = margin(model(x), labels)
        assert report.score == pytest.approx(untouched.double().mean().item())
        for found in report:
            without = copy.deepcopy(model)
            gates, _, part = found.site.rpartition(".")
            delattr(without.get_submodule(gates), part)
            drop = (untouched - margin(without(x), labels)).double().mean().item()
            assert found.cost_of_one.mean == pytest.approx(drop, rel=1e-4, abs=1e-7)
            assert abs(drop) > 1e-4


def test_joined_gates_are_one():
    model = nn.Sequential(CBAM(2, order="channel+spatial", kernel_size=3), nn.Flatten())
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    with torch.no_grad():
        gates = model[0].gate(X)
        labels = model(X).argmax(1)
        mean = ((X * gates.mean(0)).flatten(1).argmax(1) != labels).double().mean().item()
    [found] = diagnose(model, [(X, labels)])
    assert found.kind == "joint"
    assert found.cost_of_mean.mean == pytest.approx(mean)
    assert mean > 0
    several = Par(join="gates", channel=ChannelAttention(2), spatial=SpatialAttention())
    report = diagnose(nn.Sequential(several, nn.Flatten()), [(X, labels)])
    assert [each.cost_of_one is None for each in report] == [False, False]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    model = Classifier(9.0, (-9.0, -9.0)).to(dtype)
    assert diagnose(model, labelled(model, X.to(dtype)))[0].advice == "keep"


def test_deviation_is_the_largest_distance_from_the_mean_over_inputs():
    torch.manual_seed(0)
    model = CBAM(6)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(9, 6, 4, 4)
    gates = model.gates.channel.gate(x)
    found, _ = diagnose(model, x.split(2))
    assert found.deviation == pytest.approx((gates - gates.mean(0)).abs().max().item(), rel=1e-5)


def test_the_report_is_a_table_and_plain_values():
    model = Classifier(0.0, (1.0, -1.0))
    report = diagnose(model, labelled(model))
    head, heading, row = str(report).splitlines()
    assert head == "1 gates over 300 inputs, score 1.0000, a cost of 0.01 is none"
    assert heading.split()[:3] == ["gate", "kind", "state"]
    assert row.split()[:3] == ["gate", "what", "constant"]
    assert row.endswith("fold")
    plain = json.loads(json.dumps(report.as_dict()))
    assert plain["gates"][0]["cost_of_one"]["mean"] == report[0].cost_of_one.mean
    unlabelled = diagnose(model, [X])
    assert "cost" not in str(unlabelled)
    assert (unlabelled.score, unlabelled[0].advice) == (None, None)
    assert isinstance(report[0].cost_of_mean, Cost)


def test_errors_say_what_came(monkeypatch):
    model = Classifier(1.0)
    pairs = labelled(model)
    with pytest.raises(ValueError, match="expected data that can be gone through more than once"):
        diagnose(model, iter(pairs))
    assert len(diagnose(model, iter([X]))) == 1
    with pytest.raises(ValueError, match=r"got a tensor of shape \(300, 2, 3, 3\)"):
        diagnose(model, X)
    with pytest.raises(ValueError, match=r"got list of \['Tensor', 'Tensor', 'Tensor'\]"):
        diagnose(model, [[X, X, X]])
    with pytest.raises(ValueError, match="expected targets for the score"):
        diagnose(model, [X], score=lambda outputs, _: outputs)
    with pytest.raises(ValueError, match="all batches to have targets, or none"):
        diagnose(model, [pairs[0], X])
    with pytest.raises(ValueError, match=r"got torch.float32 \(300, 2\) and torch.float32 \(300,"):
        diagnose(model, [(X, torch.rand(300))])
    with pytest.raises(ValueError, match=r"a tensor \(64,\), got torch.float32 \(64, 2\)"):
        diagnose(model, pairs, score=lambda outputs, _: outputs)
    with pytest.raises(ValueError, match="finite scores"):
        diagnose(model, pairs, score=lambda outputs, _: outputs[:, 0] * torch.nan)
    with pytest.raises(ValueError, match="tolerance to be at least 0, got -1"):
        diagnose(model, pairs, tolerance=-1)
    assert not model.gate.activation._forward_hooks
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(ImportError, match=r"whatwhere\[study\]"):
        diagnose(model, pairs)
    assert len(diagnose(model, [X])) == 1
