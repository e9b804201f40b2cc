"""The kernels on NaN and infinity, on huge numbers, on random cases, on any number of threads."""

from itertools import product
from math import prod

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.ops import examples
from tests.ops.checker import OF_SAMPLES, check, run
from tests.ops.examples import DTYPES, TWO, every_primitive, layouts
from tests.ops.kernels import assert_right, assert_same_bits, cpu, run_kernels, served

BAD = {"nan": torch.nan, "inf": torch.inf, "-inf": -torch.inf}
SAMPLE = 1
# The first and the last number of a sample, and one between.
PLACES = [(SAMPLE, 0, 0, 0), (SAMPLE, 20, 8, 8), (SAMPLE, 4, 2, 3)]
both_layouts = pytest.mark.parametrize("layout", ["contiguous", "channels_last"])


def assert_right_with_one_bad_sample(case, bad, name="x"):
    """Right with ``bad`` numbers put into one sample, and all others keep every bit."""
    clean = run_kernels(case)
    for place, value in bad.items():
        case.tensors[name][place] = value
    results = run_kernels(case)
    check(case, results)
    others = [n for n in range(len(case.tensors["x"])) if n != SAMPLE]
    of_samples = {k: t for k, t in results.items() if k in OF_SAMPLES and t.numel()}
    assert_same_bits(of_samples, clean, lambda tensor: tensor[others])


@both_layouts
@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("bad", BAD)
def test_nan_and_infinity_stay_in_their_sample(bad, place, layout):
    options = product((True, False), [*TWO[1:]], (False, True))
    for biased, channel, relu in options:
        case = examples.cbam(
            (3, 21, 9, 9), layout=layout, biased=biased, channel=channel, relu=relu, units=2
        )
        assert_right_with_one_bad_sample(case, {place: BAD[bad]})


@both_layouts
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bad_samples_in_every_dtype(dtype, layout):
    for bad in ({PLACES[2]: torch.nan}, {PLACES[2]: torch.inf, PLACES[0]: -torch.inf}):
        case = examples.cbam((3, 21, 9, 9), dtype=dtype, layout=layout, residual=True, relu=True)
        assert_right_with_one_bad_sample(case, bad)


@both_layouts
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("tensor", ["dy", "residual"])
def test_bad_numbers_in_other_tensors(tensor, bad, layout):
    case = examples.cbam((3, 21, 9, 9), layout=layout, residual=True, relu=True)
    assert_right_with_one_bad_sample(case, {PLACES[2]: BAD[bad]}, tensor)


@both_layouts
@pytest.mark.parametrize("bad", BAD)
def test_bad_numbers_in_primitives(bad, layout):
    for case in every_primitive((3, 21, 9, 9), layout=layout):
        for place in PLACES:
            assert_right_with_one_bad_sample(case, {place: BAD[bad]})


@both_layouts
@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_nothing_but_bad_numbers(value, layout):
    """Where every number is the same, also the lowest there is, a maximum is still found."""
    case = examples.cbam((3, 21, 9, 9), layout=layout)
    assert_right_with_one_bad_sample(case, {SAMPLE: value})
    for case in every_primitive((3, 21, 9, 9), layout=layout):
        assert_right_with_one_bad_sample(case, {SAMPLE: value})


@both_layouts
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_saturated_gates(dtype, layout):
    """Gates of 0 and 1: what is left of slopes and of gradients of parameters is below rounding."""
    case = examples.cbam((3, 21, 9, 9), dtype=dtype, layout=layout, values="large", relu=True)
    for name in ("w0", "wc"):
        case.tensors[name].mul_(1e3)
    results = run_kernels(case)
    assert not (results["spatial_gate"] * (1 - results["spatial_gate"])).gt(1e-6).all()
    check(case, results, names=OF_SAMPLES - {"hidden"})


@st.composite
def cases(draw):
    rank = draw(st.integers(1, 3))
    longest = {1: 70, 2: 20, 3: 7}[rank]
    shape = (draw(st.integers(0, 5)), draw(st.integers(1, 40)))
    shape += tuple(draw(st.integers(1, longest)) for _ in range(rank))
    flags = st.booleans()
    return examples.cbam(
        shape,
        dtype=draw(st.sampled_from(DTYPES)),
        layout=draw(st.sampled_from(layouts(shape))),
        values=draw(st.sampled_from(list(examples.VALUES))),
        units=draw(st.integers(1, 20)),
        kernel=tuple(draw(st.sampled_from([1, 3, 5, 7])) for _ in range(rank)),
        channel=draw(st.sampled_from(TWO)),
        spatial=draw(st.sampled_from(TWO)),
        scales=(draw(st.sampled_from([1.0, 2.0])), draw(st.sampled_from([1.0, 2.0]))),
        biased=draw(flags),
        residual=draw(flags),
        relu=draw(flags),
    )


@settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(cases())
def test_any_case(case):
    assert_right(case)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def assert_same_on_any_threads(case, threads):
    served(case)
    threads(1)
    expected = run(cpu, case)
    for count in (1, 2, 3, 5, 2):
        threads(count)
        assert_same_bits(run(cpu, case), expected)


# One tile and several, fewer samples than threads and more, network light and heavy.
SHARED = [
    (1, 19, 47, 50),
    (2, 40, 13, 11),
    (4, 23, 9, 9),
    (7, 5, 3, 3),
    (1, 512, 7, 7),
    (0, 4, 3, 3),
]


@both_layouts
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHARED, ids=str)
def test_bits_do_not_depend_on_threads(shape, dtype, layout, threads):
    for units, kernel in ((3, 7), (33, 3)):
        case = examples.cbam(
            shape, dtype=dtype, layout=layout, units=units, kernel=kernel, residual=True, relu=True
        )
        assert_same_on_any_threads(case, threads)


@both_layouts
@pytest.mark.parametrize("shape", SHARED[1:4], ids=str)
def test_bits_of_primitives_do_not_depend_on_threads(shape, layout, threads):
    for case in every_primitive(shape, layout=layout):
        assert_same_on_any_threads(case, threads)


@both_layouts
def test_bits_do_not_depend_on_the_batch(layout):
    """A sample alone, shared by threads or not, has the bits that it has among others."""
    case = examples.cbam((5, 23, 30, 9), layout=layout, residual=True, relu=True)
    whole = run_kernels(case)
    per_sample = ("x", "dy", "residual")
    for n in range(5):
        tensors = {
            name: examples.placed(t[n : n + 1], layout) if name in per_sample else t
            for name, t in case.tensors.items()
        }
        alone = run_kernels(type(case)("cbam", tensors, case.options))
        own = {k: t for k, t in alone.items() if k in OF_SAMPLES}
        assert prod(own["y"].shape) > 0
        assert_same_bits(own, {k: whole[k][n : n + 1] for k in own})
