"""Folding in networks: which parts go, what is undone, what is stated, and what stays as found."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.trim.constants import attend_constant, sequence
from whatwhere import CBAM, attached, attend, fold
from whatwhere.checkpoints import load, save
from whatwhere.study.networks import SmallResNet


def cbam_network(**options):
    model = SmallResNet(5, channels=(8, 16), blocks=(1, 1)).eval()
    attend(model, "cbam", start="paper", kernel_size=3, **options)
    for name, parameter in model.named_parameters():
        if ".attention." in name:
            nn.init.normal_(parameter, std=0.7)
    return model


IMAGES = torch.randn(40, 3, 16, 16, generator=torch.Generator().manual_seed(2))
FIRST, SECOND = "stages.0.0.bn2.attention.gates", "stages.1.0.bn2.attention.gates"


@pytest.mark.parametrize("fused", [False, True])
def test_the_constant_part_of_a_cbam_goes_and_the_others_stay(fused, tmp_path):
    model = cbam_network(fuse=fused)
    nn.init.zeros_(model.get_parameter(f"{FIRST}.channel.mix.expand.weight"))  # ½
    spatial = model.get_submodule(f"{FIRST}.spatial")
    with torch.no_grad():
        expected = model(IMAGES)
        weight = model.stages[0][0].bn2.weight.clone()
        report = fold(model, [IMAGES])
        torch.testing.assert_close(model(IMAGES), expected)
    [done] = report.folded
    assert (done.gate, done.into) == (f"{FIRST}.channel", "stages.0.0.bn2")
    assert (done.mean, done.deviation) == (0.5, 0.0)
    assert torch.equal(model.stages[0][0].bn2.weight, weight / 2)
    assert model.get_submodule(f"{FIRST}.spatial") is spatial
    assert [each.options.get("order") for each in attached(model)] == ["spatial", None]
    reasons = {each.gate: each.reason for each in report.left}
    assert list(reasons) == [f"{FIRST}.spatial", f"{SECOND}.channel", f"{SECOND}.spatial"]
    assert all("not constant" in reason for reason in reasons.values())
    save(model, tmp_path / "folded.safetensors")
    again = SmallResNet(5, channels=(8, 16), blocks=(1, 1)).eval()
    load(tmp_path / "folded.safetensors", into=again)
    with torch.no_grad():
        torch.testing.assert_close(again(IMAGES), expected)


def test_two_constants_of_one_site_go_together():
    model = cbam_network()
    for name in ("channel.mix.expand.weight", "spatial.mix.conv.weight"):
        nn.init.zeros_(model.get_parameter(f"{SECOND}.{name}"))
    with torch.no_grad():
        expected = model(IMAGES)
        weight = model.stages[1][0].bn2.weight.clone()
        report = fold(model, [IMAGES])
        torch.testing.assert_close(model(IMAGES), expected)
    assert [each.gate for each in report.folded] == [f"{SECOND}.channel", f"{SECOND}.spatial"]
    assert torch.equal(model.stages[1][0].bn2.weight, weight / 4)
    assert len(attached(model)) == 1


def test_a_constant_behind_a_live_gate_stays_unless_it_is_one():
    model = cbam_network()
    spatial = model.get_submodule(f"{FIRST}.spatial")
    nn.init.zeros_(spatial.mix.conv.weight)
    report = fold(model, [IMAGES])
    assert report.folded == ()
    reasons = {each.gate: each.reason for each in report.left}
    assert reasons[f"{FIRST}.spatial"] == "constant, but behind a gate that stays"
    spatial.activation.name = "double_sigmoid"
    with torch.no_grad():
        expected = model(IMAGES)
        report = fold(model, [IMAGES])
        torch.testing.assert_close(model(IMAGES), expected)
    assert [(each.gate, each.into) for each in report.folded] == [(f"{FIRST}.spatial", None)]


def test_gates_that_never_moved_go_without_a_trace():
    model = SmallResNet(5, channels=(8, 16), blocks=(1, 1)).eval()
    plain = copy.deepcopy(model)
    attend(model, "cbam")
    report = fold(model, [IMAGES])
    assert report.change == 0
    assert len(report.folded) == 4
    assert "was one" in str(report)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert torch.equal(model(IMAGES), plain(IMAGES))
    assert all(
        torch.equal(p, q) for p, q in zip(model.parameters(), plain.parameters(), strict=True)
    )


def test_frames_of_clips():
    model = SmallResNet(5, ndim=3, channels=(8, 16), blocks=(1, 1)).eval()
    attend(model, "temporal", start="paper")
    clips = torch.randn(3, 3, 6, 8, 8)
    for site in attached(model):
        nn.init.zeros_(model.get_submodule(site.site).attention.mix.conv.weight)
    with torch.no_grad():
        expected = model(clips)
        report = fold(model, [clips])
        torch.testing.assert_close(model(clips), expected)
    assert len(report.folded) == 2


class Leftover(nn.Module):
    """What is left of gated features after most of them is taken away: small changes count."""

    def __init__(self, away):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)
        self.away = away
        for layer in (self.first, self.second):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        return self.second(self.first(x)) - self.away


def test_a_fold_that_changes_the_output_too_much_is_undone():
    model = Leftover(0.48)
    x = 1 + 0.01 * torch.randn(50, 1, 4, 4)
    attend(model, "se", where=["first", "second"], example=x)
    live, still = model.first.attention, model.second.attention
    with torch.no_grad():
        live.mix.reduce.weight.fill_(1.0)  # nearly constant
        live.mix.expand.weight.fill_(0.02)
        still.mix.expand.bias.fill_(torch.logit(torch.tensor(0.24)).item())
    before = {n: value.clone() for n, value in model.state_dict().items()}
    y = model(x)
    report = fold(model, [x])
    assert [(each.gate, each.into) for each in report.folded] == [("second.attention", "second")]
    [left] = report.left
    assert left.gate == "first.attention"
    assert left.reason.startswith("undone, outputs would change by")
    assert torch.equal(model.first.weight, before["first.weight"])
    assert torch.equal(model.first.bias, before["first.bias"])
    assert model.first.attention is live
    change = (model(x) - y).abs().max() / y.abs().max()
    assert change.item() == pytest.approx(report.change, abs=1e-6)
    assert report.change < 1e-3
    # With more room it goes, and the change that was stated is the one that is seen.
    wide = fold(model, [x], tolerance=0.5)
    assert len(wide.folded) == 1
    assert 1e-3 < wide.change < 0.5
    change = (model(x) - y).abs().max() / y.abs().max()
    assert change.item() == pytest.approx(wide.change, rel=0.05)


def test_what_is_behind_an_undone_gate_stays_as_well():
    model = Leftover(0.255)
    x = 1 + 0.01 * torch.randn(50, 1, 4, 4)
    attend(model, "cbam", where="second", example=x, start="paper", kernel_size=3)
    channel, spatial = model.second.attention.gates.children()
    with torch.no_grad():
        channel.mix.reduce.weight.fill_(1.0)
        channel.mix.expand.weight.fill_(0.02)
        spatial.mix.conv.weight.zero_()
    y = model(x)
    report = fold(model, [x])
    assert report.folded == ()
    assert [each.reason.split(",")[0] for each in report.left] == ["undone", "constant"]
    assert torch.equal(model(x), y)


def test_half_precision_states_what_rounding_costs():
    model = attend_constant(
        sequence(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(torch.bfloat16),
        "1",
        torch.zeros(1, 3, 8, 8),
    )
    x = torch.randn(8, 3, 8, 8, dtype=torch.bfloat16)
    before = {n: value.clone() for n, value in model.state_dict().items()}
    report = fold(model, [x], tolerance=1e-5)
    assert report.folded == ()
    assert "undone" in report.left[0].reason
    assert all(torch.equal(value, before[n]) for n, value in model.state_dict().items())
    report = fold(model, [x], tolerance=0.02)
    assert len(report.folded) == 1
    assert 1e-5 < report.change < 0.02


def test_folded_networks_train_on_alike():
    model = sequence(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    x = torch.randn(8, 3, 8, 8, dtype=torch.float64)
    attend_constant(model, "2", x)
    other = copy.deepcopy(model)
    fold(model, [x])
    torch.testing.assert_close(model.train()(x), other.train()(x), rtol=1e-12, atol=1e-12)


def test_data_may_come_shuffled_and_with_targets():
    model = cbam_network()
    nn.init.zeros_(model.get_parameter(f"{FIRST}.channel.mix.expand.weight"))
    loader = DataLoader(TensorDataset(IMAGES, torch.zeros(40)), batch_size=16, shuffle=True)
    report = fold(model, loader)
    assert len(report.folded) == 1
    assert report.change < 1e-6


def test_several_outputs_are_each_compared_with_their_own_size():
    class Both(Leftover):
        def forward(self, x):
            small = super().forward(x)
            return {"large": small + 100, "small": [small, "a label"]}

    model = Both(1.245)
    x = 1 + 0.01 * torch.randn(50, 1, 4, 4)
    attend(model, "se", where="second", example=x)
    with torch.no_grad():
        model.second.attention.mix.reduce.weight.fill_(1.0)
        model.second.attention.mix.reduce.bias.zero_()
        model.second.attention.mix.expand.weight.fill_(0.5)
    before = model(x)
    report = fold(model, [x], tolerance=1e-2)
    assert "undone" in report.left[0].reason
    report = fold(model, [x], tolerance=0.5)
    after = model(x)
    small, large = (after["small"][0] - before["small"][0]), after["large"] - before["large"]
    expected = (small.abs().max() / before["small"][0].abs().max()).item()
    assert report.change == pytest.approx(expected, rel=1e-2)
    assert (large.abs().max() / before["large"].abs().max()).item() < 1e-2 < expected


def test_the_network_is_left_as_it_was_found():
    model = cbam_network()
    model.train()
    model.stages[0].eval()
    flags = [module.training for module in model.modules()]
    hooks = [len(module._forward_hooks) for module in model.modules()]
    before = {n: value.clone() for n, value in model.state_dict().items()}
    fold(model, [IMAGES])
    assert [module.training for module in model.modules()] == flags
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, before[n]) for n, value in model.state_dict().items())


def test_errors_say_what_came():
    model = cbam_network()
    with pytest.raises(ValueError, match="gates that attend put in, got one without"):
        fold(nn.Sequential(CBAM(3)), [IMAGES])
    with pytest.raises(ValueError, match="more than once"):
        fold(model, iter([IMAGES]))
    with pytest.raises(ValueError, match="at least one input, got none"):
        fold(model, [])
    with pytest.raises(ValueError, match="tolerance to be at least 0, got nan"):
        fold(model, [IMAGES], tolerance=float("nan"))
    with pytest.raises(ValueError, match=r"fold: expected .* to give finite gates"):
        fold(model, [IMAGES * torch.nan])
