"""Pruning: what goes, what stays as it was, what checkpoints make of it, and what is refused."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from whatwhere import CBAM, attached, attend, detach, diagnose, prune
from whatwhere.checkpoints import load, save
from whatwhere.look import Diagnosis, gates_in
from whatwhere.study.networks import SmallResNet

X = torch.randn(30, 3, 16, 16, generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(30) % 5


def network(ndim=2):
    return SmallResNet(5, in_channels=3, ndim=ndim, channels=(8, 16), blocks=(1, 1)).eval()


def gated(gate="cbam", *, ndim=2, **options):
    model = network(ndim)
    attend(model, gate, start="paper", **options)
    for name, parameter in model.named_parameters():
        if ".attention." in name:
            nn.init.normal_(parameter, std=0.5)
    return model


def advised(model, x, remove):
    """A diagnosis whose advice is to remove certain gates and to keep the others."""
    report = diagnose(model, [(x, LABELS[: len(x)])])
    assert {each.site for each in report} >= set(remove)
    gates = [replace(each, advice="remove" if each.site in remove else "keep") for each in report]
    return Diagnosis(tuple(gates), report.inputs, report.score, report.tolerance)


@torch.no_grad()
def with_ones(model, x, names):
    """The output with certain gates one, by hooks."""
    model = copy.deepcopy(model)
    for name in names:
        gate = model.get_submodule(name)
        gate.activation.register_forward_hook(lambda _m, _i, output: torch.ones_like(output))
    return model(x)


@pytest.mark.parametrize(
    ("remove", "orders"),
    [
        (["stages.0.0.bn2.attention.gates.channel"], ["spatial", "channel-spatial"]),
        (["stages.1.0.bn2.attention.gates.spatial"], ["channel-spatial", "channel"]),
        (
            [f"stages.1.0.bn2.attention.gates.{part}" for part in ("channel", "spatial")],
            ["channel-spatial"],
        ),
        ([], ["channel-spatial", "channel-spatial"]),
    ],
)
@pytest.mark.parametrize("fused", [False, True])
def test_what_is_left_is_as_with_ones_and_a_checkpoint_builds_it(remove, orders, fused, tmp_path):
    model = gated(fuse=fused)
    report = advised(model, X, remove)
    expected = with_ones(model, X, remove)
    before = {id(module) for module in model.modules()}
    values = {name: value.clone() for name, value in model.state_dict().items()}
    count = sum(p.numel() for p in model.parameters())
    seeds = torch.random.get_rng_state()
    done = prune(model, report)
    assert torch.equal(torch.random.get_rng_state(), seeds)
    assert list(done.removed) == remove
    assert sorted((*done.removed, *done.kept)) == sorted(each.site for each in report)
    assert done.parameters_removed == count - sum(p.numel() for p in model.parameters())
    assert {id(module) for module in model.modules()} <= before
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())
    assert [each.options.get("order", "channel-spatial") for each in attached(model)] == orders
    with torch.no_grad():
        torch.testing.assert_close(model(X), expected)
        save(model, tmp_path / "pruned.safetensors")
        again = network()
        load(tmp_path / "pruned.safetensors", into=again)
        torch.testing.assert_close(again(X), expected)
    assert list(again.state_dict()) == list(model.state_dict())


def test_the_network_is_plain_again_where_all_gates_go():
    model = gated("se")
    plain = network()
    remove = list(gates_in(model))
    done = prune(model, advised(model, X, remove))
    assert list(model.state_dict()) == list(plain.state_dict())
    assert attached(model) == ()
    assert not any(module._forward_hooks for module in model.modules())
    assert str(done).startswith("2 of 2 gates removed, ")
    assert "stages.1.0.bn2.attention" in str(done)


@pytest.mark.parametrize("part", ["temporal", "channel", "spatial"])
def test_clips(part, tmp_path):
    model = gated(ndim=3, order="temporal-channel-spatial", frames="site", kernel_size=3)
    x = torch.randn(2, 3, 16, 8, 8)
    remove = [f"stages.0.0.bn2.attention.gates.{part}"]
    expected = with_ones(model, x, remove)
    prune(model, advised(model, x, remove))
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected)
        save(model, tmp_path / "clips.safetensors")
        again = network(3)
        load(tmp_path / "clips.safetensors", into=again)
        torch.testing.assert_close(again(x), expected)


@pytest.mark.parametrize("dialect", ["official", "timm"])
def test_dialects(dialect, tmp_path):
    model = gated(dialect=dialect)
    remove = ["stages.0.0.bn2.attention.gates.channel"]
    expected = with_ones(model, X, remove)
    prune(model, advised(model, X, remove))
    with torch.no_grad():
        torch.testing.assert_close(model(X), expected)
        save(model, tmp_path / "dialect.safetensors")
        again = network()
        load(tmp_path / "dialect.safetensors", into=again)
        torch.testing.assert_close(again(X), expected)


def test_gates_joined_by_logits_go_as_one():
    model = gated(order="channel+spatial")
    plain = copy.deepcopy(model)
    detach(plain)
    prune(model, advised(model, X, list(gates_in(model))))
    assert torch.equal(model(X), plain(X))


def test_diagnosed_and_pruned_the_gates_that_decide_are_left():
    model = network()
    attend(model, "cbam", start="identity")
    # The first site's gates were trained, the others never moved.
    for name, parameter in model.named_parameters():
        if name.startswith("stages.0.0.bn2.attention"):
            nn.init.normal_(parameter, std=2.0)
    x = torch.randn(600, 3, 8, 8)
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        head.bias -= model(x).mean(0)  # else one class wins for nearly all inputs
        outputs = model(x)
    labels = outputs.argmax(1)
    report = diagnose(model, list(zip(x.split(200), labels.split(200), strict=True)))
    assert [each.advice for each in report][1:] == ["keep", "remove", "remove"]
    assert report[0].advice != "remove"
    done = prune(model, report)
    assert list(done.removed) == [each.site for each in report][2:]
    with torch.no_grad():
        torch.testing.assert_close(model(x), outputs)


def test_refusals_say_why_and_change_nothing():
    model = gated()
    report = advised(model, X, list(gates_in(model)))
    keys = list(model.state_dict())
    with pytest.raises(ValueError, match="expected a report from diagnose, got list"):
        prune(model, list(report))
    with pytest.raises(ValueError, match="without: diagnose the network on data with targets"):
        prune(model, diagnose(model, [X]))
    with pytest.raises(ValueError, match=r"which has no gates \['stages.0.0.bn2.attention"):
        prune(gated("se"), report)
    with pytest.raises(ValueError, match="which has no gates"):
        prune(gated("spatial"), advised(gated("se"), X, ["stages.0.0.bn2.attention"]))
    own = nn.Sequential(CBAM(3, kernel_size=3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match=r"gates that attend put in, .* \['0.gates.channel'"):
        prune(own, advised(own, X, ["0.gates.channel", "0.gates.spatial"]))
    assert list(gates_in(own)) == ["0.gates.channel", "0.gates.spatial"]
    assert list(model.state_dict()) == keys
    prune(model, report)
    with pytest.raises(ValueError, match="which has no gates"):
        prune(model, report)
