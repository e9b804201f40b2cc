"""From a trained network to a smaller one: attended, trained, diagnosed, pruned, folded, loaded."""

import copy

import torch
import torch.nn.functional as F

from whatwhere import attached, attend, diagnose, fold, prune
from whatwhere.checkpoints import describe, load, save
from whatwhere.look import gates_in
from whatwhere.study.networks import SmallResNet


def task(count):
    """Which of three channels is brighter in a corner."""
    x = torch.rand(count, 3, 12, 12)
    labels = torch.randint(3, (count,))
    x[torch.arange(count), labels, :6, :6] += 0.35
    return x, labels


def train(model, parameters, steps, lr):
    optimiser = torch.optim.AdamW(parameters, lr=lr)
    model.train()
    for _ in range(steps):
        x, labels = task(64)
        optimiser.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimiser.step()
    model.eval()


def test_a_trained_network_gets_gates_and_keeps_those_that_earn_their_place(tmp_path):
    model = SmallResNet(3, channels=(8, 16), blocks=(1, 1))
    train(model, model.parameters(), 60, 3e-3)
    x, labels = task(1000)
    data = list(zip(x.split(250), labels.split(250), strict=True))
    with torch.no_grad():
        before = model(x)
        attend(model, "cbam", kernel_size=3)
        assert torch.equal(model(x), before)
    # One gate stands still at 1.2, as if it had found that out; the others train.
    still = model.stages[0][0].bn2.attention.gates.channel
    still.requires_grad_(False)
    still.mix.forward = lambda descriptors: torch.full_like(descriptors[0], 0.4055)
    train(model, [p for p in model.parameters() if p.requires_grad], 60, 3e-3)

    diagnosis = diagnose(model, data, tolerance=0.02)
    names = [each.site for each in diagnosis]
    assert names == list(gates_in(model))
    assert diagnosis.score > 0.6
    removed = prune(copy.deepcopy(model), diagnosis).removed
    assert set(removed) == {each.site for each in diagnosis if each.advice == "remove"}

    outputs = model(x)
    done = fold(model, data)
    constant = "stages.0.0.bn2.attention.gates.channel"
    assert constant in {each.gate for each in done.folded}
    assert (model(x) - outputs).abs().max() <= 1.001e-3 * outputs.abs().max()

    diagnosis = diagnose(model, data, tolerance=0.02)
    prune(model, diagnosis)
    save(
        model,
        tmp_path / "small.safetensors",
        network="whatwhere.study.networks.SmallResNet",
        arguments={"classes": 3, "channels": [8, 16], "blocks": [1, 1]},
        facts={"score": diagnosis.score},
    )
    elsewhere = load(tmp_path / "small.safetensors").eval()
    assert describe(tmp_path / "small.safetensors")["facts"] == {"score": diagnosis.score}
    assert attached(elsewhere) == attached(model)
    with torch.no_grad():
        torch.testing.assert_close(elsewhere(x), model(x))
        score = (elsewhere(x).argmax(1) == labels).float().mean().item()
    assert score > diagnosis.score - 0.1
