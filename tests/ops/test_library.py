"""The raw operations under what compiles, exports, traces, transforms and batches."""

import warnings

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from tests.ops.calls import CALLS, loss, prepared
from whatwhere import implementation, ops
from whatwhere.ops import raw

pytestmark = [
    pytest.mark.usefixtures("kernels"),
    # Of torch's own making: opcheck looks at .grad of what it computed, forward mode at jit.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated"),
]
each_call = pytest.mark.parametrize("name", CALLS)
OPERATORS = torch.ops.whatwhere
OPTIONS = (["max", "mean"], ["mean", "max"], 1.0, 2.0)


def random(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def raw_arguments(form):
    """Arguments of every raw operation; "full" has every optional tensor, "least" none."""
    full = form == "full"
    x, gate, positions = random(2, 4, 3, 5), random(2, 4), random(2, 15)
    if form == "channels_last":
        x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    some, y = ["mean", "max", "std", "l2"], torch.rand_like(x)
    optional = gate if full else None
    parameters = [random(3, 4), random(3), random(4, 3), random(4), random(1, 2, 3, 3), random(1)]
    if not full:
        parameters[1::2] = [None] * 3
    residual, gates = (x, (gate, positions)) if full else (None, (gate, None))
    detached = [None if p is None else p.detach() for p in parameters]
    saved = raw.cbam(x.detach(), *detached, *OPTIONS, None, False)[1]
    own = x.detach().clone()
    still = [None if g is None else g.detach() for g in gates]
    return {
        "pool_positions": (x, some),
        "pool_positions_backward": (random(2, 4, 4), x, raw.pool_positions(x, some).detach(), some),
        "pool_channels": (x, optional, some),
        "pool_channels_backward": (
            random(2, 4, 15),
            x,
            optional,
            raw.pool_channels(x, optional, some).detach(),
            some,
        ),
        "apply_gates": (x, *gates, residual, full),
        "apply_gates_": (own, *still, None, full),
        "apply_gates_backward": (random(2, 4, 3, 5), x, *gates, y if full else None),
        "cbam": (x, *parameters, *OPTIONS, residual, full),
        "cbam_": (own, *detached, *OPTIONS, None, full),
        "cbam_backward": (
            random(2, 4, 3, 5).detach(),
            x.detach(),
            saved,
            *detached,
            *OPTIONS,
            y if full else None,
        ),
    }


@pytest.mark.parametrize("form", ["full", "least", "channels_last"])
@pytest.mark.parametrize("op", raw_arguments("full"))
def test_operators_are_what_their_schemas_and_shape_rules_say(op, form):
    torch.library.opcheck(getattr(OPERATORS, op).default, raw_arguments(form)[op])


def test_the_gradient_of_cbams_backward_is_registered():
    # Not with dynamic shapes: torch's own second derivative of a convolution has none.
    arguments = list(raw_arguments("full")["cbam_backward"])
    tensors = {0, 1, 3, 4, 5, 6, 7, 8}
    given = [a.requires_grad_() if i in tensors else a for i, a in enumerate(arguments)]
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(OPERATORS.cbam_backward.default, tuple(given), test_utils=tests)


@each_call
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_whole_with_gradients(name, dynamic, kernels):
    call, tensors = prepared(name, (2, 4, 3, 4))
    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for size in (3, 5) if dynamic else (3,):
        _, tensors = prepared(name, (2, 4, size, 4))
        kernels.calls.clear()
        got = compiled(*tensors)
        gradients = torch.autograd.grad(loss(got), tensors)
        op = name.partition("-")[0]
        assert kernels.calls[op] == kernels.calls[f"{op}_backward"] == 1
        expected = call(*tensors)
        torch.testing.assert_close(got, expected)
        torch.testing.assert_close(gradients, torch.autograd.grad(loss(expected), tensors))


def test_inductor_keeps_layouts():
    call, tensors = prepared("cbam-plain", (2, 4, 3, 4), dtype=torch.float32)
    x = tensors[0].detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    torch._dynamo.reset()
    y = torch.compile(lambda x, *rest: call(x.sin(), *rest).cos(), fullgraph=True)(x, *tensors[1:])
    torch.testing.assert_close(y, call(x.sin(), *tensors[1:]).cos())
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_compiled_in_place():
    call, (x, *rest) = prepared("cbam-plain", (2, 4, 3, 4), grad=False)
    names = CALLS["cbam-plain"][1]
    torch._dynamo.reset()

    def overwrite(x):
        return ops.cbam(x, **dict(zip(names, rest, strict=True)), inplace=True) + x

    with torch.no_grad():
        own = x.clone()
        y = torch.compile(overwrite, fullgraph=True, backend="aot_eager")(own)
        torch.testing.assert_close(own, call(x, *rest))
    torch.testing.assert_close(y, 2 * own)


class Called(torch.nn.Module):
    def __init__(self, name):
        super().__init__()
        self.call, (self.x, *rest) = prepared(name, (2, 4, 3, 4), grad=False)
        self.rest = rest

    def forward(self, x):
        return self.call(x, *self.rest)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", ["cbam-plain", "pool_channels"])
def test_exported_with_dynamic_sizes(name, strict):
    module = Called(name)
    auto = torch.export.Dim.AUTO
    shapes = ({0: auto, 2: auto, 3: auto},)
    other = torch.randn(3, 4, 6, 7, dtype=torch.float64)
    program = torch.export.export(module, (module.x,), dynamic_shapes=shapes, strict=strict)
    torch.testing.assert_close(program.module()(other), module(other))
    assert "whatwhere" in str(program.graph)
    with implementation("reference"):
        program = torch.export.export(module, (module.x,), dynamic_shapes=shapes, strict=strict)
    torch.testing.assert_close(program.module()(other), module(other))
    assert "whatwhere" not in str(program.graph)


def test_traced_to_plain_torch():
    module = Called("cbam-plain")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and sizes become constants
        traced = torch.jit.trace(module, (module.x,))
    assert not [n for n in traced.graph.nodes() if n.kind().startswith("whatwhere")]
    torch.testing.assert_close(traced(module.x), module(module.x))


def test_onnx_sees_plain_torch(monkeypatch):
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    module = Called("cbam-plain")
    assert "whatwhere" not in str(torch.export.export(module, (module.x,)).graph)


TRANSFORMS = {
    "grad": lambda f, n: torch.func.grad(f, argnums=tuple(range(n))),
    "jacrev": lambda f, _: torch.func.jacrev(f),
    "jacfwd": lambda f, _: torch.func.jacfwd(f),
    "hessian": lambda f, _: torch.func.hessian(f),
    "vmap": lambda f, n: torch.func.vmap(f, in_dims=(0,) * n),
    "vmap of grad": lambda f, n: torch.func.vmap(torch.func.grad(f), in_dims=(0,) * n),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", ["cbam-all", "apply_gates-all", "pool_positions"])
def test_function_transforms(name, transform):
    call, tensors = prepared(name, (1, 2, 3, 2), hidden=2, grad=False)
    if transform.startswith("vmap"):
        tensors = [torch.stack([t, 2 * t, t - 1]) for t in tensors]
    function = TRANSFORMS[transform](lambda *t: loss(call(*t)).square(), len(tensors))
    with implementation("reference"):
        expected = function(*tensors)
    torch.testing.assert_close(function(*tensors), expected)
    torch._dynamo.reset()
    if transform in ("grad", "vmap"):
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*tensors), expected)


