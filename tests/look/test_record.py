"""Recording: which gates are seen, in which order, and that nothing is left behind."""

import copy

import pytest
import torch
from torch import nn

from tests.cases import layouts, randomise
from tests.surgery.fused import X, small
from whatwhere import (
    CBAM,
    ChannelAttention,
    Par,
    SpatialAttention,
    TemporalAttention,
)
from whatwhere.look import gates_in, record
from whatwhere.look.ablation import replaced
from whatwhere.surgery.deferred import Deferred


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_recorded_gates_are_what_the_output_is_multiplied_by():
    torch.manual_seed(0)
    cbam = CBAM(16)
    x = torch.randn(3, 16, 6, 6)
    with record(cbam) as recorded:
        y = cbam(x)
    [channel], [spatial] = recorded["gates.channel"], recorded["gates.spatial"]
    assert torch.equal(x * channel * spatial, y)
    assert not channel.requires_grad


def test_every_call_is_kept_in_order_of_execution():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.second = SpatialAttention(kernel_size=3)
            self.first = ChannelAttention(4)
            self.unused = ChannelAttention(4)

        def forward(self, x):
            return self.second(self.second(self.first(x)))

    model = Backwards()
    with record(model) as recorded:
        model(torch.randn(2, 4, 5, 5))
        model(torch.randn(1, 4, 5, 5))
    assert list(recorded) == ["first", "second"]
    assert [len(gate) for gate in recorded["second"]] == [2, 2, 1, 1]


def test_gates_joined_by_logits_are_one_gate_and_by_gates_are_two():
    by_logits = CBAM(8, order="channel+spatial")
    by_gates = Par(join="gates", channel=ChannelAttention(8), spatial=SpatialAttention())
    assert {name: gate.kind for name, gate in gates_in(by_logits).items()} == {"gates": "joint"}
    assert list(gates_in(by_gates)) == ["channel", "spatial"]
    x = torch.randn(2, 8, 5, 5)
    with record(by_logits) as recorded:
        y = by_logits(x)
    assert torch.equal(x * recorded["gates"][0], y)


def test_kinds_of_clips():
    model = CBAM(8, ndim=3, kernel_size=3, order="temporal-channel-spatial")
    with record(model) as recorded:
        model(torch.randn(1, 8, 4, 5, 5))
    assert [gates_in(model)[site].kind for site in recorded] == ["when", "what", "where"]


def test_hooks_are_gone_after_an_exception():
    model = nn.Sequential(TemporalAttention(), CBAM(8, ndim=1))
    seen = {}

    def run():
        with record(model) as recorded:
            assert hooks_of(model) == 3
            model(torch.randn(1, 8, 9))
            seen.update(recorded)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        run()
    assert hooks_of(model) == 0
    assert len(seen) == 3


@pytest.mark.parametrize("dialect", ["paper", "official", "timm"])
@pytest.mark.parametrize("training", [False, True])
def test_every_dialect(dialect, training):
    cbam = CBAM(16, dialect=dialect, kernel_size=3).train(training)
    for parameter in cbam.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(3, 16, 6, 6)
    plain = cbam(x)
    with record(cbam) as recorded:
        y = cbam(x)
    [channel], [spatial] = recorded.values()
    torch.testing.assert_close(x * channel * spatial, plain)
    torch.testing.assert_close(y, plain)


def test_records_inside_each_other_and_their_gates_agree():
    cbam = CBAM(8)
    x = torch.randn(1, 8, 5, 5)
    with record(cbam) as outer:
        with record(cbam.gates) as inner:
            cbam(x)
        assert hooks_of(cbam) == 2
        cbam(x)
    assert hooks_of(cbam) == 0
    assert [len(calls) for calls in outer.values()] == [2, 2]
    assert torch.equal(inner["channel"][0], outer["gates.channel"][0])


def test_fused_gates_are_seen_and_fuse_again_afterwards(monkeypatch):
    passes = []
    run = Deferred._run

    def spy(self, **options):
        passes.append(self)
        return run(self, **options)

    monkeypatch.setattr(Deferred, "_run", spy)
    model, fused, _ = small()
    with torch.no_grad(), record(model.eval()) as expected:
        model(X)
    with torch.no_grad(), record(fused.eval()) as recorded:
        fused(X)
    assert not passes
    assert list(recorded) == list(expected)
    for name, [gate] in recorded.items():
        assert torch.equal(gate, expected[name][0])
    with torch.no_grad():
        fused(X)
    assert len(passes) == 3


def test_compiled_networks_are_seen_and_compiled_code_goes_on():
    torch._dynamo.reset()
    calls = []

    def backend(graph, _inputs):
        calls.append(graph)
        return graph.forward

    model = nn.Sequential(CBAM(8))
    x = torch.randn(1, 8, 5, 5)
    compiled = torch.compile(model, backend=backend)
    y = compiled(x)
    with record(model) as recorded:
        torch.testing.assert_close(compiled(x), y)
    assert list(recorded) == ["0.gates.channel", "0.gates.spatial"]
    assert torch.equal(compiled(x), y)
    assert len(calls) == 1


