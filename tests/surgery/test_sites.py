"""Sites are found from what networks do, in code that was never written for this."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from whatwhere.surgery.survey import survey


def block_sites(model, example=None):
    return survey(model, "blocks", example)[0]


def named_sites(model, names, example=None):
    return survey(model, names, example)[0]


def blocks(*counts, pattern):
    return [pattern.format(s + 1, b) for s, count in enumerate(counts) for b in range(count)]


@pytest.mark.parametrize(
    ("name", "counts", "pattern"),
    [
        ("resnet18", (2, 2, 2, 2), "layer{}.{}.bn2"),
        ("resnet50", (3, 4, 6, 3), "layer{}.{}.bn3"),
        ("resnext50_32x4d", (3, 4, 6, 3), "layer{}.{}.bn3"),
        ("r3d_18", (2, 2, 2, 2), "layer{}.{}.conv2.1"),
        ("mc3_18", (2, 2, 2, 2), "layer{}.{}.conv2.1"),
        ("r2plus1d_18", (2, 2, 2, 2), "layer{}.{}.conv2.1"),
    ],
)
def test_torchvision_residual_blocks(name, counts, pattern):
    with torch.device("meta"):
        model = torchvision.models.get_model(name)
    survey = block_sites(model)
    assert [site.name for site in survey.sites] == blocks(*counts, pattern=pattern)
    assert survey.skipped == ()
    first, last = survey.sites[0], survey.sites[-1]
    expansion = 4 if "bn3" in pattern else 1
    assert (first.channels, last.channels) == (64 * expansion, 512 * expansion)


@pytest.mark.parametrize(
    ("name", "counts", "pattern"),
    [
        ("resnet18", (2, 2, 2, 2), "layer{}.{}.bn2"),
        ("resnet26d", (2, 2, 2, 2), "layer{}.{}.bn3"),
        ("resnext50_32x4d", (3, 4, 6, 3), "layer{}.{}.bn3"),
        ("res2net50_26w_4s", (3, 4, 6, 3), "layer{}.{}.bn3"),
        ("resnest14d", (1, 1, 1, 1), "layer{}.{}.bn3"),
        ("seresnet18", (2, 2, 2, 2), "layer{}.{}.se"),
    ],
)
def test_timm_residual_blocks(name, counts, pattern):
    model = timm.create_model(name)
    survey = block_sites(model)
    assert [site.name for site in survey.sites] == blocks(*counts, pattern=pattern)


def test_pre_activation_blocks_end_in_their_last_convolution():
    model = timm.create_model("resnetv2_50")
    sites = block_sites(model).sites
    assert len(sites) == 16
    assert {site.name.rpartition(".")[2] for site in sites} == {"conv3"}


class Unseen(nn.Module):
    """A user's network: functional calls, a module used twice, a scaled branch, control flow."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv1d(4, 6, 3, padding=1)
        self.a = nn.Conv1d(6, 6, 3, padding=1)
        self.b = nn.Conv1d(6, 6, 3, padding=1)
        self.shared = nn.Conv1d(6, 6, 1)
        self.scale = nn.Parameter(torch.full((6, 1), 0.1))

    def forward(self, x):
        x = self.stem(x)
        x = x + self.scale * self.a(torch.relu(x))
        if x.shape[-1] > 2:
            x = self.b(x) + x
        return x + self.shared(self.shared(x))


def test_user_written_networks():
    survey = block_sites(Unseen())
    assert [(s.name, s.channels, s.ndim) for s in survey.sites] == [("a", 6, 1), ("b", 6, 1)]
    assert [each.reason for each in survey.skipped] == [
        "shared runs 2 times; no module returns the tensor that convolution made"
    ]


class NeedsValues(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.again = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x):
        x = self.conv(x)
        return x + self.again(x) if x.mean().item() > -1e9 else x


def test_networks_that_look_at_values_are_run_on_zeros():
    assert [site.name for site in block_sites(NeedsValues()).sites] == ["again"]


class Awkward(nn.Module):
    """One module under two names, a cache, a counter and a dtype-strict forward."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.branch = nn.Conv2d(4, 4, 3, padding=1)
        self.alias = self.branch
        self.cache = None
        self.register_buffer("runs", torch.zeros(()))

    def forward(self, x):
        assert x.dtype == self.conv.weight.dtype
        self.runs += 1
        x = self.conv(x)
        if self.cache is None:
            self.cache = torch.ones(x.shape[2:], device=x.device, dtype=x.dtype)
        return x + self.branch(x * self.cache)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("where", ["blocks", "alias"])
def test_aliases_caches_and_counters_are_left_alone(dtype, where):
    model = Awkward().to(dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    example = torch.zeros(1, 1, 8, 8)
    survey = (
        block_sites(model, example) if where == "blocks" else named_sites(model, [where], example)
    )
    assert [site.name for site in survey.sites] == ["branch"]
    assert model.cache is None
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    model(example.to(dtype))


def test_one_network_under_two_names_keeps_its_weights():
    model = nn.Module()
    model.first = model.second = torchvision.models.resnet18()
    model.forward = model.first.forward
    assert len(block_sites(model).sites) == 8
    assert {p.device.type for p in model.parameters()} == {"cpu"}


def test_the_channels_come_from_the_first_convolution_not_from_a_record():
    model = timm.create_model("resnet18", in_chans=1)
    assert len(block_sites(model).sites) == 8


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.mix = nn.Conv1d(4, 4, 1)
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        tokens = self.conv(x).flatten(2).transpose(1, 2)
        return tokens + self.linear(self.mix(tokens.transpose(1, 2)).transpose(1, 2))


def test_axes_that_are_not_channels_are_no_sites():
    survey = block_sites(Tokens(), torch.zeros(1, 1, 5, 5))
    assert survey.sites == ()
    assert [each.reason for each in survey.skipped] == [
        "its output of shape (1, 25, 4) with channels on axis 2 is no feature map"
    ]


def test_looking_changes_nothing():
    model = torchvision.models.resnet18()
    model.layer1.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    block_sites(model)
    assert flags == [module.training for module in model.modules()]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_named_sites_take_patterns_and_step_into_containers():
    sites = named_sites(torchvision.models.resnet18(), ["layer?", "conv1"]).sites
    assert [site.name for site in sites] == [*(f"layer{i}.1" for i in range(1, 5)), "conv1"]


def test_names_that_match_nothing_are_refused():
    with pytest.raises(ValueError, match=r"'stage\*' .* no match; .*layer1, layer2"):
        named_sites(torchvision.models.resnet18(), ["stage*"])


def test_a_network_that_does_not_run_says_what_to_do():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    with pytest.raises(ValueError, match=r"to run on an input .* pass example="):
        block_sites(model)
    with pytest.raises(ValueError, match=r"convolution that shows .* pass example="):
        block_sites(nn.Linear(3, 2))
