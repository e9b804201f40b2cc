"""Diagnosis against the same numbers computed from all gates at once, and planted states."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from whatwhere import CBAM, ChannelAttention, Gate, SpatialAttention, TemporalAttention
from whatwhere.look import diagnose, record
from whatwhere.look.pointing import dilate


class Planted(nn.Module):
    """A where gate whose map is 2σ of given logits, whatever the input."""

    def __init__(self, logits, *, kind="where"):
        super().__init__()
        if kind == "where":
            self.gate = SpatialAttention(start="identity", ndim=logits.ndim - 1)
        else:
            self.gate = TemporalAttention(start="identity")
        self.gate.mix = Constant(logits)

    def forward(self, x):
        self.gate.mix.first = int(x.flatten()[0])
        return self.gate(x)


class Constant(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = logits
        self.first = 0

    def check(self, owner, x):
        pass

    def forward(self, descriptors):
        count = descriptors[0].shape[0]
        return self.logits[self.first : self.first + count].unsqueeze(1)


def numbered(count, *size):
    """Inputs of which the first entry says the position of the batch's first sample."""
    return [torch.full((1, 1, *size), float(i)) for i in range(count)]


def test_running_sums_equal_the_sums_over_all_gates():
    torch.manual_seed(0)
    model = CBAM(16).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=3.0)
    inputs = torch.randn(10, 16, 6, 6)
    with record(model) as recorded, torch.no_grad():
        model(inputs)
    for found in diagnose(model, inputs.split(4)):
        gate = recorded[found.site][0].double()
        assert found.mean == pytest.approx(gate.mean().item(), rel=1e-6)
        assert found.spread == pytest.approx(gate.std(correction=0).item(), rel=1e-6)
        over_inputs = gate.std(0, correction=0).mean().item()
        assert found.spread_over_inputs == pytest.approx(over_inputs, rel=1e-6)
        assert found.low_fraction == (gate < 0.02).double().mean().item()
        assert found.high_fraction == (gate > 0.98).double().mean().item()
        assert found.moved == pytest.approx((gate - 0.5).abs().mean().item(), rel=1e-6)
        assert found.low_fraction + found.high_fraction > 0
        assert found.hits is None


@pytest.mark.parametrize(
    ("low", "high", "varies", "state"),
    [
        (0.0, 0.0, False, "unmoved"),
        (-9.0, -8.0, True, "dead"),
        (-9.0, 9.0, True, "saturated"),
        (-1.0, 1.0, False, "constant"),
        (-1.0, 1.0, True, "live"),
    ],
)
def test_states(low, high, varies, state):
    torch.manual_seed(0)
    chosen = torch.rand(4, 6, 6) < 0.5 if varies else (torch.rand(6, 6) < 0.5).expand(4, 6, 6)
    logits = torch.where(chosen, low, high)
    [found] = diagnose(Planted(logits), numbered(4, 6, 6))
    assert found.state == state


def test_range_and_start_follow_the_activation():
    [double] = diagnose(ChannelAttention(4, start="identity"), [torch.randn(2, 4, 3)])
    assert (double.mean, double.moved, double.high_fraction) == (1.0, 0.0, 0.0)
    single = ChannelAttention(4)
    single.mix.constant_logits(0.0)
    [found] = diagnose(single, [torch.randn(2, 4, 3)])
    assert (found.mean, found.moved, found.state) == (0.5, 0.0, "unmoved")


def test_the_model_stays_as_found():
    model = nn.Sequential(nn.BatchNorm2d(4), CBAM(4), nn.Dropout())
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    diagnose(model, [torch.randn(2, 4, 5, 5)])
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def peak_at(places, size):
    logits = torch.zeros(len(places), *size)
    for index, place in enumerate(places):
        logits[(index, *place)] = 3.0
    return logits


def test_hits_count_peaks_within_two_pixels_of_the_mask():
    masks = torch.zeros(4, 12, 12, dtype=torch.bool)
    masks[:, 4, 4] = True
    # On it, two pixels off diagonally, three pixels off, and a map without a peak.
    logits = peak_at([(4, 4), (6, 2), (4, 7), (4, 4)], (12, 12))
    logits[3] = 0.7
    truth = SimpleNamespace(where=masks, when=None)
    [found] = diagnose(Planted(logits), numbered(4, 12, 12), truth=truth)
    assert (found.hits.rate, found.hits.samples) == (0.5, 4)
    assert found.hits.chance == pytest.approx(25 / 144)


def test_every_sample_is_held_against_its_own_mask():
    masks = torch.zeros(3, 12, 12, dtype=torch.bool)
    places = [(1, 1), (6, 6), (10, 10)]
    for mask, place in zip(masks, places, strict=True):
        mask[place] = True
    truth = SimpleNamespace(where=masks, when=None)
    right = diagnose(Planted(peak_at(places, (12, 12))), numbered(3, 12, 12), truth=truth)
    wrong = diagnose(Planted(peak_at(places[::-1], (12, 12))), numbered(3, 12, 12), truth=truth)
    assert (right[0].hits.rate, wrong[0].hits.rate) == (1.0, pytest.approx(1 / 3))