def test_forward_mode_derivatives():
    call, tensors = prepared("cbam-all", (1, 2, 3, 2), hidden=2)
    assert torch.autograd.gradcheck(call, tensors, check_forward_ad=True)


@each_call
def test_gradients_in_batches(name, kernels):
    call, tensors = prepared(name, (2, 3, 2, 3), hidden=2)
    outputs = call(*tensors)
    first = outputs[0] if isinstance(outputs, tuple) else outputs
    seeds = torch.randn(4, *first.shape, dtype=first.dtype)
    got = torch.autograd.grad(first, tensors, seeds, is_grads_batched=True, retain_graph=True)
    each = [torch.autograd.grad(first, tensors, seed, retain_graph=True) for seed in seeds]
    torch.testing.assert_close(list(got), [torch.stack(g) for g in zip(*each, strict=True)])


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_operators_batch_by_themselves(shared):
    for op, arguments in raw_arguments("full").items():
        if op.endswith("_"):
            continue
        last = {"cbam": 1, "cbam_backward": 1}.get(op, 99) if shared else 99
        dims = tuple(
            -1 if isinstance(a, torch.Tensor) and i < last else None
            for i, a in enumerate(arguments)
        )
        batched = [
            a if d is None else torch.stack([a.detach(), a.detach() * 0.5], -1)
            for a, d in zip(arguments, dims, strict=True)
        ]
        operator = getattr(OPERATORS, op)
        got = torch.func.vmap(operator, in_dims=dims)(*batched)
        for index in range(2):
            alone = [
                a if d is None else a.select(-1, index) for a, d in zip(batched, dims, strict=True)
            ]
            wanted = operator(*alone)
            values = got if isinstance(got, tuple) else (got,)
            expected = wanted if isinstance(wanted, tuple) else (wanted,)
            for value, reference in zip(values, expected, strict=True):
                torch.testing.assert_close(value[index], reference)


def test_modes_see_what_is_computed():
    call, tensors = prepared("cbam-all", (2, 4, 3, 4))
    with FlopCounterMode(display=False) as counter:
        call(*tensors)
    assert counter.get_total_flops() > 0

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func.namespace)
            return func(*args, **kwargs or {})

    seen = []
    y = call(*tensors)
    with Names():
        loss(y).backward()
    assert "whatwhere" in seen  # recorded as the operator, so differentiated by it


def test_the_profiler_sees_the_operator():
    call, tensors = prepared("cbam-plain", (2, 4, 3, 4))
    with torch.autograd.profiler.profile() as profile:
        call(*tensors)
    assert any(event.name == "whatwhere::cbam" for event in profile.function_events)
