"""Files of torch.save, given to a plain network with the gates they describe."""

import os

import pytest
import torch
from torch import nn

from tests.cases import randomise
from whatwhere import attached, attend, load, save
from whatwhere.study.networks import SmallResNet

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def plain(classes=5):
    return SmallResNet(classes, channels=(8, 16), blocks=(1, 2))


def gated():
    model = plain()
    attend(model, "cbam")
    return randomise(model).eval()


@pytest.mark.parametrize(
    "wrap", [lambda m: m, nn.DataParallel, lambda m: torch.compile(m, backend="eager")]
)
def test_a_state_dict_gives_a_plain_network_its_gates(tmp_path, wrap):
    model = gated()
    torch.save(wrap(model).state_dict(), tmp_path / "model.pth")
    other = plain()
    assert load(tmp_path / "model.pth", into=other) is other
    assert attached(other) == attached(model)
    assert torch.equal(other.eval()(X), model(X))


class Runs:
    def __reduce__(self):
        return os.mkdir, ("made by the file",)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: torch.save(Runs(), path), "expected a state_dict, whole"),
        (lambda path: torch.save(gated(), path), "expected a state_dict, whole"),
        (
            lambda path: (
                torch.save(gated().state_dict(), path),
                path.write_bytes(path.read_bytes()[:9000]),
            ),
            "expected a state_dict, whole",
        ),
        (
            lambda path: torch.save({"epoch": 1, "model": gated().state_dict()}, path),
            r"tensors by name in .*, got \['epoch', 'model'\]; take the state_dict out",
        ),
        (
            lambda path: torch.save(dict(gated().state_dict()), path),
            "not in the network: stages.0.0.bn2.attention",
        ),
        (lambda path: torch.save(plain(7).state_dict(), path), r"head.weight is \(7, 16\) in the"),
    ],
    ids=["code", "a pickled network", "truncated", "nested", "no description", "another network"],
)
def test_what_is_no_state_dict_of_it_is_refused(tmp_path, monkeypatch, write, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "model.pth")
    model = plain()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "model.pth", into=model)
    assert list(before) == list(model.state_dict())
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert not (tmp_path / "made by the file").exists()


def test_a_state_dict_does_not_say_how_to_build(tmp_path):
    torch.save(gated().state_dict(), tmp_path / "model.pth")
    with pytest.raises(ValueError, match="does not say how to build: pass into="):
        load(tmp_path / "model.pth")


def test_gates_elsewhere_in_the_network_stay(tmp_path):
    model = plain()
    attend(model, "se", where="stages.0.0.bn2")
    torch.save(model.state_dict(), tmp_path / "model.pth")
    save(model, tmp_path / "model.safetensors")
    other = plain()
    attend(other, "se", where="stages.1.0.bn2")
    for name in ("model.pth", "model.safetensors"):
        with pytest.raises(ValueError, match=r"not in the file: stages.1.0.bn2.attention"):
            load(tmp_path / name, into=other)
        assert [gate.site for gate in attached(other)] == ["stages.1.0.bn2"]
