"""Checkpoints: nothing dropped in silence, gates rebuilt, files whole or absent."""

import pytest
import torch
from torch import nn

from tests.cases import randomise
from whatwhere import attached, attend
from whatwhere.checkpoints import describe, load, save
from whatwhere.study.networks import SmallResNet


def network():
    return SmallResNet(4, in_channels=3, channels=(8, 16), blocks=(1, 1))


def test_a_checkpoint_rebuilds_its_gates(tmp_path):
    model = network()
    attend(model, "cbam", dialect="official", kernel_size=3, start="identity")
    randomise(model).eval()
    path = tmp_path / "model.safetensors"
    save(model, path, facts={"classes": ["a", "b"], "accuracy": 0.5})
    assert describe(path)["facts"] == {"classes": ["a", "b"], "accuracy": 0.5}
    other = network().eval()
    assert load(path, into=other) is other
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(other.eval()(x), model(x))
    assert attached(other) == attached(model)
    assert [gate["gate"] for gate in describe(path)["gates"]] == ["cbam", "cbam"]
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_plain_network_has_a_checkpoint_too(tmp_path):
    save(network(), tmp_path / "plain.safetensors")
    other = network()
    load(tmp_path / "plain.safetensors", into=other)
    assert attached(other) == ()


def test_what_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "text").write_text("no tensors here")
    with pytest.raises(ValueError, match="expected a safetensors file"):
        describe(tmp_path / "text")
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="got one of other origin"):
        describe(tmp_path / "foreign.safetensors")


def test_a_checkpoint_of_another_network_is_refused_and_changes_nothing(tmp_path):
    model = network()
    attend(model, "se")
    save(model, tmp_path / "model.safetensors")
    other = SmallResNet(9, channels=(8, 16), blocks=(1, 1))
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    message = r"head.weight is \(4, 16\) in the file and \(9, 16\) in the network"
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "model.safetensors", into=other)
    assert list(other.state_dict()) == list(before)
    assert all(torch.equal(before[name], tensor) for name, tensor in other.state_dict().items())


def test_options_come_back_as_they_were(tmp_path):
    model = network()
    attend(model, "cbam", kernel_size=(3, 5))
    save(model, tmp_path / "model.safetensors")
    other = network()
    load(tmp_path / "model.safetensors", into=other)
    assert attached(other) == attached(model)


def test_wrapped_networks_are_saved_under_their_own_names(tmp_path):
    model = network()
    attend(model, "se")
    save(torch.compile(model, backend="eager"), tmp_path / "model.safetensors")
    load(tmp_path / "model.safetensors", into=network())


def test_tied_weights_are_saved_once_and_loaded(tmp_path):
    def tied():
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model

    model, other = tied(), tied()
    save(model, tmp_path / "tied.safetensors")
    load(tmp_path / "tied.safetensors", into=other)
    assert torch.equal(other[1].weight, model[0].weight)


def test_a_later_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("whatwhere.checkpoints.files.FORMAT", "2")
    save(network(), tmp_path / "model.safetensors")
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"of format 1 at .*, got '2'"):
        load(tmp_path / "model.safetensors", into=network())
