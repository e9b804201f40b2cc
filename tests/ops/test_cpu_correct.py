"""The kernels, called directly, against the specification in float64: every output and gradient."""

from itertools import product

import pytest
import torch

from tests.cases import layouts as strided
from tests.ops import examples
from tests.ops.checker import PARAMETERS, Case, check, run
from tests.ops.examples import DTYPES, SHAPES, TWO, VALUES, every_primitive, layouts
from tests.ops.kernels import assert_right, cpu
from whatwhere.ops.bodies import BODIES

ODD = {3: [(1,), (3,), (5,), (7,), (9,)], 4: [(1, 1), (7, 7), (3, 7), (5, 1), (1, 3)]}
ODD[5] = [(3, 3, 3), (1, 7, 7), (3, 1, 5), (7, 1, 1)]


def everywhere(test):
    """Every shape in every layout and dtype."""
    for name, values in (("dtype", DTYPES), ("shape_layout", _shapes_and_layouts())):
        test = pytest.mark.parametrize(name, values, ids=str)(test)
    return test


def _shapes_and_layouts():
    return [(shape, layout) for shape in SHAPES for layout in layouts(shape)]


@everywhere
def test_cbam(shape_layout, dtype):
    shape, layout = shape_layout
    assert_right(examples.cbam(shape, layout=layout, dtype=dtype))


@everywhere
def test_cbam_with_all_that_can_be_folded_in(shape_layout, dtype):
    shape, layout = shape_layout
    options = {"residual": True, "relu": True, "kernel": 5, "scales": (1.0, 2.0), "biased": False}
    assert_right(examples.cbam(shape, layout=layout, dtype=dtype, units=5, **options))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("spatial", TWO, ids=str)
@pytest.mark.parametrize("channel", TWO, ids=str)
def test_statistics_of_cbam_in_any_order(channel, spatial, layout):
    for scales in product((1.0, 2.0), repeat=2):
        case = examples.cbam(
            (3, 18, 6, 7),
            channel=channel,
            spatial=spatial,
            layout=layout,
            scales=scales,
            residual=scales[0] == 1.0,
            relu=scales[0] == 2.0,
        )
        assert_right(case)


@pytest.mark.parametrize(
    ("shape", "kernel"),
    [(shape, k) for shape in [(2, 5, 19), (2, 5, 4, 19), (2, 5, 3, 4, 5)] for k in ODD[len(shape)]],
    ids=str,
)
def test_kernel_sizes_also_uneven_and_beyond_the_map(shape, kernel):
    for layout in layouts(shape):
        assert_right(examples.cbam(shape, kernel=kernel, layout=layout, spatial=("max", "mean")))


@pytest.mark.parametrize("units", [1, 2, 15, 16, 17, 70])
@pytest.mark.parametrize("samples", [1, 4, 5])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_hidden_units(units, samples, layout):
    """Fewer and more than a vector holds; the network of one sample at a time and of a batch."""
    assert_right(examples.cbam((samples, 23, 5, 4), units=units, layout=layout))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("values", VALUES)
def test_values(values, dtype, layout):
    for relu in (False, True):
        case = examples.cbam((2, 21, 6, 9), values=values, dtype=dtype, layout=layout, relu=relu)
        assert_right(case)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_ties_between_channels_go_to_the_first(layout):
    """With weights of zero every channel has the gate 1/2 exactly, in every dtype."""
    case = examples.cbam((3, 37, 5, 6), values="ties", layout=layout)
    for name in ("w1", "b1"):
        case.tensors[name].zero_()
    assert_right(case)


@pytest.mark.parametrize("parameters", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_parameters_of_another_dtype(dtype, parameters):
    assert_right(examples.cbam((3, 18, 6, 7), dtype=dtype, parameters=parameters, relu=True))


@pytest.mark.parametrize("op", ["pool_positions", "pool_channels", "apply_gates"])
@everywhere
def test_primitives(op, shape_layout, dtype):
    shape, layout = shape_layout
    for case in every_primitive(shape, dtype=dtype, layout=layout):
        if case.op == op:
            assert_right(case)


@pytest.mark.parametrize("op", ["pool_positions", "pool_channels", "apply_gates"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("values", VALUES)
def test_values_in_primitives(op, values, layout):
    for case in every_primitive((2, 21, 6, 9), layout=layout, values=values):
        if case.op == op:
            assert_right(case)


class Bodies:
    """The raw operations as callers reach them: any strides are copied first."""

    def __getattr__(self, name):
        return BODIES[name]


@pytest.mark.parametrize("shape", [(2, 9, 13), (2, 9, 5, 7), (1, 9, 2, 5, 4)], ids=str)
def test_other_strides_are_copied_first(shape):
    case = examples.cbam(shape, residual=True, relu=True)
    for name in ("x", "dy", "residual"):
        for _, view in strided(case.tensors[name]):
            changed = Case("cbam", {**case.tensors, name: view}, case.options)
            check(changed, run(Bodies(), changed))
    transposed = case.tensors["x"].transpose(1, 2).contiguous().transpose(1, 2)
    changed = Case("cbam", {**case.tensors, "x": transposed}, case.options)
    check(changed, run(Bodies(), changed))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_in_place_is_the_same(dtype, layout):
    for shape in [(1, 18, 6, 7), (5, 18, 6, 7)]:
        case = examples.cbam(shape, dtype=dtype, layout=layout, residual=True, relu=True)
        x, parameters = (
            case.tensors["x"],
            [case.tensors[n] for n in PARAMETERS],
        )
        o = case.options
        options = o["channel"], o["spatial"], o["scale"], o["spatial_scale"]
        for residual in (case.tensors["residual"], None, x):
            y, _ = cpu.cbam(x, *parameters, *options, residual, True)
            own = x.clone()
            other = own if residual is x else residual
            assert cpu.cbam_(own, *parameters, *options, other, True) is None
            assert torch.equal(own, y)
