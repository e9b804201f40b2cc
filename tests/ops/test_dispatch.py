"""The public operations through the raw ones: the specification's values, whoever runs them."""

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from tests.cases import layouts
from tests.ops.calls import CALLS, SHAPES, inputs, loss, prepared
from whatwhere import implementation, ops

pytestmark = pytest.mark.usefixtures("kernels")
each_call = pytest.mark.parametrize("name", CALLS)


def gradients(call, tensors):
    outputs = call(*tensors)
    return outputs, torch.autograd.grad(loss(outputs), tensors)


@each_call
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_are_the_specifications(name, shape, kernels):
    call, tensors = prepared(name, shape)
    for _, x in layouts(tensors[0].detach()):
        given = [x.requires_grad_(), *tensors[1:]]
        y, got = gradients(call, given)
        with implementation("reference"):
            expected, wanted = gradients(call, given)
        torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)
    op = name.partition("-")[0]
    assert kernels.calls[op] == kernels.calls[f"{op}_backward"] > 0


@each_call
def test_derivatives_of_first_and_second_order_are_right(name):
    call, tensors = prepared(name, (2, 3, 2, 3), hidden=2)
    assert torch.autograd.gradcheck(call, tensors)
    assert torch.autograd.gradgradcheck(call, tensors)


@each_call
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_and_rounded_once(name, dtype):
    call, tensors = prepared(name, (2, 4, 5, 3), dtype=dtype)
    y, got = gradients(call, tensors)
    wide = [tensor.detach().double().requires_grad_() for tensor in tensors]
    expected, _ = gradients(call, wide)
    outputs = y if isinstance(y, tuple) else (y,)
    references = expected if isinstance(expected, tuple) else (expected,)
    for output, reference in zip(outputs, references, strict=True):
        eps = torch.finfo(output.dtype).eps
        torch.testing.assert_close(output.double(), reference, rtol=eps, atol=8 * eps)
    assert [g.dtype for g in got] == [dtype] * len(tensors)


@pytest.mark.parametrize("name", [name for name in CALLS if name[:4] != "pool"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_outputs_have_the_layout_of_x(name, shape):
    call, tensors = prepared(name, shape, grad=False)
    for layout, x in layouts(tensors[0]):
        y = call(x, *tensors[1:])
        expected = torch.contiguous_format
        if layout == "channels_last":
            expected = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
        assert y.is_contiguous(memory_format=expected)


@each_call
def test_an_empty_batch_has_empty_results_and_zero_gradients(name):
    call, tensors = prepared(name, (0, 4, 3, 3))
    outputs = call(*tensors)
    for output in outputs if isinstance(outputs, tuple) else (outputs,):
        assert output.shape[0] == 0
    for tensor, gradient in zip(tensors, torch.autograd.grad(loss(outputs), tensors), strict=True):
        assert gradient.shape == tensor.shape
        assert not gradient.any()


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 4, 3, 2, 3)], ids=str)
def test_frames_send_the_gradient_to_the_first_maximum(shape):
    x = torch.ones(shape, dtype=torch.float64)
    for _, view in layouts(x):
        given = view.requires_grad_()
        (maximum,) = ops.pool_frames(given, statistics=["max"])
        (gradient,) = torch.autograd.grad(maximum.sum(), given)
        wanted = torch.zeros_like(x)
        wanted[(slice(None), 0, slice(None)) + (0,) * (x.ndim - 3)] = 1
        assert torch.equal(gradient, wanted)


@pytest.mark.parametrize("statistics", [("max", "mean"), ("std", "max")])
def test_frames_are_the_specifications(statistics):
    x = torch.randn(2, 4, 3, 2, 5, dtype=torch.float64)
    for _, view in layouts(x):
        got = ops.pool_frames(view, statistics=statistics)
        torch.testing.assert_close(got, ops.pool(x, [1, 3, 4], statistics))