def test_a_flat_map_does_not_hit_a_mask_at_the_origin():
    masks = torch.ones(2, 6, 6, dtype=torch.bool)
    truth = SimpleNamespace(where=masks, when=None)
    [found] = diagnose(Planted(torch.full((2, 6, 6), 0.3)), numbered(2, 6, 6), truth=truth)
    assert (found.hits.rate, found.hits.chance) == (0.0, 1.0)


def test_coarse_maps_are_brought_to_the_size_of_the_masks():
    masks = torch.zeros(2, 16, 16, dtype=torch.bool)
    masks[:, 9:11, 13:15] = True
    logits = peak_at([(2, 3), (0, 0)], (4, 4))
    truth = SimpleNamespace(where=masks, when=None)
    [found] = diagnose(Planted(logits), numbered(2, 4, 4), truth=truth)
    assert found.hits.rate == 0.5


def test_clips_are_dilated_within_their_frame_only():
    masks = torch.zeros(2, 5, 8, 8, dtype=torch.bool)
    masks[:, 2, 3, 3] = True
    logits = peak_at([(2, 5, 5), (3, 3, 3)], (5, 8, 8))
    truth = SimpleNamespace(where=masks, when=None)
    [found] = diagnose(Planted(logits), numbered(2, 5, 8, 8), truth=truth)
    assert (found.hits.rate, found.hits.chance) == (0.5, pytest.approx(25 / 320))


def test_when_hits_are_of_the_frame_itself():
    when = torch.zeros(3, 6, dtype=torch.bool)
    when[:, 2:4] = True
    logits = peak_at([(2,), (4,), (3,)], (6,)).reshape(3, 6, 1, 1)
    truth = SimpleNamespace(where=None, when=when)
    [found] = diagnose(Planted(logits, kind="when"), numbered(3, 6, 4, 4), truth=truth)
    assert found.hits.rate == pytest.approx(2 / 3)
    assert found.hits.chance == pytest.approx(2 / 6)


def test_truth_says_nothing_of_what_gates():
    truth = SimpleNamespace(where=torch.ones(2, 5, 5, dtype=torch.bool), when=None)
    what, where = diagnose(CBAM(4), [torch.randn(2, 4, 5, 5)], truth=truth)
    assert what.hits is None
    assert where.as_dict()["hits"]["samples"] == 2


def test_dilation_is_two_pixels_to_each_side():
    mask = torch.zeros(1, 9, 9, dtype=torch.bool)
    mask[0, 4, 4] = True
    expected = torch.zeros(1, 9, 9, dtype=torch.bool)
    expected[0, 2:7, 2:7] = True
    assert torch.equal(dilate(mask), expected)


def test_errors_say_what_came():
    model = CBAM(4)
    with pytest.raises(ValueError, match="expected at least one input, got none"):
        diagnose(model, [])
    with pytest.raises(ValueError, match=r"shape \(N, 4, 6, 6\), got \(1, 4, 5, 5\)"):
        diagnose(model, [torch.randn(1, 4, 5, 5)], shape=(4, 6, 6))
    with pytest.raises(ValueError, match=r"channel to give finite gates, got 4 NaN"):
        diagnose(model, [torch.full((1, 4, 5, 5), torch.nan)])
    truth = SimpleNamespace(where=torch.ones(1, 5, 5, dtype=torch.bool), when=None)
    with pytest.raises(ValueError, match=r"at most 1 inputs, as many as truth\.where has masks"):
        diagnose(model, [torch.randn(2, 4, 5, 5)], truth=truth)
    with pytest.raises(ValueError, match=r"one shape for all inputs, got \(1, 5, 5\) and"):
        diagnose(model, [torch.randn(1, 4, 5, 5), torch.randn(1, 4, 6, 6)])
    flat = SimpleNamespace(where=torch.ones(2, 5, dtype=torch.bool), when=None)
    with pytest.raises(ValueError, match=r"2 position axes of the gate, got masks"):
        diagnose(model, [torch.randn(2, 4, 5, 5)], truth=flat)


def test_compiled_networks_are_seen_too():
    torch._dynamo.reset()
    model = CBAM(8, start="identity").eval()
    compiled = torch.compile(model, backend="eager")
    x = torch.randn(2, 8, 5, 5)
    compiled(x)
    assert [record.kind for record in diagnose(compiled, [x])] == ["what", "where"]


def test_a_network_without_gates_is_refused():
    with pytest.raises(ValueError, match="one with 0 gates"):
        diagnose(torch.nn.Conv2d(1, 1, 1), [torch.randn(1, 1, 3, 3)])


def test_a_gate_of_frames_and_channels_points_with_its_mean_over_channels():
    gate = Gate(keep="CT", statistics=["mean"])
    clips = torch.zeros(2, 3, 4, 2, 2)
    clips[0, :, 1], clips[1, 2, 3] = 5.0, 5.0
    truth = SimpleNamespace(where=None, when=torch.eye(4, dtype=torch.bool)[[1, 2]])
    [found] = diagnose(gate, [clips], truth=truth)
    assert (found.kind, found.hits.rate) == ("when", 0.5)
