"""Memory for results has the layout of x, and asking for large pages changes nothing else."""

import pytest
import torch

from whatwhere import CBAM
from whatwhere.ops import apply_gates
from whatwhere.ops.cpu import outputs
from whatwhere.ops.cpu.cbam import plan as cbam_plan
from whatwhere.ops.cpu.primitives import _plan as primitives_plan


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (0, 3, 5, 7), (4, 64, 64, 64)], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_results_are_laid_out_as_x_is(shape, layout):
    x = torch.zeros(shape).contiguous(memory_format=layout)
    y = outputs.large_like(x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    if x.numel() > 0:  # without elements every layout is contiguous
        assert y.is_contiguous(memory_format=layout)


def test_only_whole_pages_inside_the_result_are_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(outputs, "_advise", lambda: lambda *arguments: asked.append(arguments))
    for megabytes in (1, 3, 5, 9):
        asked.clear()
        y = outputs.large_like(torch.empty(1, megabytes * 2**18))
        pages = y.nbytes // outputs.PAGE
        for start, size, _ in asked:
            assert start % outputs.PAGE == size % outputs.PAGE == 0
            assert y.data_ptr() <= start
            assert start + size <= y.data_ptr() + y.nbytes
        assert sum(size for _, size, _ in asked) in (
            max(0, pages - 1) * outputs.PAGE,
            pages * outputs.PAGE,
        )


def test_works_where_there_is_no_such_call(monkeypatch):
    monkeypatch.setattr(outputs, "_advise", lambda: None)
    assert outputs.large_like(torch.zeros(1, 2**20)).shape == (1, 2**20)


@pytest.fixture
def small_cache(monkeypatch):
    """Every result is larger than half the last cache."""
    monkeypatch.setattr(outputs, "last_cache", lambda: 0)
    plans = cbam_plan, primitives_plan
    for plan in plans:
        plan.cache_clear()
    yield
    for plan in plans:
        plan.cache_clear()


def _everything(shape, layout, dtype):
    generator = torch.Generator().manual_seed(0)
    channels, ndim = shape[1], len(shape) - 2
    x, dy, residual = (
        torch.randn(shape, generator=generator).to(dtype).contiguous(memory_format=layout)
        for _ in range(3)
    )
    gate = CBAM(channels, reduction_ratio=4, kernel_size=3, ndim=ndim).to(dtype)
    for parameter in gate.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    x.requires_grad_()
    y = gate(x)
    gradients = torch.autograd.grad(y, [x, *gate.parameters()], dy)
    weights = torch.rand(shape[:2], generator=generator).to(dtype).view(*shape[:2], *[1] * ndim)
    applied = apply_gates(x, channel_gate=weights, residual=residual, activation="relu")
    return y, *gradients, applied


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(3, 32, 8, 12), (1, 64, 4, 48), (2, 32, 48, 64)], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_past_the_caches_or_not_the_bits_are_the_same(shape, layout, dtype, request):
    wanted = _everything(shape, layout, dtype)
    request.getfixturevalue("small_cache")
    assert outputs.goes_past(32, 32, dtype) == (dtype != torch.bfloat16)
    for got, want in zip(_everything(shape, layout, dtype), wanted, strict=True):
        assert torch.equal(got, want)
        assert got.stride() == want.stride()
