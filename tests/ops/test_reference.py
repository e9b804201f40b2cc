"""The specification itself, against values worked out by hand and against numpy."""

import numpy as np
import pytest
import torch

from tests.cases import ALL_SHAPES, layouts
from whatwhere.ops import accumulation_dtype, activate, apply_gate, pool


@pytest.mark.parametrize("shape", ALL_SHAPES)
def test_pool_equals_numpy_over_every_set_of_axes(shape):
    x = torch.randn(shape, dtype=torch.float64)
    positions = tuple(range(2, len(shape)))
    for axes in [positions, (1,), (1, *positions[1:])]:
        for layout, view in layouts(x):
            mean, maximum = pool(view, axes, ["mean", "max"])
            expected = x.numpy()
            np.testing.assert_allclose(mean, expected.mean(axes, keepdims=True), rtol=1e-13)
            np.testing.assert_array_equal(
                maximum, expected.max(axes, keepdims=True), err_msg=layout
            )


def test_statistics_come_in_the_order_asked():
    x = torch.tensor([[[0.0, 4.0]]])
    assert [float(d) for d in pool(x, [2], ["max", "mean"])] == [4.0, 2.0]


def test_first_maximum_takes_the_whole_gradient():
    x = torch.zeros(1, 1, 2, 3, requires_grad=True)
    with torch.no_grad():
        x[0, 0, 0, 2] = x[0, 0, 1, 0] = 1.0
    (maximum,) = pool(x, [2, 3], ["max"])
    (gradient,) = torch.autograd.grad(maximum.sum(), x)
    assert gradient.flatten().tolist() == [0, 0, 1, 0, 0, 0]


def test_first_maximum_is_row_major_in_the_logical_tensor_whatever_the_layout():
    x = torch.ones(1, 4, 3, 3).contiguous(memory_format=torch.channels_last).requires_grad_()
    for axes, expected in [((2, 3), (0, slice(None), 0, 0)), ((1,), (0, 0))]:
        (maximum,) = pool(x, axes, ["max"])
        (gradient,) = torch.autograd.grad(maximum.sum(), x)
        wanted = torch.zeros_like(x)
        wanted[expected] = 1
        assert torch.equal(gradient, wanted)


def test_nan_reaches_mean_and_max_of_its_set_alone():
    x = torch.zeros(1, 2, 3)
    x[0, 1, 2] = torch.nan
    for descriptor in pool(x, [2], ["mean", "max"]):
        assert descriptor.flatten().isnan().tolist() == [False, True]


def test_infinity_is_a_maximum():
    x = torch.tensor([[[-torch.inf, 1.0], [torch.inf, 1.0]]])
    assert pool(x, [2], ["max"])[0].flatten().tolist() == [1.0, torch.inf]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_accumulates_in_float32(dtype):
    x = torch.full((1, 1, 10_000), 1.0, dtype=dtype)
    x[..., 0] = 500
    (mean,) = pool(x, [2], ["mean"])
    assert mean.dtype == torch.float32
    assert mean.item() == pytest.approx(1.0499, rel=1e-6)  # bfloat16 would give 1.046875


def test_accumulation_dtype_keeps_wider_types():
    assert accumulation_dtype(torch.float64) == torch.float64


def test_pooling_nothing_is_refused():
    with pytest.raises(ValueError, match=r"at least one element .* got x of shape \(2, 3, 0\)"):
        pool(torch.zeros(2, 3, 0), [2], ["mean"])


def test_activations():
    z = torch.tensor([-2.0, 0.0, 3.0])
    assert torch.equal(activate(z, "identity"), z)
    torch.testing.assert_close(activate(z, "sigmoid"), 1 / (1 + (-z).exp()))
    torch.testing.assert_close(activate(z, "double_sigmoid"), 2 / (1 + (-z).exp()))


def test_apply_gate_keeps_the_dtype_of_x():
    y = apply_gate(torch.ones(1, 2, 3, dtype=torch.bfloat16), torch.full((1, 2, 1), 0.3))
    assert y.dtype == torch.bfloat16
