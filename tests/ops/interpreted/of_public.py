"""The public operations on Triton's kernels: with autograd, compiled, at any strides."""

import pytest
import torch

from tests.cases import layouts
from tests.ops.calls import CALLS, loss, prepared
from whatwhere import implementation

SHAPES = [(2, 4, 5), (2, 4, 3, 4), (2, 4, 2, 3, 2)]


def gradients(call, tensors):
    outputs = call(*tensors)
    return outputs, torch.autograd.grad(loss(outputs), tensors)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_values_and_gradients_are_the_specifications(name, shape, kernels):
    call, tensors = prepared(name, shape, dtype=torch.float32)
    for _, x in layouts(tensors[0].detach()):
        given = [x.requires_grad_(), *tensors[1:]]
        with implementation("reference"):
            expected = gradients(call, given)
        torch.testing.assert_close(gradients(call, given), expected, rtol=1e-5, atol=1e-5)
    op = name.partition("-")[0]
    assert kernels.calls[op] == kernels.calls[f"{op}_backward"] > 0


@pytest.mark.parametrize("name", CALLS)
def test_compiled(name, kernels):
    call, tensors = prepared(name, (2, 4, 3, 4), dtype=torch.float32)
    expected = gradients(call, tensors)
    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(gradients(compiled, tensors), expected, rtol=0, atol=0)
    assert kernels.calls[name.partition("-")[0]] == 2


@pytest.mark.parametrize("name", CALLS)
def test_the_same_bits_again(name, kernels):
    call, tensors = prepared(name, (2, 4, 3, 4), dtype=torch.float32)
    torch.testing.assert_close(gradients(call, tensors), gradients(call, tensors), rtol=0, atol=0)
    assert kernels.calls
