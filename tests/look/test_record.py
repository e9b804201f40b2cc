"""Recording: which gates are seen, in which order, and that nothing is left behind."""

import pytest
import torch
from torch import nn

from tests.surgery.fused import X, small
from whatwhere import CBAM, ChannelAttention, Par, SpatialAttention, TemporalAttention
from whatwhere.look import gates_in, record
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
