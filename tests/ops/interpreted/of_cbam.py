"""CBAM, every output, gradient and saved number, against the specification in float64."""

from math import prod

import pytest
import torch

from tests.ops import examples
from tests.ops.checker import PARAMETERS
from tests.ops.examples import SHAPES, TWO, VALUES, layouts
from tests.ops.interpreted.kernels import (
    DTYPES,
    alternating,
    assert_right,
    cut,
    cutting,
    run_kernels,
)
from tests.ops.kernels import assert_same_bits
from whatwhere.ops import cuda
from whatwhere.ops.cuda import network, tiles

FOLDED = {"residual": True, "relu": True, "kernel": 3, "scales": (1.0, 2.0), "biased": False}


@pytest.mark.parametrize("shape", [s for s in SHAPES if prod(s) < 10_000], ids=str)
def test_shapes_and_layouts(shape):
    for layout in layouts(shape):
        assert_right(examples.cbam(shape, layout=layout))


@pytest.mark.parametrize("shape", [(5, 17, 31), (3, 17, 1, 11), (2, 8, 3, 5, 4)], ids=str)
def test_with_all_that_can_be_folded_in(shape):
    for layout in layouts(shape):
        assert_right(examples.cbam(shape, dtype=torch.float16, layout=layout, units=5, **FOLDED))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@cutting
def test_any_cut(monkeypatch, cutting, layout):
    cut(monkeypatch, cutting)
    assert_right(examples.cbam((2, 37, 9, 7), layout=layout, relu=True, residual=True))


@pytest.mark.parametrize("spatial", TWO, ids=str)
@pytest.mark.parametrize("channel", TWO, ids=str)
def test_statistics_in_any_order(channel, spatial):
    options = {"channel": channel, "spatial": spatial, "scales": (2.0, 1.0)}
    assert_right(examples.cbam((2, 18, 6, 7), **options))


@pytest.mark.parametrize(
    ("shape", "kernel"),
    [
        *[((2, 5, 19), k) for k in [(1,), (7,)]],
        *[((2, 5, 4, 19), k) for k in [(1, 1), (7, 7), (3, 7), (5, 1)]],
        *[((2, 5, 3, 4, 5), k) for k in [(3, 3, 3), (1, 7, 7), (3, 1, 5), (7, 1, 1)]],
    ],
    ids=str,
)
def test_kernel_sizes_also_uneven_and_beyond_the_map(shape, kernel):
    assert_right(examples.cbam(shape, kernel=kernel, spatial=("max", "mean")))


@pytest.mark.parametrize(("units", "samples"), [(1, 1), (16, 9), (17, 1), (70, 8)])
def test_hidden_units_and_samples_beyond_a_tile(units, samples):
    assert_right(examples.cbam((samples, 67, 3, 4), units=units))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(("units", "channel"), [*zip([3, 70, 17, 5], TWO, strict=True)])
def test_weights_too_many_for_every_program(monkeypatch, units, channel, layout):
    monkeypatch.setattr(network, "SMALL", 0)
    case = examples.cbam((2, 35, 3, 6), units=units, channel=channel, layout=layout)
    case.tensors["x"][1, 7, 1, 2] = torch.inf if units == 5 else 1
    assert_right(case)


@alternating
@pytest.mark.parametrize("values", VALUES)
def test_values(values, dtype, layout):
    relu = dtype is torch.float32
    assert_right(examples.cbam((2, 21, 6, 9), values=values, dtype=dtype, layout=layout, relu=relu))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@cutting
def test_ties_between_channels_go_to_the_first(monkeypatch, cutting, layout):
    """With weights of zero every channel has the gate 1/2 exactly, in every dtype."""
    cut(monkeypatch, cutting)
    case = examples.cbam((3, 37, 5, 6), values="ties", layout=layout)
    for name in ("w1", "b1"):
        case.tensors[name].zero_()
    assert_right(case)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_what_is_not_finite(layout, value):
    case = examples.cbam((3, 21, 6, 9), layout=layout)
    case.tensors["x"][1, 7, 3, 2] = value
    assert_right(case)


