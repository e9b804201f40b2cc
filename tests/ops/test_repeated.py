"""A call like an earlier one takes the short way, and only then; its result is the same."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import CountingKernels
from whatwhere import CBAM, implementation
from whatwhere.ops import cbam, cpu, implementations, repeated

OPTIONS = [
    {},
    {"residual": True},
    {"residual": True, "activation": "relu"},
    {"activation": "relu", "inplace": True},
    {"channel_statistics": ["max", "mean"], "spatial_statistics": ["max"]},
    {"channel_activation": "double_sigmoid", "bias": True},
]


@pytest.fixture
def kernels(monkeypatch):
    counting = CountingKernels(cpu)
    monkeypatch.setattr(implementations, "kernels", lambda: (counting, None))
    monkeypatch.setattr(repeated, "_plans", {})
    return counting


def arguments(shape=(2, 8, 5, 6), dtype=torch.float32, **options):
    channels, maps = shape[1], len(options.get("spatial_statistics", "ab"))
    tensors = {
        "reduce_weight": torch.randn(3, channels),
        "expand_weight": torch.randn(channels, 3),
        "conv_weight": torch.randn(1, maps, *(3,) * (len(shape) - 2)),
    }
    if options.pop("bias", False):
        tensors |= {"reduce_bias": torch.randn(3), "conv_bias": torch.randn(1)}
    if options.pop("residual", False):
        options["residual"] = torch.randn(shape, dtype=dtype)
    return torch.randn(shape, dtype=dtype), tensors | options


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@torch.no_grad()
def test_the_second_call_gives_the_same_bits(options, dtype, layout, kernels):
    x, others = arguments(dtype=dtype, **options)
    x = x.contiguous(memory_format=layout)
    if "residual" in others:
        others["residual"] = others["residual"].contiguous(memory_format=layout)
    inplace = others.get("inplace", False)
    outputs = [cbam(x.clone(), **others) for _ in range(2)]
    assert torch.equal(*outputs)
    assert outputs[0].stride() == outputs[1].stride() == x.stride()
    assert kernels.calls == {"cbam_" if inplace else "cbam": 1, "plan_again": 1, "cbam_again": 1}


def test_writing_over_x_is_noticed_by_autograd(kernels):
    x, others = arguments(inplace=True)
    with torch.no_grad():
        for version in (1, 2):
            assert cbam(x, **others) is x
            assert x._version == version
    assert kernels.calls["cbam_again"] == 1
    with pytest.raises(ValueError, match="inplace"):
        cbam(x, **others)


def _watched():
    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            return func(*args, **({} if kwargs is None else kwargs))

    return Mode()


@pytest.mark.parametrize(
    "circumstances",
    [
        lambda: implementation("reference"),
        lambda: implementation("cpu"),
        torch.profiler.profile,
        _watched,
    ],
    ids=["reference", "cpu", "profiler", "mode"],
)
@torch.no_grad()
def test_where_somebody_watches_the_long_way_is_taken(circumstances, kernels):
    x, others = arguments()
    expected = cbam(x, **others)
    with circumstances():
        torch.testing.assert_close(cbam(x, **others), expected)
    assert kernels.calls["cbam_again"] == 0
    assert torch.equal(cbam(x, **others), expected)
    assert kernels.calls["cbam_again"] == 1


def test_gradients_take_the_long_way(kernels):
    x, others = arguments()
    cbam(x, **others)
    expected = cbam(x, **others)
    assert kernels.calls["cbam_again"] == 1  # nothing asks for a gradient
    others["conv_weight"].requires_grad_()
    assert cbam(x, **others).requires_grad
    with torch.no_grad():
        assert not cbam(x, **others).requires_grad
        assert torch.equal(cbam(x, **others), expected)
    assert kernels.calls["cbam"] == 3


@torch.no_grad()
def test_what_changed_is_looked_at_anew(kernels):
    gate = CBAM(8, reduction_ratio=2, kernel_size=3).eval()
    x = torch.randn(2, 8, 5, 6)
    for _ in range(2):
        gate(x)
    for changed in (x[:1], x[..., :4], x.transpose(2, 3), x.bfloat16()):
        with implementation("reference"):
            expected = gate(changed)
        torch.testing.assert_close(gate(changed), expected)
        torch.testing.assert_close(gate(changed), expected)
    gate.double()
    with implementation("reference"):
        expected = gate(x.double())
    torch.testing.assert_close(gate(x.double()), expected)
    x, others = arguments()
    for _ in range(2):
        cbam(x, **others)
    with pytest.raises(ValueError, match="odd"):
        cbam(x, **others | {"conv_weight": torch.zeros(1, 2, 2, 2)})
    with pytest.raises(ValueError, match="residual"):
        cbam(x, **others, residual=torch.zeros(1))


@torch.no_grad()
def test_what_the_kernels_would_copy_is_not_remembered(kernels):
    x, others = arguments()
    others["expand_weight"] = torch.randn(3, 8).T
    expected = cbam(x, **others)
    assert torch.equal(cbam(x, **others), expected)
    assert kernels.calls["cbam_again"] == 0


@torch.no_grad()
def test_weights_of_a_channels_last_network_are_taken_as_they_are(kernels):
    gate = CBAM(8, reduction_ratio=2, kernel_size=3).eval()
    x = torch.randn(2, 8, 5, 6)
    expected = gate(x)
    kernels.calls.clear()
    gate.to(memory_format=torch.channels_last)
    assert not gate.gates.spatial.mix.conv.weight.is_contiguous()
    for _ in range(2):
        assert torch.equal(gate(x), expected)
    assert kernels.calls["cbam_again"] == 1


def test_gradients_of_weights_in_any_strides():
    x, others = arguments()
    dense = others["conv_weight"].requires_grad_()
    expected = torch.autograd.grad(cbam(x, **others).square().sum(), dense)
    for strides in ((2, 1, 6, 2), (1, 9, 1, 3), (40, 20, 6, 2)):
        weight = torch.empty_strided(dense.shape, strides).copy_(dense.detach()).requires_grad_()
        got = torch.autograd.grad(
            cbam(x, **others | {"conv_weight": weight}).square().sum(), weight
        )
        assert torch.equal(*got, *expected)


@torch.no_grad()
def test_memory_of_calls_is_bounded(kernels, monkeypatch):
    monkeypatch.setattr(repeated, "LIMIT", 3)
    for side in range(2, 12):
        x, others = arguments((1, 8, side, side))
        cbam(x, **others)
        assert len(repeated._plans) <= 3
    assert kernels.calls["plan_again"] == 10
