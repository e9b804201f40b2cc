"""Pooling and applying gates, every output and gradient, against the specification in float64."""

from itertools import product

import pytest
import torch

from tests.ops import examples
from tests.ops.examples import SHAPES, TWO, VALUES, layouts
from tests.ops.interpreted.kernels import alternating, assert_right, cut, cutting

STATISTICS = [*TWO, ("std",), ("l2", "std", "max", "mean")]
GATES = [("channel",), ("spatial",), ("channel", "spatial"), ()]


def every(shape, **common):
    for statistics in STATISTICS:
        yield examples.pool_positions(shape, statistics=statistics, **common)
        for gated in (False, True):
            yield examples.pool_channels(shape, statistics=statistics, gated=gated, **common)
    for gates, (residual, relu) in product(GATES, [(False, False), (True, True), (False, True)]):
        yield examples.apply_gates(shape, gates=gates, residual=residual, relu=relu, **common)


def few(shape, **common):
    """One case of each operation, with all that it does."""
    statistics = ("l2", "std", "max", "mean")
    yield examples.pool_positions(shape, statistics=statistics, **common)
    yield examples.pool_channels(shape, statistics=statistics, **common)
    yield examples.apply_gates(shape, residual=True, relu=True, **common)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes_and_layouts(shape):
    for layout in layouts(shape):
        for case in few(shape, layout=layout):
            assert_right(case)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@cutting
def test_any_cut(monkeypatch, cutting, layout):
    cut(monkeypatch, cutting)
    for case in every((2, 37, 7, 5), layout=layout, values="ties"):
        assert_right(case)


@alternating
@pytest.mark.parametrize("values", VALUES)
def test_values(values, dtype, layout):
    for case in few((2, 21, 6, 9), values=values, dtype=dtype, layout=layout):
        assert_right(case)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_what_is_not_finite(monkeypatch, layout, value):
    cut(monkeypatch, "shared out")
    for case in few((2, 21, 6, 9), layout=layout):
        for place in [(0, 0, 0, 0), (1, 20, 5, 8), (0, 7, 3, 2), (0, 7, 5, 1), (0, 9, 3, 2)]:
            case.tensors["x"][place] = value
        assert_right(case)
