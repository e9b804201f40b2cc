"""CBAM in one operation: where it is taken, where it must not be, and that it changes nothing."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from tests.cases import randomise
from whatwhere import CBAM, ChannelAttention, Gate, Seq, SpatialAttention, implementation
from whatwhere.gates import DIALECTS, Activation, DenseMix, PositionConv

SHAPE = (2, 8, 5, 4)
INNER = ["gates.channel", "gates.spatial"] + [
    f"gates.{name}"
    for name in (
        "channel.mix",
        "channel.activation",
        "spatial.mix",
        "spatial.mix.norm",
        "spatial.activation",
    )
]


def gate(dialect="official", **options):
    options = {"reduction_ratio": 2, "kernel_size": 3, "dialect": dialect, **options}
    return randomise(CBAM(8, **options)).double().eval()


def run(module, x):
    """Output and all gradients of a call."""
    x = x.detach().requires_grad_()
    y = module(x)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    tensors = [x, *module.parameters()]
    return y, torch.autograd.grad((y * weights).sum(), tensors)


@pytest.mark.parametrize("start", ["paper", "identity"])
@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_one_operation_gives_what_the_modules_give(dialect, ndim, start, kernels):
    if dialect == "external" and start == "identity":
        pytest.skip("a dialect that adds x has no identity start")
    module = gate(dialect, ndim=ndim, start=start)
    x = torch.randn(2, 8, *(5, 4, 3)[:ndim], dtype=torch.float64)
    got = run(module, x)
    assert kernels.calls == {"cbam": 1, "cbam_backward": 1}
    module.gates.channel.register_forward_hook(lambda *_arguments: None)
    with implementation("reference"):
        wanted = run(module, x)
    assert sum(kernels.calls.values()) == 2
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("name", INNER)
@pytest.mark.parametrize("kind", ["forward", "pre", "backward"])
def test_hooks_inside_are_called(name, kind, kernels):
    if kind == "backward" and name.endswith(".mix"):
        pytest.skip("torch calls no backward hook where the input is a list")
    module, x = gate(), torch.randn(SHAPE, dtype=torch.float64)
    expected = run(module, x)
    inner, seen = module.get_submodule(name), []

    def hook(*_arguments):
        seen.append(name)

    if kind == "forward":
        inner.register_forward_hook(hook)
    elif kind == "pre":
        inner.register_forward_pre_hook(hook)
    else:
        inner.register_full_backward_hook(hook)
    kernels.calls.clear()
    torch.testing.assert_close(run(module, x), expected)
    assert kernels.calls["cbam"] == 0
    assert len(seen) == 1


def test_hooks_for_all_modules_are_called():
    module, x, seen = gate(), torch.randn(SHAPE, dtype=torch.float64), []
    handle = nn.modules.module.register_module_forward_hook(lambda m, _i, _o: seen.append(m))
    try:
        module(x)
    finally:
        handle.remove()
    assert module.gates.spatial.activation in seen


class OwnActivation(Activation):
    def forward(self, logits):
        return 2 * super().forward(logits)


class OwnMix(DenseMix):
    def forward(self, descriptors):
        return 2 * super().forward(descriptors)


class OwnGate(ChannelAttention):
    def gate(self, x):
        return 0.5 * super().gate(x)


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def subclass_mix(module):
    module.gates.channel.mix.__class__ = OwnMix


def replace_activation(module):
    module.gates.channel.activation = OwnActivation("sigmoid")


def parametrise(module):
    parametrize.register_parametrization(module.gates.spatial.mix.conv, "weight", Doubled())


def own_forward(module):
    mix = module.gates.channel.mix
    mix.forward = lambda descriptors: 3 * DenseMix.forward(mix, descriptors)


def subclass_gate(module):
    module.gates.channel.__class__ = OwnGate


def train_norm(module):
    module.gates.spatial.mix.norm.train()


CHANGES = [
    subclass_mix,
    replace_activation,
    parametrise,
    own_forward,
    subclass_gate,
    train_norm,
]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_modules_are_not_passed_by(change, kernels):
    module, x = gate(), torch.randn(SHAPE, dtype=torch.float64)
    before = module(x)
    assert kernels.calls["cbam"] == 1
    change(module)
    norm = copy.deepcopy(module.gates.spatial.mix.norm)
    y = module(x)
    assert kernels.calls["cbam"] == 1
    assert not torch.allclose(y, before)
    module.gates.spatial.mix.norm = norm  # in training its statistics have moved
    parts = module.gates
    by_hand = parts.channel(x)
    torch.testing.assert_close(y, parts.spatial(by_hand))


def test_a_norm_in_training_moves_its_statistics(kernels):
    module = gate().train()
    before = module.gates.spatial.mix.norm.running_mean.clone()
    run(module, torch.randn(SHAPE, dtype=torch.float64))
    assert not torch.equal(module.gates.spatial.mix.norm.running_mean, before)
    assert kernels.calls["cbam"] == 0
    assert kernels.calls["pool_channels"] == kernels.calls["apply_gates"] == 1


def test_x_that_gates_refuse_is_refused_in_their_words():
    module = gate("paper")
    for x, message in [
        (torch.zeros(2, 6, 3, 3).double(), r"ChannelAttention: expected 8 channels"),
        (torch.zeros(2, 8, 3, 3), r"ChannelAttention: expected x of the parameters' dtype"),
        (torch.zeros(2, 8, 3).double(), r"SpatialAttention: expected x of shape"),
        (torch.zeros(2, 8, 0, 3).double(), r"ChannelAttention: expected at least one element"),
    ]:
        with pytest.raises(ValueError, match=message):
            module(x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_networks_with_a_folded_norm(dtype, kernels):
    module, x = gate(), torch.randn(SHAPE, dtype=torch.float64)
    x = x.to(dtype)
    y = module.to(dtype)(x)
    assert kernels.calls["cbam"] == 1
    assert y.dtype == dtype
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(y.double(), module.double()(x.double()), rtol=eps, atol=eps)


def test_parameters_may_be_given_by_functional_call(kernels):
    module, x = gate(), torch.randn(SHAPE, dtype=torch.float64)
    other = {name: 2 * p.detach() for name, p in module.named_parameters()}
    got = torch.func.functional_call(module, other, (x,))
    assert kernels.calls["cbam"] == 1
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(other[name])
    torch.testing.assert_close(got, module(x))


# order -> how often x is written: gates wait for the next where that can do without the product
ORDERS = {"channel-spatial-temporal": 2, "spatial-channel": 2, "temporal-spatial-channel": 3}


@pytest.mark.parametrize("order", ORDERS)
def test_gates_wait_to_be_applied_together(order, kernels):
    module = gate("paper", ndim=3, order=order)
    x = torch.randn(2, 8, 3, 5, 4, dtype=torch.float64)
    got = run(module, x)
    assert kernels.calls["apply_gates"] == ORDERS[order]

    class ByHand(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = module

        def forward(self, x):
            for part in self.module.gates.children():
                x = x * part.gate(x)
            return x

    torch.testing.assert_close(got, run(ByHand(), x))
    torch.testing.assert_close(got[0], x * module.gate(x))


def test_other_statistics_take_the_parts(kernels):
    style = Seq(
        what=Gate(keep="C", statistics=["mean", "std"], mix=DenseMix(8, hidden=2, bias=True)),
        where=Gate(keep="S", statistics=["l2", "max"], mix=PositionConv(2, ndim=2, kernel_size=3)),
    )
    style = randomise(style).double()
    x = torch.randn(SHAPE, dtype=torch.float64)
    got = run(style, x)
    assert kernels.calls["cbam"] == 0
    assert kernels.calls["pool_positions"] == kernels.calls["pool_channels"] == 1
    with implementation("reference"):
        torch.testing.assert_close(run(style, x), got)


def test_single_gates_pool_and_apply_once(kernels):
    x = torch.randn(SHAPE)
    ChannelAttention(8)(x)
    SpatialAttention()(x)
    assert kernels.calls == {"pool_positions": 1, "pool_channels": 1, "apply_gates": 2}


def test_compiled_whole_and_exported(kernels):
    module, x = gate(), torch.randn(SHAPE, dtype=torch.float64)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(run(compiled, x), run(module, x))
    auto = torch.export.Dim.AUTO
    program = torch.export.export(module, (x,), dynamic_shapes=({0: auto, 2: auto, 3: auto},))
    other = torch.randn(3, 8, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(program.module()(other), module(other))
    assert "whatwhere.cbam" in str(program.graph)


def test_copies_and_state_dicts_are_as_ever(kernels):
    module, x = gate(), torch.randn(SHAPE, dtype=torch.float64)
    before = set(vars(module.gates))
    y = module(x)
    assert set(vars(module.gates)) == before
    torch.testing.assert_close(copy.deepcopy(module)(x), y)
