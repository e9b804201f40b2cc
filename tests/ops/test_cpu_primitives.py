"""What the shapes and values of ``test_cpu_correct`` leave out of the primitives' kernels."""

from itertools import product

import pytest
import torch

from tests.ops import examples
from tests.ops.checker import check, run
from tests.ops.examples import layouts
from whatwhere.ops import raw

pytest.importorskip("numba")
cpu = pytest.importorskip("whatwhere.ops.cpu")

ALL = ("std", "max", "l2", "mean")
# More positions than a tile, a block of a sum and a share of a thread; channels likewise.
LARGE = [(2, 21, 67, 71), (1, 1100, 13, 13), (2, 3, 9000), (3, 40, 5, 9, 16)]


def cases(shape, layout, dtype=torch.float32, statistics=(ALL,)):
    common = {"layout": layout, "dtype": dtype}
    for chosen in statistics:
        yield examples.pool_positions(shape, statistics=chosen, **common)
        for gated in (False, True):
            yield examples.pool_channels(shape, statistics=chosen, gated=gated, **common)
    for relu in (False, True):
        yield examples.apply_gates(shape, residual=relu, relu=relu, **common)
        yield examples.apply_gates(shape, gates=("channel",), residual=relu, relu=relu, **common)


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_more_than_one_tile(shape):
    for layout in layouts(shape):
        for case in cases(shape, layout):
            check(case, run(cpu, case))


@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_the_number_of_threads_changes_no_bit(shape, threads):
    for layout in layouts(shape):
        for case in cases(shape, layout):
            results = run(cpu, case)
            torch.set_num_threads(1)
            alone = run(cpu, case)
            torch.set_num_threads(threads)
            for name, result in results.items():
                assert torch.equal(result, alone[name]), name


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_no_numbers(value, dtype, layout):
    """A single one, two in a plane, a plane full of them, one at the very end."""
    shape = (2, 19, 5, 7)
    statistics = [(name,) for name in ALL] + [("mean", "max"), ALL]
    for case in cases(shape, layout, dtype, statistics):
        x = case.tensors["x"]
        x[0, 3, 1, 2] = value
        x[0, 5, 0, 1] = x[0, 5, 4, 0] = value
        x[1, 2] = value
        x[1, 18, 4, 6] = value
        check(case, run(cpu, case))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_infinities_of_both_signs_have_a_maximum_and_no_mean(layout):
    x = examples.placed(torch.randn(1, 20, 4, 6), layout)
    x[0, 7, 1, 1], x[0, 7, 2, 3] = torch.inf, -torch.inf
    x[0, 9, 2, 3] = torch.inf
    positions = cpu.pool_positions(x, ("mean", "max"))
    assert positions[0, 0, 7].isnan()
    assert positions[0, 1, 7] == torch.inf
    channels = cpu.pool_channels(x, None, ("mean", "max"))
    assert channels[0, 0, 2 * 6 + 3].isnan()
    assert channels[0, 1, 2 * 6 + 3] == torch.inf


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_gradient_of_std_where_planes_hardly_vary(layout):
    """The mean is no float32, and what differs from it is mostly what rounding makes of it."""
    values = torch.full((2, 20, 6, 9), 1.2345678, dtype=torch.float64)
    values[:, ::2, 3, 4] += 1e-6
    case = examples.pool_positions(values.shape, statistics=("std",), layout=layout)
    case.tensors["x"] = examples.placed(values.float(), layout)
    check(case, run(cpu, case))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_std_far_from_zero_does_not_cancel(layout):
    generator = torch.Generator().manual_seed(0)
    x = 1000 + torch.randn((2, 20, 40, 41), generator=generator)
    x = examples.placed(x, layout)
    exact = raw.pool_positions(x.double(), ("std",))
    torch.testing.assert_close(cpu.pool_positions(x, ("std",)).double(), exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", examples.DTYPES, ids=str)
def test_in_place_is_the_same(dtype, layout):
    case = examples.apply_gates((3, 18, 6, 7), residual=True, dtype=dtype, layout=layout)
    t = case.tensors
    for other, relu in product((t["residual"], None, t["x"]), (False, True)):
        y = cpu.apply_gates(t["x"], t["channel_gate"], t["spatial_gate"], other, relu)
        own = t["x"].clone()
        residual = own if other is t["x"] else other
        assert cpu.apply_gates_(own, t["channel_gate"], t["spatial_gate"], residual, relu) is None
        assert torch.equal(own, y)