def bits_of(module, x):
    """Output and all gradients of a call."""
    x = x.detach().requires_grad_()
    y = module(x)
    return y, *torch.autograd.grad(y.square().sum(), [x, *module.parameters()])


def run_as_modules(cbam, x):
    """Output and gates with each module called, which a hook of anyone's asks for."""
    seen = []
    handles = [
        gate.activation.register_forward_hook(lambda _module, _inputs, gate: seen.append(gate))
        for gate in gates_in(cbam).values()
    ]
    y = cbam(x)
    for handle in handles:
        handle.remove()
    return y, seen


@pytest.mark.parametrize("dialect", ["paper", "official", "timm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(2, 8, 13), (3, 8, 7, 5), (1, 8, 3, 5, 4), (0, 8, 3, 3)])
def test_recorded_gates_are_those_of_the_modules_and_the_output_keeps_its_bits(
    dialect, dtype, shape, kernels
):
    options = {"ndim": len(shape) - 2, "kernel_size": 3, "reduction_ratio": 2, "dialect": dialect}
    cbam = randomise(CBAM(8, **options)).to(dtype).eval()
    for _, x in layouts(torch.randn(shape)):
        x = x.to(dtype)
        expected = bits_of(cbam, x)
        kernels.calls.clear()
        with record(cbam) as recorded:
            got = bits_of(cbam, x)
        assert kernels.calls == {"cbam": 1, "cbam_backward": 1}
        assert all(map(torch.equal, got, expected))
        _, gates = run_as_modules(copy.deepcopy(cbam).double(), x.double())
        assert kernels.calls["cbam"] == 1
        assert list(recorded) == ["gates.channel", "gates.spatial"]
        for [gate], wanted in zip(recorded.values(), gates, strict=True):
            assert gate.dtype == torch.float32
            torch.testing.assert_close(gate.double(), wanted.detach(), rtol=1e-5, atol=1e-5)
            assert not gate.requires_grad


@torch.no_grad()
def test_networks_give_the_same_bits_while_recorded():
    model = small()[0].eval()
    expected = model(X)
    for _ in range(2):
        with record(model) as recorded:
            assert torch.equal(model(X), expected)
    assert [len(calls) for calls in recorded.values()] == [1] * 6
    assert hooks_of(model) == 3  # those of the sites


def test_what_is_done_to_a_recorded_gate_does_not_reach_the_gradient():
    cbam, x = randomise(CBAM(8)), torch.randn(2, 8, 5, 5)
    expected = bits_of(cbam, x)
    x = x.requires_grad_()
    with record(cbam) as recorded:
        y = cbam(x)
    for [gate] in recorded.values():
        gate.zero_()
    got = torch.autograd.grad(y.square().sum(), [x, *cbam.parameters()])
    assert all(map(torch.equal, got, expected[1:]))


def test_hooks_that_change_a_gate_are_called_whichever_comes_first():
    cbam, x = CBAM(8), torch.ones(1, 8, 5, 5)

    def close():
        return cbam.gates.channel.activation.register_forward_hook(lambda _m, _i, gate: 0 * gate)

    handle = close()
    with record(cbam) as recorded:
        assert not cbam(x).any()
    assert not recorded["gates.channel"][0].any()
    handle.remove()
    with record(cbam) as recorded:
        close()
        assert not cbam(x).any()
    assert recorded["gates.channel"][0].all()  # as it was when it was looked at


def test_a_replaced_gate_is_recorded_as_what_replaces_it():
    cbam, x = CBAM(8), torch.randn(1, 8, 5, 5)
    with replaced(cbam.gates.channel, torch.full((8, 1, 1), 0.25)), record(cbam) as recorded:
        y = cbam(x)
    assert (recorded["gates.channel"][0] == 0.25).all()
    torch.testing.assert_close(y, x * 0.25 * recorded["gates.spatial"][0])


def test_a_copy_made_inside_is_seen_there_and_no_longer_afterwards():
    cbam, x = randomise(CBAM(8)), torch.randn(1, 8, 5, 5)
    with record(cbam) as recorded:
        copied = copy.deepcopy(cbam)
        assert torch.equal(copied(x), cbam(x))
    assert torch.equal(copied(x), cbam(x))
    assert [len(calls) for calls in recorded.values()] == [2, 2]


def test_a_program_exported_inside_a_block_computes_the_same():
    cbam, x = randomise(CBAM(8)).eval(), torch.randn(2, 8, 5, 5)
    expected = cbam(x)
    with record(cbam):
        program = torch.export.export(cbam, (x,))
    assert torch.equal(program.module()(x), expected)


def test_transforms_inside_a_block():
    cbam, x = randomise(CBAM(8)).eval(), torch.randn(3, 2, 8, 5, 5)
    mapped = torch.func.vmap(cbam)
    gradient = torch.func.grad(lambda x: cbam(x).sum())
    expected = mapped(x), gradient(x[0])
    with record(cbam):
        got = mapped(x), gradient(x[0])
    torch.testing.assert_close(got, expected)
