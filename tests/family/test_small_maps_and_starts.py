"""What every gate does beside its equation: gate(x), small maps, ranks, starts, precision."""

import re

import pytest
import torch

from tests.cases import randomise
from tests.family.table import CASES
from whatwhere import build, names

SHAPES = {1: (2, 64, 9), 2: (2, 64, 7, 6), 3: (2, 64, 8, 5, 4)}
# No last layer to be 0: no parameters at all, or a softmax after the last.
NO_IDENTITY = {"ge", "simam", "ema"}
CLIPS_ONLY = {"ma", "aia", "group_context", "action", "tea", "tab"}
REFUSED_RANKS = {
    *((name, ndim) for name in CLIPS_ONLY for ndim in (1, 2)),
    ("temporal", 2),  # no frames
    ("tam", 2),
    ("fca", 3),  # no published frequencies
}
# Channels that don't fall into halves or quarters.
REFUSED_CHANNELS = {("shuffle", 3), ("group_context", 3)}

every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_name = pytest.mark.parametrize("name", names())


def options(name, shape):
    """What the gate cannot be built without: sizes that its weights are bound to."""
    if name in ("ma", "tab"):
        return {"frames": shape[2]}
    return {"resolution": shape[2:]} if name.startswith("ge_theta") else {}


def built(name, shape, **more):
    return build(name, shape[1], ndim=len(shape) - 2, **options(name, shape), **more)


def says_why(error):
    """The house rule for refusals: what was expected, and what came."""
    return re.search(r"expected .* got ", str(error.value), re.DOTALL)


def shuffled(x):
    return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


def applied(case_name, module_options, x, gate):
    """X with a gate applied, as that gate is meant to be."""
    if case_name == "gc" and module_options.get("fusion", "add") == "add":
        return x + gate
    y = x * gate
    return shuffled(y) if case_name == "shuffle" and module_options.get("shuffle", True) else y


@every_case
def test_gate_is_what_x_is_multiplied_by(case):
    gate = randomise(case.ours()).double().eval()
    x = torch.randn(case.shape, dtype=torch.float64)
    values = gate.gate(x)
    torch.broadcast_shapes(values.shape, x.shape)
    expected = applied(case.name, case.options, x, values)
    torch.testing.assert_close(gate(x), expected, rtol=1e-12, atol=1e-12)


@every_name
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_ranks_work_or_are_refused(name, ndim):
    shape = SHAPES[ndim]
    if (name, ndim) in REFUSED_RANKS:
        with pytest.raises(ValueError, match="ndim") as error:
            built(name, shape)
        assert says_why(error)
        return
    x = torch.randn(shape)
    y = randomise(built(name, shape)).eval()(x)
    assert y.shape == x.shape
    assert y.isfinite().all()
    assert not torch.equal(y, x)


def rank(name):
    return 2 if (name, 2) not in REFUSED_RANKS else 3


@every_name
@pytest.mark.parametrize("channels", [3, 8])
def test_single_positions_and_few_channels(name, channels):
    shape = (2, channels, *(1,) * rank(name))
    x = torch.randn(shape)
    if (name, channels) in REFUSED_CHANNELS:
        with pytest.raises(ValueError, match="channels") as error:
            built(name, shape)
        assert says_why(error)
        return
    gate = randomise(built(name, shape)).eval()
    y = gate(x)
    assert y.shape == x.shape
    assert y.isfinite().all()


@every_name
def test_no_samples_give_no_output(name):
    shape = (0, *SHAPES[rank(name)][1:])
    gate = randomise(built(name, shape)).eval()
    assert gate(torch.randn(shape)).shape == shape


@every_name
def test_identity_start_leaves_x_and_can_learn(name):
    shape = SHAPES[rank(name)]
    if name in NO_IDENTITY:
        with pytest.raises(ValueError, match="start") as error:
            built(name, shape, start="identity")
        assert says_why(error)
        return
    gate = built(name, shape, start="identity")
    x = torch.randn(shape)
    for mode in (False, True):
        assert torch.equal(gate.train(mode)(x), x)
    (gate(x) * torch.randn(shape)).sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in gate.parameters())


# As the authors start their modules: gates of one value, before any training.
STARTS = {"srm": 0.5, "gct": 1.0, "sge": torch.tensor(1.0).sigmoid().item()}


@pytest.mark.parametrize("name", STARTS)
def test_paper_starts_are_the_authors(name):
    x = torch.randn(SHAPES[2])
    gate = build(name, 64).eval().gate(x)
    torch.testing.assert_close(gate, torch.full_like(gate, STARTS[name]))


def test_global_context_starts_by_adding_nothing():
    x = torch.randn(SHAPES[2])
    assert torch.equal(build("gc", 64)(x), x)


def test_shuffle_starts_with_one_weight_and_moves_channels():
    x = torch.randn(SHAPES[2])
    expected = shuffled(x) * torch.tensor(1.0).sigmoid()
    torch.testing.assert_close(build("shuffle", 64).eval()(x), expected)


@every_name
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_maps_have_finite_gradients(name, value):
    shape = SHAPES[rank(name)]
    gate = randomise(built(name, shape))
    x = torch.randn(shape)
    x[0], x[1, :4] = value, value  # as after a ReLU: a whole sample, and some channels
    x.requires_grad_()
    (gate(x) * torch.randn(shape)).sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in gate.parameters())


@every_name
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_the_float32_gate_rounded(name, dtype):
    shape = SHAPES[rank(name)]
    gate = randomise(built(name, shape)).eval().to(dtype)
    x = torch.randn(shape).to(dtype)
    y = gate(x)
    assert y.dtype == dtype
    expected = gate.float()(x.float())
    torch.testing.assert_close(y.float(), expected, rtol=0.02, atol=0.02)


@every_name
def test_casting_there_and_back_leaves_what_is_no_weight(name):
    shape = SHAPES[rank(name)]
    gate = randomise(built(name, shape)).eval().half().float()
    fresh = built(name, shape).eval()
    fresh.load_state_dict(gate.state_dict())
    x = torch.randn(shape)
    assert torch.equal(gate(x), fresh(x))
