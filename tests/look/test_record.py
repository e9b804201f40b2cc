"""Recording: which gates are seen, in which order, and that nothing is left behind."""

import pytest
import torch
from torch import nn

from whatwhere import CBAM, ChannelAttention, Par, SpatialAttention, TemporalAttention
from whatwhere.look import gates_in, record


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
