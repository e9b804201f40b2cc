"""``cbam_with_gates``: the output of ``cbam`` bit for bit, and the gates of the specification."""

import pytest
import torch

from tests.cases import layouts
from tests.ops.calls import PARAMETERS, SHAPES, inputs
from whatwhere import implementation
from whatwhere.ops import (
    activate,
    apply_gate,
    cbam,
    cbam_with_gates,
    cpu,
    implementations,
    pool_channels,
    pool_positions,
    two_layers,
)
from whatwhere.ops.reference import CONVOLVE

DTYPES = [torch.float64, torch.float32, torch.bfloat16]
OPTIONS = [
    {},
    {"channel_statistics": ["max"], "spatial_statistics": ["max", "mean"]},
    {"channel_activation": "double_sigmoid", "spatial_statistics": ["mean"]},
    {"spatial_activation": "double_sigmoid", "channel_statistics": ["max", "mean"]},
    {"channel_statistics": ["mean", "std"], "spatial_statistics": ["l2", "max"]},
]
each_option = pytest.mark.parametrize("options", OPTIONS, ids=str)


def prepared(shape, options, **other):
    """x, and all keywords of the operation."""
    maps = len(options.get("spatial_statistics", ("mean", "max")))
    tensors = inputs(shape, maps=maps, **other)
    return tensors["x"], {name: tensors[name] for name in PARAMETERS} | options


def by_hand(x, arguments):
    """Both gates by the equation, one step after the other, in float64."""
    x = x.double()
    w0, b0, w1, b1, wc, bc = (arguments[name].double() for name in PARAMETERS)
    channel = arguments.get("channel_statistics", ("mean", "max"))
    logits = two_layers(pool_positions(x, statistics=channel), w0, b0, w1, b1)
    g = activate(logits, arguments.get("channel_activation", "sigmoid"))
    spatial = arguments.get("spatial_statistics", ("mean", "max"))
    maps = torch.cat(pool_channels(apply_gate(x, g), statistics=spatial), 1)
    logits = CONVOLVE[x.ndim - 2](maps, wc, bc, padding=1)
    return g, activate(logits, arguments.get("spatial_activation", "sigmoid"))


@each_option
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, (0, 4, 3, 3), (1, 3, 1, 1), (3, 17, 1, 11)], ids=str)
def test_output_of_cbam_and_gates_of_the_equation(shape, dtype, options, kernels):
    x, arguments = prepared(shape, options, dtype=dtype, grad=False)
    wide = torch.promote_types(dtype, torch.float32)
    eps = torch.finfo(wide).eps
    for _, view in layouts(x):
        expected = cbam(view, **arguments)
        gates = by_hand(view, arguments)
        for _ in range(2):
            y, *seen = cbam_with_gates(view, **arguments)
            assert torch.equal(y, expected)
            assert y.stride() == expected.stride()
            for gate, wanted in zip(seen, gates, strict=True):
                assert gate.dtype == wide
                assert gate.is_contiguous()
                torch.testing.assert_close(gate.double(), wanted, rtol=64 * eps, atol=64 * eps)
    statistics = options.get("channel_statistics", ["mean"])
    if kernels.unsupported("cbam", x, statistics) is None:
        assert kernels.calls["cbam"] > 0


@each_option
def test_the_specification_keeps_the_same_contract(options, kernels):
    x, arguments = prepared((2, 4, 5, 3), options)
    got = cbam_with_gates(x, **arguments)
    calls = kernels.calls.total()
    with implementation("reference"):
        wanted = cbam_with_gates(x, **arguments)
        assert torch.equal(wanted[0], cbam(x, **arguments))
    assert kernels.calls.total() == calls
    for ours, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-12, atol=1e-12)
        assert ours.requires_grad is other.requires_grad
    assert [each.requires_grad for each in wanted] == [True, False, False]


def test_gradients_are_those_of_cbam_whatever_is_done_to_the_gates(kernels):
    x, arguments = prepared((2, 4, 5, 3), {})
    tensors = [x, *arguments.values()]
    expected = torch.autograd.grad(cbam(x, **arguments).square().sum(), tensors)
    y, *gates = cbam_with_gates(x, **arguments)
    for gate in gates:
        gate.zero_()
    got = torch.autograd.grad(y.square().sum(), tensors)
    assert all(map(torch.equal, got, expected))
    assert kernels.calls["cbam_backward"] == 2


@torch.no_grad()
def test_calls_like_earlier_ones_are_short_and_serve_each_other(monkeypatch):
    options = {"channel_statistics": ["max"], "spatial_statistics": ["max", "mean"]}
    x, arguments = prepared((2, 4, 5, 3), options, dtype=torch.float32)
    taken = []
    for name in ("cbam", "cbam_again", "cbam_again_with_gates"):
        run = getattr(cpu, name)

        def counted(*given, name=name, run=run):
            taken.append(name)
            return run(*given)

        monkeypatch.setattr(cpu, name, counted)
    monkeypatch.setattr("whatwhere.ops.repeated._plans", {})
    monkeypatch.setattr(implementations, "kernels", lambda: (cpu, None))
    first = cbam_with_gates(x, **arguments)
    second = cbam_with_gates(x, **arguments)
    assert torch.equal(cbam(x, **arguments), first[0])
    assert taken == ["cbam", "cbam_again_with_gates", "cbam_again"]
    assert all(map(torch.equal, first, second))


def test_gates_keep_no_more_memory_than_they_need():
    x, arguments = prepared((2, 4, 5, 3), {}, grad=False)
    for gate in cbam_with_gates(x, **arguments)[1:]:
        assert gate.untyped_storage().nbytes() == gate.nbytes


def test_it_refuses_what_cbam_refuses():
    x, arguments = prepared((2, 4, 5, 3), {}, grad=False)
    for change in (
        {"conv_weight": torch.zeros(1, 2, 2, 2)},
        {"channel_statistics": ["mean", "median"]},
        {"spatial_activation": "tanh"},
        {"expand_bias": torch.zeros(3)},
    ):
        messages = []
        for function in (cbam, cbam_with_gates):
            with pytest.raises(ValueError, match="cbam") as caught:
                function(x, **arguments | change)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]
