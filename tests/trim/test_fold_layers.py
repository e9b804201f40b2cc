"""Which layers constant gates become part of, by hand; and which they do not, and why."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.trim.constants import CONSTANTS, attend_constant, sequence
from whatwhere import attached, fold


class LayerNormOverChannels(nn.LayerNorm):
    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias).permute(0, 3, 1, 2)


class LinearOverChannels(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.drop = nn.Linear(4, 4), nn.Dropout()

    def forward(self, x):
        return self.drop(self.linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x):
        return x * self.gamma


FOLDABLE = {
    "batch norm": ([nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)], "1"),
    "group norm": ([nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)], "1"),
    "instance norm": ([nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True)], "1"),
    "layer norm": ([nn.Conv2d(3, 4, 3), LayerNormOverChannels(4)], "1"),
    "convolution": ([nn.Conv2d(3, 4, 3)], "0"),
    "without bias": ([nn.Conv2d(3, 4, 3, bias=False)], "0"),
    "grouped": ([nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 3, groups=2)], "1"),
    "transposed": ([nn.Conv2d(3, 6, 3), nn.ConvTranspose2d(6, 4, 3)], "1"),
    "transposed, grouped": ([nn.Conv2d(3, 6, 3), nn.ConvTranspose2d(6, 4, 3, groups=2)], "1"),
    "linear": ([nn.Conv2d(3, 4, 3), LinearOverChannels()], "1.linear"),
    "relu": ([nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)], "1"),
    "leaky relu": ([nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2)], "0"),
    "max pool": ([nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2)], "0"),
    "average pool": ([nn.Conv2d(3, 4, 3), nn.AvgPool2d(2), nn.Dropout()], "0"),
    "adaptive pool": ([nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Identity()], "0"),
    "layer scale": ([nn.Conv2d(3, 4, 3), Scaled()], "0"),
    "sequences": ([nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.ReLU()], "1"),
    "clips": ([nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2)], "1"),
}


@pytest.mark.parametrize("name", FOLDABLE)
def test_constants_become_part_of_the_layer_before(name):
    layers, into = FOLDABLE[name]
    model = sequence(*copy.deepcopy(layers))
    ndim = next(model.parameters()).ndim - 2
    x = torch.randn(6, 3, *(8,) * ndim, dtype=torch.float64)
    model.train()(x)  # running statistics
    plain = copy.deepcopy(model)
    attend_constant(model, str(len(layers) - 1), x)
    site = attached(model)[0].site
    with torch.no_grad():
        expected = plain.eval()(x) * CONSTANTS.double().reshape(-1, *(1,) * ndim)
        torch.testing.assert_close(model(x), expected, rtol=1e-6, atol=1e-6)
        expected = model(x)
        report = fold(model, list(x.split(4)))
        torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)
    assert [(each.gate, each.into) for each in report.folded] == [(f"{site}.attention", into)]
    assert report.folded[0].deviation < 1e-12
    assert report.change < 1e-12
    assert attached(model) == ()
    assert list(model.state_dict()) == list(plain.state_dict())
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, plain.get_parameter(n))}
    assert {each.rpartition(".")[0] for each in changed} == {into}
    if model.get_submodule(into).bias is not None:
        ratio = model.get_submodule(into).bias / plain.get_submodule(into).bias
        torch.testing.assert_close(ratio, CONSTANTS.double(), rtol=1e-6, atol=1e-6)


class Twice(nn.Module):
    """relu(bn(conv x)) + something, to be gated after relu."""

    def __init__(self, also):
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU()
        self.also = also

    def forward(self, x):
        y = self.bn(self.conv(x))
        return self.also(self.relu(y), y)


class Standardised(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight / weight.std((1, 2, 3), keepdim=True))


def shared():
    first, second = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
    second.weight = first.weight

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = first, second

        def forward(self, x):
            return self.first(x) + self.second(x.flip(1))

    return Both()


def repeated():
    class Repeated(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 3, 1), nn.ReLU()

        def forward(self, x):
            return self.relu(self.conv(self.conv(x)))

    return Repeated()


def zero():
    layer = nn.Conv2d(3, 4, 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(layer, nn.ReLU())


LEFT = {
    "sigmoid": (lambda: sequence(nn.Conv2d(3, 4, 1), nn.Sigmoid()), "1", "passes through sigmoid"),
    "silu": (lambda: sequence(nn.Conv2d(3, 4, 1), nn.SiLU()), "1", "passes through silu"),
    "relu6": (lambda: sequence(nn.Conv2d(3, 4, 1), nn.ReLU6()), "1", "passes through hardtanh"),
    "used before relu": (
        lambda: Twice(lambda y, early: y + early.mean()),
        "relu",
        "what comes before relu is used elsewhere too",
    ),
    "put out before relu": (
        lambda: Twice(lambda y, early: (y, early)),
        "relu",
        "what comes before relu is used elsewhere too",
    ),
    "shared": (shared, "first", "first shares its weights"),
    "repeated": (repeated, "relu", "conv runs 2 times"),
    "parametrised": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 1)), nn.ReLU()),
        "1",
        "0 has no weight of its own",
    ),
    "standardised": (
        lambda: nn.Sequential(Standardised(3, 4, 3, bias=False), nn.ReLU()),
        "1",
        "scaling 0 is not seen to scale",
    ),
    "norm of another axis": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.LayerNorm(4)),
        "1",
        "scaling 1 is not seen to scale",
    ),
    "norm without weights": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False)),
        "1",
        "1 has no weight of its own",
    ),
    # Of nothing, every multiple is nothing: that proves no more than that.
    "zeros": (zero, "0", "scaling 0 is not seen to scale"),
    "pixels": (
        lambda: nn.Sequential(nn.Conv2d(3, 16, 1), nn.PixelShuffle(2)),
        "1",
        "passes through pixel_shuffle",
    ),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_can_not_be_folded_is_left_with_the_reason(name):
    build, where, reason = LEFT[name]
    torch.manual_seed(1)
    model = build().float()
    x = torch.randn(5, 3, 4, 4)
    attend_constant(model, where, x)
    before = {n: value.clone() for n, value in model.state_dict().items()}
    report = fold(model, [x])
    assert report.folded == ()
    [left] = report.left
    assert reason in left.reason
    assert "constant" in left.reason
    assert report.change == 0
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[n]) for n, value in model.state_dict().items())
    assert len(attached(model)) == 1
    assert "left" in str(report)
    assert reason in str(report)
