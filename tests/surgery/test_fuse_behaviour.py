"""Networks with fused gates: recorded, copied, compiled, differentiated, and gates that wait."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.cases import randomise
from tests.surgery.fused import (
    RELU,
    Block,
    X,
    gated_and_fused,
    gradients,
    small,
)
from whatwhere import attached, attend, checkpoints, detach
from whatwhere.look import record
from whatwhere.study.networks import SmallResNet
from whatwhere.surgery import fuse
from whatwhere.surgery.deferred import Deferred


def test_gates_can_be_recorded(passes):
    model, fused, _ = small()
    model.eval(), fused.eval()
    with record(model) as expected, torch.no_grad():
        model(X)
    with record(fused) as recorded, torch.no_grad():
        fused(X)
    assert list(recorded) == list(expected)
    assert passes == []
    for name, [gate] in recorded.items():
        torch.testing.assert_close(gate, expected[name][0])


def test_the_network_stays_what_it_was(kernels):
    model = SmallResNet(5, channels=(8, 16), blocks=(1, 2))
    keys, modules = list(model.state_dict()), dict(model.named_modules())
    report = attend(model, "cbam", fuse=True)
    assert set(report.fused) == {site.name for site in report.sites}
    assert str(report).count("  fused with add, relu") == 3
    assert [key for key in model.state_dict() if ".attention." not in key] == keys
    assert len(dict(model.named_modules())) == len(set(map(id, model.modules())))
    detach(model)
    assert dict(model.named_modules()) == modules
    assert not any(module._forward_hooks for module in model.modules())


def test_copies_fuse_by_themselves(passes):
    model, fused, _ = small()
    expected = model.eval()(X)
    for other in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        passes.clear()
        torch.testing.assert_close(other.eval()(X), expected)
        assert passes == [RELU] * 3
        own = set(map(id, other.modules()))
        for site in attached(other):
            passed = other.get_submodule(site.site).attention.fusion.passed
            assert own.issuperset(map(id, passed))


def test_a_new_process_reads_the_pickle(tmp_path):
    _, fused, _ = small()
    with torch.no_grad():
        torch.save((fused.eval(), X, fused(X)), tmp_path / "model.pt")
    code = (
        "import sys, torch; model, x, y = torch.load(sys.argv[1], weights_only=False)\n"
        "with torch.no_grad(): torch.testing.assert_close(model(x), y)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "model.pt"], check=True, timeout=120)


def test_checkpoints_hold_gates_that_can_be_fused_again(tmp_path, passes):
    _, fused, sites = small()
    checkpoints.save(fused, tmp_path / "model.safetensors")
    loaded = SmallResNet(5, channels=(8, 16), blocks=(1, 2))
    checkpoints.load(tmp_path / "model.safetensors", into=loaded)
    assert fuse(loaded) == sites
    torch.testing.assert_close(loaded.eval()(X), fused.eval()(X))
    assert passes == [RELU] * 6


def test_compiled_and_exported_it_is_not_fused(kernels):
    model, fused, _ = small()
    expected = model.eval()(X)
    torch._dynamo.reset()
    compiled = torch.compile(fused.eval(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(X), expected)
    auto = torch.export.Dim.AUTO
    program = torch.export.export(fused, (X,), dynamic_shapes=({0: auto, 2: auto, 3: auto},))
    torch.testing.assert_close(program.module()(X), expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own, between its graphs
def test_a_site_that_is_kept_from_the_compiler_fuses_before_compiled_code(kernels):
    class Eager(nn.BatchNorm2d):
        @torch.compiler.disable
        def __call__(self, x):
            return super().__call__(x)

    model, fused, _ = small()
    fused.stages[0][0].bn2.__class__ = Eager
    torch._dynamo.reset()
    compiled = torch.compile(fused.eval(), backend="aot_eager")
    y, ours = gradients(compiled, X)
    expected, theirs = gradients(model.eval(), X)
    torch.testing.assert_close(y, expected)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_autocast_half_precision_and_transforms(passes):
    model, fused, _ = small()
    for each in (model, fused):
        with torch.autocast("cpu", torch.bfloat16):
            each.result = each.eval()(X)
    torch.testing.assert_close(fused.result, model.result, rtol=0.05, atol=0.05)
    assert len(passes) == 3
    half = fused.bfloat16()
    torch.testing.assert_close(
        half(X.bfloat16()), model.bfloat16()(X.bfloat16()), rtol=0.05, atol=0.05
    )
    passes.clear()
    model.float(), fused.float()
    y = torch.func.vmap(lambda x: fused(x[None])[0])(X)
    torch.testing.assert_close(y, model(X))
    assert passes == []


def test_gradients_of_gradients(passes):
    model, fused, _ = gated_and_fused(SmallResNet(5, channels=(8,), blocks=(1,)).double())
    results = []
    for each in (model, fused):
        x = X.double().requires_grad_()
        (grad,) = torch.autograd.grad(each.eval()(x).square().sum(), x, create_graph=True)
        results.append(torch.autograd.grad(grad.square().sum(), list(each.parameters())[:-1]))
    assert passes == [RELU]
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_memory_formats_are_kept(kernels):
    model, fused, _ = small()
    x = X.contiguous(memory_format=torch.channels_last)
    outputs = [each.eval().stages(each.stem(x)) for each in (model, fused)]
    assert outputs[0].stride() == outputs[1].stride()
    torch.testing.assert_close(*outputs)


def test_where_nothing_fuses_it_is_refused():
    model = SmallResNet(5)
    keys = list(model.state_dict())
    with pytest.raises(ValueError, match=r"to have a gate, .* whose output is added .* found none"):
        attend(model, "cbam", where="stem.0", fuse=True)
    with pytest.raises(ValueError, match=r"no Par, .* found none"):
        attend(model, "cbam", order="channel+spatial", fuse=True)
    assert list(model.state_dict()) == keys
    assert attached(model) == ()


class Test_a_gate_that_waits:  # noqa: N801
    @pytest.fixture
    def waiting(self, kernels):
        model = Block(lambda _, b, x: F.relu(b + x))
        attend(model, "cbam", where="bn", start="paper", reduction_ratio=1, fuse=True)
        randomise(model)
        model.eval()
        out = model.bn(model.conv(X))
        assert type(out) is Deferred
        detach(model)
        return out

    def test_is_the_tensor_to_all_else(self, waiting):
        x = X.clone()
        value = waiting.tensor()
        assert waiting.shape == value.shape
        for use in (
            lambda y: y * 2,
            lambda y: 2 - y,
            lambda y: -y,
            lambda y: y[0],
            lambda y: y > 0,
            lambda y: y.mean(),
            lambda y: torch.cat([y, x]),
            x.sub,
            lambda y: torch.stack(list(y)),
            lambda y: y + 1,
            lambda y: 1 + y,
            lambda y: F.conv2d(y, torch.ones(1, 3, 1, 1)),
            F.relu,
            lambda y: F.layer_norm(y, y.shape[1:]),
            lambda y: pickle.loads(pickle.dumps(y.detach())),
            lambda y: torch.as_tensor(y.detach().numpy()),
        ):
            assert torch.equal(use(waiting), use(value))

    def test_computes_with_the_gradients_of_its_time(self, waiting):
        with torch.no_grad():
            assert waiting.mean().requires_grad is False
        assert waiting.requires_grad
        assert waiting.grad_fn is not None

    def test_refuses_a_sum_whose_gradient_would_be_lost(self, waiting):
        with torch.no_grad(), pytest.raises(RuntimeError, match=r"with gradients .* fuse=True"):
            (waiting + X).relu()

    def test_refuses_a_shortcut_that_changed(self, waiting):
        shortcut = X.clone()
        total = waiting + shortcut
        shortcut.add_(1)
        with pytest.raises(RuntimeError, match=r"the shortcut changed in place meanwhile"):
            total.relu()

    def test_can_be_added_to_itself(self, waiting):
        torch.testing.assert_close((waiting + waiting).relu(), (2 * waiting.tensor()).relu())
