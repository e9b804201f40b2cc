"""What gates that are switched off do to an answer, by arithmetic and by surgery."""

import pytest
import torch
from torch import nn

import whatwhere
from whatwhere.serve.answers import mean_gates, neutral, places, probabilities, switched_off
from whatwhere.serve.words import in_words, plainly
from whatwhere.study.networks import SmallResNet


@pytest.fixture
def attended():
    network = SmallResNet(4, in_channels=1).eval()
    whatwhere.attend(network, "cbam", start="paper", example=torch.zeros(1, 1, 16, 16))
    return network


def test_all_gates_off_is_the_network_without_gates(attended):
    x = torch.randn(1, 1, 16, 16)
    names = [name for place in places(attended, x) for name in place.gates]
    gated = probabilities(attended, x)
    with switched_off(attended, neutral(attended, names)):
        off = probabilities(attended, x)
    again = probabilities(attended, x)
    whatwhere.detach(attended)
    assert torch.allclose(off, probabilities(attended, x), atol=1e-6)
    assert not torch.allclose(off, gated, atol=1e-4)
    assert torch.equal(again, gated)


def test_a_gate_gives_its_mean_in_place_of_itself():
    gate = whatwhere.ChannelAttention(3)
    net = nn.Sequential(gate, nn.Flatten())
    samples = torch.randn(50, 3, 1, 1)
    mean = gate.gate(samples).mean(0)
    means = mean_gates(net, samples)
    assert torch.allclose(means["0"].float(), mean, atol=1e-6)
    x = samples[:1]
    with switched_off(net, means):
        found = probabilities(net, x)
    expected = (x[0] * mean).flatten().softmax(0)
    assert torch.allclose(found, expected, atol=1e-6)
    assert not torch.allclose(expected, probabilities(net, x), atol=1e-5)


def test_places_come_in_the_order_in_which_they_run(attended):
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.second = whatwhere.SpatialAttention()
            self.first = whatwhere.CBAM(2)

        def forward(self, x):
            return self.second(self.first(x)).flatten(1)

    found = places(Backwards(), torch.randn(1, 2, 4, 4))
    assert [(place.site, list(place.gates.values())) for place in found] == [
        ("first", ["what", "where"]),
        ("second", ["where"]),
    ]
    found = places(attended, torch.randn(1, 1, 16, 16))
    assert [place.site for place in found] == [
        f"stages.{stage}.0.bn2.attention" for stage in range(3)
    ]


def test_frames_count_by_the_mean_of_their_probabilities():
    net = nn.Flatten()
    frames = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    expected = (frames[0].softmax(0) + frames[1].softmax(0)) / 2
    assert torch.allclose(probabilities(net, frames), expected)


def test_what_cannot_be_answered_is_refused():
    net = nn.Sequential(whatwhere.ChannelAttention(2))
    with pytest.raises(ValueError, match=r"expected a classifier.* got \(1, 2, 5, 5\)"):
        probabilities(net, torch.zeros(1, 2, 5, 5))
    unknown = switched_off(net, {"elsewhere": torch.tensor(1.0)})
    with (
        pytest.raises(ValueError, match="expected gate to be one of '0', got 'elsewhere'"),
        unknown,
    ):
        raise AssertionError


def test_names_are_said_as_they_are():
    words = in_words(["a_b", "*c*"], torch.tensor([0.25, 0.75]), torch.tensor([0.2, 0.8]))
    assert words == r"**\*c\***, 75.00% → 80.00% (+5.00 points): it says the same"
    assert plainly("<img src=x>\n# no") == r"\<img src=x\> \# no"
