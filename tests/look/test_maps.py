"""maps: the gates as they ran, by name; Grad-CAM: captum's, at the right place, is the equation."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from whatwhere import CBAM, attend, build
from whatwhere.look import grad_cam, maps, record
from whatwhere.look.cam import last_layer
from whatwhere.look.maps import channels_seen
from whatwhere.study.networks import SmallResNet


class Twice(nn.Module):
    """One attention, called at two places."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.attention = CBAM(8)

    def forward(self, x):
        first = self.attention(x)
        return first, self.attention(self.conv(first))


def test_maps_are_what_record_sees_with_what_the_gate_was_given():
    model = SmallResNet(4, channels=(8, 16), blocks=(1, 1))
    attend(model, "cbam", start="paper")
    x = torch.randn(2, 3, 16, 12)
    found = maps(model, x)
    with record(model) as recorded, torch.no_grad():
        model.eval()(x)
    assert list(found) == list(recorded)
    for name, gate in found.items():
        assert torch.equal(gate.values, recorded[name][0])
        assert (gate.start, gate.neutral, gate.bottom, gate.top) == (0.5, 1.0, 0, 1)
    what = found["stages.0.0.bn2.attention.gates.channel"]
    site = model.stages[0][0].bn2.attention
    assert torch.equal(what.values, site.gates.channel.gate(what.features))
    assert what.kind == "what"
    assert channels_seen(what)


def test_calls_of_a_shared_attention_are_kept_apart():
    model, x = Twice(), torch.randn(2, 8, 6, 6)
    found = maps(model, x)
    assert list(found) == [
        "attention.gates.channel",
        "attention.gates.channel#2",
        "attention.gates.spatial",
        "attention.gates.spatial#2",
    ]
    first = model(x)[0]
    assert torch.equal(found["attention.gates.channel"].features, x)
    assert torch.allclose(found["attention.gates.channel#2"].features, model.conv(first))


def test_channels_of_a_gate_on_some_of_them_are_not_taken_for_the_maps():
    found = maps(nn.Sequential(build("shuffle", 16)), torch.randn(1, 16, 5, 5))
    halves = [gate for gate in found.values() if gate.kind == "what"]
    assert [channels_seen(gate) for gate in halves] == [False]


def test_maps_leave_no_hooks_and_need_gates():
    model = Twice()
    maps(model, torch.randn(1, 8, 5, 5))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with pytest.raises(ValueError, match="got Conv2d with 0 gates, none of which ran"):
        maps(nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 4, 4))


class Tiny(nn.Module):
    """A classifier whose last map is changed in place after it was made, as DenseNet's is."""

    def __init__(self, ndim=2):
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[ndim]
        self.first = conv(2, 6, 3)
        self.last = conv(6, 5, 3)
        self.head = nn.Linear(5, 3)

    def maps(self, x):
        return self.last(F.relu(self.first(x)))

    def answer(self, features):
        return self.head(F.relu(features, inplace=True).flatten(2).mean(2))

    def forward(self, x):
        return self.answer(self.maps(x))


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("frozen", [False, True])
def test_grad_cam_is_its_equation(ndim, frozen):
    model = Tiny(ndim).requires_grad_(not frozen)
    x = torch.randn(3, 2, *(8, 9, 7)[:ndim])
    features = model.maps(x).detach().requires_grad_()
    logits = model.answer(features.clone())
    chosen = logits.argmax(1)
    logits.gather(1, chosen[:, None]).sum().backward()
    model.zero_grad()
    weights = features.grad.flatten(2).mean(2)
    expected = F.relu(torch.einsum("nc,nc...->n...", weights, features.detach()))
    assert expected.max() > 0
    assert last_layer(model, x) == "last"
    assert torch.allclose(grad_cam(model, x)[:, 0], expected, atol=1e-7)
    assert torch.equal(grad_cam(model, x, target=chosen.tolist()), grad_cam(model, x))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_layer_is_the_last_stage_with_its_gate():
    model = SmallResNet(4, channels=(8, 16), blocks=(1, 1))
    attend(model, "cbam", start="paper")
    x = torch.randn(1, 3, 16, 16)
    assert last_layer(model, x) == "stages"
    top = nn.Sequential(nn.Conv2d(3, 8, 3), CBAM(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert last_layer(top, x) == "1"


def test_grad_cam_is_of_classifiers():
    with pytest.raises(ValueError, match=r"whose output is \(N, K\), got \(1, 2, 4, 4\)"):
        grad_cam(nn.Conv2d(1, 2, 1), torch.zeros(1, 1, 4, 4))
    flat = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with pytest.raises(ValueError, match="a module whose output has positions, got none"):
        grad_cam(flat, torch.zeros(1, 1, 4, 4))