@pytest.mark.parametrize("name", ["cbam-all", "apply_gates-all"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_output_may_overwrite_x_where_nothing_is_recorded(name, mode):
    function, names, options = CALLS[name]
    tensors = inputs((2, 4, 3, 4), grad=False)
    others = {each: tensors[each] for each in names}
    for _, x in layouts(tensors["x"]):
        with mode():
            own = x.clone() if x.is_contiguous() else x
            expected = function(own, **others, **options)
            version = None if own.is_inference() else own._version
            y = function(own, **others, **options, inplace=True)
            assert y is own
            assert torch.equal(y, expected)
            assert version is None or own._version > version
    with pytest.raises(ValueError, match=r"inplace=True only under torch.no_grad"):
        function(tensors["x"], **others, **options, inplace=True)


def test_only_x_and_small_tensors_are_kept_for_the_backward(kernels):
    call, tensors = prepared("cbam-plain", (2, 128, 40, 40), dtype=torch.float32, hidden=4)
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = call(*tensors)
    assert kernels.calls["cbam"] == 1
    x = tensors[0]
    assert x.nbytes <= sum(kept.values()) <= 1.05 * x.nbytes
    assert y.requires_grad


@each_call
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_activation_checkpointing(name, use_reentrant):
    call, tensors = prepared(name, (2, 4, 3, 4))
    loss(checkpoint(call, *tensors, use_reentrant=use_reentrant)).backward()
    _, wanted = gradients(call, tensors)
    torch.testing.assert_close([tensor.grad for tensor in tensors], list(wanted))


@each_call
def test_under_autocast_nothing_changes(name):
    call, tensors = prepared(name, (2, 4, 3, 4), dtype=torch.float32)
    expected = gradients(call, tensors)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = call(*tensors)
    got = outputs, torch.autograd.grad(loss(outputs), tensors)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_parameters_may_be_half_where_x_is_not():
    call, tensors = prepared("cbam-all", (2, 4, 3, 4), dtype=torch.float32)
    mixed = [t.detach().bfloat16().requires_grad_() for t in tensors[1:-1]]
    given = [tensors[0], *mixed, tensors[-1]]
    y, got = gradients(call, given)
    wide = [t.detach().float().requires_grad_() for t in given]
    expected, _ = gradients(call, wide)
    torch.testing.assert_close(y, expected)
    assert [g.dtype for g in got] == [t.dtype for t in given]


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        call, (_, *values) = prepared("cbam-plain", (2, 4, 3, 3), dtype=torch.float32)
        self.call = call
        self.values = torch.nn.ParameterList(values)

    def forward(self, x):
        return self.call(x, *self.values)


def test_distributed_data_parallel(tmp_path, kernels):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        block, x = Block(), torch.randn(2, 4, 3, 3)
        loss(block(x)).backward()
        wanted = [p.grad.clone() for p in block.parameters()]
        block.zero_grad()
        loss(DistributedDataParallel(block)(x)).backward()
    finally:
        torch.distributed.destroy_process_group()
    torch.testing.assert_close([p.grad for p in block.parameters()], wanted)
    assert kernels.calls["cbam_backward"] == 2


def test_a_part_of_the_gradients_may_be_asked_for():
    call, tensors = prepared("cbam-all", (2, 4, 3, 4))
    for tensor in tensors:
        alone = [t.detach().requires_grad_(t is tensor) for t in tensors]
        own = next(t for t in alone if t.requires_grad)
        (got,) = torch.autograd.grad(loss(call(*alone)), own)
        (wanted,) = torch.autograd.grad(loss(call(*tensors)), tensor)
        torch.testing.assert_close(got, wanted)


X = torch.zeros(2, 4, 3, 3)
CHANNEL = torch.zeros(2, 4, 1, 1)
CBAM = {
    "reduce_weight": torch.zeros(2, 4),
    "expand_weight": torch.zeros(4, 2),
    "conv_weight": torch.zeros(1, 2, 3, 3),
}
BAD = [
    (lambda: ops.pool_positions(X[0, 0], statistics=["mean"]), r"got \(3, 3\)"),
    (lambda: ops.pool_positions(X, statistics=["mode"]), r"'std', 'l2', got 'mode'"),
    (lambda: ops.pool_channels(X, statistics="max"), r"distinct names, got 'max'"),
    (lambda: ops.pool_channels(X[:, :0], statistics=["max"]), r"at least one element"),
    (
        lambda: ops.pool_channels(X, statistics=["max"], channel_gate=CHANNEL[:1]),
        r"channel_gate of shape \(2, 4, 1, 1\) .* got \(1, 4, 1, 1\)",
    ),
    (lambda: ops.pool_frames(X, statistics=["max"]), r"\(N, C, L\) or \(N, C, T, H, W\), got"),
    (lambda: ops.apply_gates(X, spatial_gate=CHANNEL), r"spatial_gate of shape \(2, 1, 3, 3\)"),
    (lambda: ops.apply_gates(X, temporal_gate=CHANNEL), r"temporal_gate of shape \(2, 1, 3, 1\)"),
    (lambda: ops.apply_gates(X, residual=X[:1]), r"residual like x"),
    (lambda: ops.apply_gates(X, residual=X.half()), r"residual like x, .*float16"),
    (lambda: ops.apply_gates(X, activation="gelu"), r"'relu', None, got 'gelu'"),
    (lambda: ops.apply_gates(X, inplace=True), r"only under torch.no_grad"),
    (lambda: ops.cbam(X[:, :3], **CBAM), r"expected reduce_weight \(hidden, C\)"),
    (lambda: ops.cbam(X, **CBAM | {"conv_weight": torch.zeros(1, 2, 3, 4)}), r"of odd K"),
    (lambda: ops.cbam(X, **CBAM, spatial_statistics=["max"]), r"conv_weight \(1, 1, \*K\)"),
    (lambda: ops.cbam(X, **CBAM, expand_bias=torch.zeros(2)), r"expand_bias \(2,\)"),
    (lambda: ops.cbam(X.double(), **CBAM), r"parameters of x's dtype torch.float64"),
    (lambda: ops.cbam(X, **CBAM, channel_activation="identity"), r"got 'identity'"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_arguments_are_refused_in_words(call, message):
    with pytest.raises(ValueError, match=message):
        call()