@pytest.mark.parametrize("parameters", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_parameters_of_another_dtype(dtype, parameters):
    assert_right(examples.cbam((3, 18, 6, 7), dtype=dtype, parameters=parameters, relu=True))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_in_place_is_the_same(dtype, layout):
    case = examples.cbam((3, 18, 6, 7), dtype=dtype, layout=layout, residual=True, relu=True)
    x, parameters = case.tensors["x"], [case.tensors[name] for name in PARAMETERS]
    options = [case.options[name] for name in ("channel", "spatial", "scale", "spatial_scale")]
    for residual in (case.tensors["residual"], None, x):
        y, _ = cuda.cbam(x, *parameters, *options, residual, True)
        own = x.clone()
        cuda.cbam_(own, *parameters, *options, own if residual is x else residual, True)
        assert torch.equal(own, y)


def test_weights_of_the_convolution_in_any_strides():
    """As those of a network in channels_last have them."""
    case = examples.cbam((2, 5, 4, 6), kernel=(3, 5))
    options = [case.options[name] for name in ("channel", "spatial", "scale", "spatial_scale")]
    parameters = [case.tensors[name] for name in PARAMETERS]
    expected = cuda.cbam(case.tensors["x"], *parameters, *options, None, False)
    strided = parameters[4].contiguous(memory_format=torch.channels_last)
    assert strided.stride() != parameters[4].stride()
    given = [*parameters[:4], strided, parameters[5]]
    results = cuda.cbam(case.tensors["x"], *given, *options, None, False)
    for result, wanted in zip(results, expected, strict=True):
        assert torch.equal(result, wanted)
    dy, x = case.tensors["dy"], case.tensors["x"]
    wanted = cuda.cbam_backward(dy, x, expected[1], *parameters, *options, None)
    for one, other in zip(
        cuda.cbam_backward(dy, x, expected[1], *given, *options, None), wanted, strict=True
    ):
        assert torch.equal(one, other)
        assert one.is_contiguous()


def _in_chunks(monkeypatch, case, fitting):
    """As on a device whose cache has room for so many samples of x."""
    x = case.tensors["x"]
    room = fitting * x[0].nbytes / tiles.SHARE_OF_CACHE
    monkeypatch.setattr(tiles, "cache_bytes", lambda _device: room)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(("samples", "fitting"), [(3, 2), (18, 9)])
def test_chunks_have_the_bits_of_one_pass_over_all(monkeypatch, samples, fitting, layout):
    """Planned for as many samples as a chunk, forwards and backwards; the last chunk is shorter."""
    case = examples.cbam((samples, 19, 4, 5), layout=layout, relu=True, residual=True)
    _in_chunks(monkeypatch, case, fitting)
    chunked = run_kernels(case)
    begun = []

    def at_once(number, each):
        begun.append(each)
        return [(0, number)]

    monkeypatch.setattr(cuda._cbam, "chunks", at_once)
    assert_same_bits(chunked, run_kernels(case))
    assert all(each < samples for each in begun)
    assert len(begun) == 2


@cutting
def test_chunks_are_right_however_they_are_cut(monkeypatch, cutting):
    cut(monkeypatch, cutting)
    case = examples.cbam((3, 19, 5, 7), dtype=torch.bfloat16, layout="channels_last")
    _in_chunks(monkeypatch, case, 2)
    assert_right(case)


def _beyond_memory(path, shape, dtype):
    """A tensor in a file without contents: what nobody writes takes no room."""
    return torch.from_file(str(path), shared=True, size=prod(shape), dtype=dtype).view(shape)


def test_a_sample_beyond_2_to_the_31_elements(monkeypatch, tmp_path):
    """Of a batch that no test has memory for, one sample behind the 2³¹st element, both ways."""
    shape, dtype = (2**20 + 3, 32, 8, 8), torch.bfloat16
    at = shape[0] - 2
    case = examples.cbam((1, *shape[1:]), dtype=dtype)
    alone = run_kernels(case)
    tensors = {
        name: _beyond_memory(tmp_path / name, shape, dtype) for name in ("x", "dy", "y", "dx")
    }
    for name in ("x", "dy"):
        tensors[name][at] = case.tensors[name][0]
    like = iter([tensors["y"], tensors["dx"]])
    monkeypatch.setattr(cuda, "like", lambda _x: next(like))
    monkeypatch.setattr(cuda._cbam, "like", lambda _x: next(like))
    monkeypatch.setattr(tiles, "cache_bytes", lambda _device: prod(shape[1:]) * 2 * 2 / 0.4)
    monkeypatch.setattr(cuda._cbam, "chunks", lambda _samples, _each: [(at, 1)])
    # Gradients of parameters are sums over all samples.
    monkeypatch.setattr(cuda._cbam.network, "of_parameters", lambda *_arguments: [])
    given = [case.tensors[name] for name in PARAMETERS]
    given += [case.options[name] for name in ("channel", "spatial", "scale", "spatial_scale")]
    y, saved = cuda.cbam(tensors["x"], *given, None, False)
    dx = cuda.cbam_backward(tensors["dy"], tensors["x"], saved, *given, None)[0]
    assert y[at:].storage_offset() > 2**31 - 1
    assert torch.equal(y[at], alone["y"][0])
    assert torch.equal(dx[at], alone["dx"][0])
    assert not y[at + 1 :].any()
    assert not dx[at - 1].any()
