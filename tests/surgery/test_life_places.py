"""Gates on arguments, in the place of others and with channels last live as the others do."""

import copy
import pickle

import pytest
import timm.layers
import torch
from torch import nn

import whatwhere
from tests.cases import randomise
from tests.surgery.networks import ChannelsLast, UNet
from whatwhere import attached, attend, detach
from whatwhere.surgery import described, reattach

torch.manual_seed(0)
NETWORKS = {
    "argument": (UNet, (2, 2, 16, 16), {"where": "skips", "start": "paper"}),
    "bridge": (UNet, (2, 2, 16, 16), {"where": "bridge", "start": "paper"}),
    "replaced": (
        lambda: timm.create_model("test_efficientnet", num_classes=5),
        (2, 3, 32, 32),
        {"replace": "se"},
    ),
    "channels last": (ChannelsLast, (2, 3, 12, 16), {"start": "paper"}),
}


@pytest.fixture(params=NETWORKS)
def case(request):
    """A plain network like it, the one with gates, and an input."""
    build, shape, options = NETWORKS[request.param]
    plain, x = build(), torch.randn(shape)
    model = copy.deepcopy(plain)
    attend(model, "cbam", example=x, reduction_ratio=2, **options)
    for site in attached(model):
        randomise(model.get_submodule(site.site).attention)
    return plain.eval(), model.eval(), x


def test_copies(case):
    _, model, x = case
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), model(x))
        assert attached(other) == attached(model)
        for parameter in other.parameters():
            nn.init.zeros_(parameter)
    assert model(x).any()


def test_files(case, tmp_path):
    plain, model, x = case
    plain = copy.deepcopy(plain)
    whatwhere.save(model, tmp_path / "gated.safetensors")
    torch.save(model.state_dict(), tmp_path / "gated.pth")
    for name in ("gated.safetensors", "gated.pth"):
        other = copy.deepcopy(plain)
        whatwhere.load(tmp_path / name, into=other)
        assert torch.equal(other(x), model(x))
        assert attached(other) == attached(model)
    other = copy.deepcopy(plain)
    reattach(other, described(model.state_dict()))
    assert attached(other) == attached(model)


def test_removal(case):
    plain, model, x = case
    gated = model(x)
    assert not torch.allclose(gated, plain(x))
    detach(model)
    assert torch.equal(model(x), plain(x))
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]


def test_training(case):
    _, model, x = case
    model.train()(x).square().sum().backward()
    for site in attached(model):
        gate = model.get_submodule(site.site).attention
        assert all(p.grad is not None and p.grad.isfinite().all() for p in gate.parameters())
        assert any(p.grad.any() for p in gate.parameters())


def test_compiling_and_exporting(case):
    _, model, x = case
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x))
    program = torch.export.export(model, (x,))
    torch.testing.assert_close(program.module()(x), model(x))


def test_norms_converted_and_dtypes_changed(case):
    _, model, x = case
    expected = model(x)
    converted = timm.layers.convert_sync_batchnorm(copy.deepcopy(model))
    assert torch.equal(converted.eval()(x), expected)
    torch.testing.assert_close(model.double()(x.double()), expected.double(), rtol=1e-4, atol=1e-4)


def test_recording_and_measuring(case):
    _, model, x = case
    with whatwhere.record(model) as gates:
        model(x)
    assert len(gates) == 2 * len(attached(model))
    assert len(whatwhere.diagnose(model, [x])) == len(gates)
    before = model(x)
    report = whatwhere.fold(model, [x], tolerance=1e-6)
    assert report.folded == ()
    assert torch.equal(model(x), before)
