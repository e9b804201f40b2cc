"""Parameter groups: every parameter that learns in one of them, gates in theirs."""

import pytest
import torch
from torch import nn

from tests.cases import randomise
from whatwhere import attend, parameter_groups
from whatwhere.study.networks import SmallResNet


def gated():
    model = SmallResNet(5, in_channels=3, channels=(8, 16), blocks=(1, 2))
    attend(model, "cbam")
    return model


def names(model, group):
    of = {id(parameter): name for name, parameter in model.named_parameters()}
    return {of[id(parameter)] for parameter in group["params"]}


def test_every_parameter_is_in_one_group():
    model = gated()
    network, gates = parameter_groups(model, 0.1, gate_lr=1.0)
    every = {name for name, _ in model.named_parameters()}
    assert names(model, gates) == {name for name in every if ".attention." in name}
    assert names(model, network) == every - names(model, gates)
    assert len(network["params"]) + len(gates["params"]) == len(every)
    assert (network["name"], network["lr"], gates["name"], gates["lr"]) == (
        "network",
        0.1,
        "gates",
        1.0,
    )


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop])
def test_optimisers_step_the_gates_at_their_rate(kind):
    model = randomise(gated())
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = kind(parameter_groups(model, 0.0, gate_lr=1e-3), weight_decay=0.0)
    model(torch.randn(4, 3, 16, 16)).square().mean().backward()
    optimizer.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved
    assert all(".attention." in name for name in moved)


def test_frozen_parameters_are_left_out():
    model = gated()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".attention." in name)
    (gates,) = parameter_groups(model, 0.1, gate_lr=1.0)
    assert gates["name"] == "gates"
    model.stages[0].requires_grad_(False)
    (gates,) = parameter_groups(model, 0.1, gate_lr=1.0)
    assert not any(name.startswith("stages.0") for name in names(model, gates))


def test_shared_sites_and_parts_of_networks():
    shared = gated().stages
    whole = nn.ModuleList([shared, shared, nn.Linear(3, 3)])
    network, gates = parameter_groups(whole, 0.1, gate_lr=1.0)
    ids = [id(parameter) for parameter in network["params"] + gates["params"]]
    assert len(ids) == len(set(ids)) == len(list(whole.parameters()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": nn.Linear(3, 3)}, "Linear to have gates that learn, got none"),
        ({"model": gated().requires_grad_(False)}, "gates that learn, got frozen ones alone"),
        ({"lr": -1.0}, r"lr to be a number >= 0, got -1.0"),
        ({"gate_lr": float("nan")}, r"gate_lr to be a number >= 0, got nan"),
        ({"gate_lr": "1"}, r"gate_lr to be a number >= 0, got '1'"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"model": gated(), "lr": 0.1, "gate_lr": 1.0, **change}
    with pytest.raises(ValueError, match=message):
        parameter_groups(**arguments)
