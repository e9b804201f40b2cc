"""CBAM's channel network on chunks of samples: the gate from x, and the gradients back to x."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from whatwhere.ops.cuda import steps
from whatwhere.ops.cuda.kernels import network as kernels
from whatwhere.ops.cuda.kernels.parameters import parameter_gradients
from whatwhere.ops.cuda.steps import Chunk, Rows
from whatwhere.ops.cuda.tiles import MOST_SHARES, SMALLEST, Plan

# Rows and columns of a matrix product's tile: the least that tensor cores take, and of the sum.
ROWS, UNITS, CHANNELS, STEP = 16, 16, 64, 64
# So few samples are computed one by one; of so few weights in a layer that each program of a sample
# may read them all.
FEW, SMALL = 8, 2**14
# Tiles of positions that one program may go through where there are few samples.
SHORT = 8
# Of that launch a tile of channels, and the most hidden units.
BROAD, MOST_UNITS = 128, 32


@dataclass(frozen=True)
class Layout:
    """Where in a row of ``saved`` what begins, and how long the row is."""

    depth: int
    units: int
    hidden: int
    gate: int
    maps: int
    spatial: int
    row: int


def layout(p: Plan, units: int, depth: int, spatial_depth: int) -> Layout:
    """The layout of ``raw.cbam``: descriptors, hidden units, channel gate, maps, spatial gate."""
    hidden = depth * p.channels
    gate = hidden + depth * units
    first = gate + p.channels
    spatial = first + spatial_depth * p.positions
    return Layout(depth, units, hidden, gate, first, spatial, spatial + p.positions)


def _units(units: int) -> int:
    return min(MOST_UNITS, max(SMALLEST, 1 << (units - 1).bit_length()))


def _top(statistics: Sequence[str]) -> int:
    return statistics.index("max") if "max" in statistics else -1


def _of_small_weights(
    p: Plan,
    chunk: Chunk,
    x: Tensor,
    parameters: Sequence[Tensor | None],
    statistics: Sequence[str],
    scale: float,
    saved: Tensor,
    at: Layout,
) -> None:
    # Every program of a sample has all hidden units, from shares of the positions.
    start, count = chunk
    splits, each = p.shares(p.tiles_c, p.tiles_p)
    parts = steps.parts_of_pooling(p, x, splits)
    steps.run_parts(p, chunk, x, parts, each, statistics)
    tiles = -(-p.channels // BROAD)
    kernels.network[(count * tiles,)](
        parts, saved, *parameters, p.channels, at.units, p.positions, tiles, splits, start,
        scale, at.row, at.hidden, at.gate,
        DEPTH=at.depth, TOP=_top(statistics),
        BS=MOST_SHARES, BC=BROAD, BU=_units(at.units), num_warps=16,
    )  # fmt: skip


def _of_wide_weights(
    p: Plan,
    chunk: Chunk,
    x: Tensor,
    parameters: Sequence[Tensor | None],
    statistics: Sequence[str],
    scale: float,
    saved: Tensor,
    at: Layout,
) -> None:
    # Where weights are many channels are, and positions few: a program has all of its channels,
    # and adds their part to the hidden units.
    start, count = chunk
    w0, *others = parameters
    hidden = saved.new_empty((x.shape[0], p.tiles_c, 2, at.units))
    steps.pool_whole(p, chunk, x, Rows(saved, at.row), statistics, w0, hidden)
    tiles = -(-p.channels // CHANNELS)
    kernels.gate_of_parts[(count * tiles,)](
        hidden, saved, *others, p.channels, at.units, tiles, p.tiles_c, start, scale,
        at.row, at.hidden, at.gate,
        DEPTH=at.depth, TOP=_top(statistics),
        BS=MOST_SHARES, BC=CHANNELS, BU=MOST_UNITS, num_warps=8,
    )  # fmt: skip


def channel_gate(
    p: Plan,
    chunk: Chunk,
    x: Tensor,
    parameters: Sequence[Tensor | None],
    statistics: Sequence[str],
    scale: float,
    saved: Tensor,
    at: Layout,
) -> None:
    """Descriptors, hidden units and the gate of a chunk into ``saved``, in two to four launches."""
    given = p, chunk, x, parameters, statistics, scale, saved, at
    if p.samples <= FEW and at.units * p.channels <= SMALL:
        return _of_small_weights(*given)
    if p.samples <= FEW and p.tiles_p <= SHORT:
        return _of_wide_weights(*given)
    w0, b0, w1, b1 = parameters
    start, count = chunk
    steps.pool_positions(p, chunk, x, Rows(saved, at.row), statistics)
    lines, tiles = count * at.depth, -(-at.units // UNITS)
    kernels.hidden[(-(-lines // ROWS) * tiles,)](
        saved, w0, b0, lines, at.depth, p.channels, at.units, tiles, start, at.row, at.hidden,
        BR=ROWS, BU=UNITS, BC=STEP,
    )  # fmt: skip
    tiles = -(-p.channels // CHANNELS)
    kernels.channel_gate[(-(-count // ROWS) * tiles,)](
        saved, w1, b1, count, p.channels, at.units, tiles, start, scale,
        at.row, at.hidden, at.gate,
        DEPTH=at.depth, BN=ROWS, BC=CHANNELS, BU=UNITS,
    )  # fmt: skip
    return None


@dataclass(frozen=True)
class Gradients:
    """Of all samples: of the logits (N, C), the hidden units (N, D, H), descriptors (N, D, C)."""

    logits: Tensor
    hidden: Tensor
    descriptors: Tensor


def gradients_of(p: Plan, saved: Tensor, at: Layout) -> Gradients:
    """Room for them."""
    n = saved.shape[0]
    logits = saved.new_empty((n, p.channels))
    hidden = saved.new_empty((n, at.depth, at.units))
    return Gradients(logits, hidden, saved.new_empty((n, at.depth, p.channels)))


def backward(
    p: Plan, chunk: Chunk, of: Gradients, saved: Tensor, w0: Tensor, w1: Tensor, at: Layout
) -> None:
    """From the gradient of a chunk's logits those of its hidden units and descriptors."""
    start, count = chunk
    tiles = -(-at.units // UNITS)
    kernels.hidden_gradient[(-(-count // ROWS) * tiles,)](
        of.logits, saved, w1, of.hidden, count, p.channels, at.units, tiles, start,
        at.row, at.hidden,
        DEPTH=at.depth, BN=ROWS, BU=UNITS, BC=STEP,
    )  # fmt: skip
    lines, tiles = count * at.depth, -(-p.channels // CHANNELS)
    kernels.descriptor_gradient[(-(-lines // ROWS) * tiles,)](
        of.hidden, w0, of.descriptors, lines, at.depth, p.channels, at.units, tiles, start,
        BR=ROWS, BC=CHANNELS, BU=UNITS,
    )  # fmt: skip


def of_parameters(
    of: Gradients, saved: Tensor, parts: Tensor, parameters: Sequence[Tensor | None], at: Layout
) -> list[Tensor | None]:
    """The gradients of w0, b0, w1, b1, wc and bc, in one launch, over all samples."""
    n, channels = of.logits.shape
    out = [None if one is None else one.new_empty(one.shape) for one in parameters]
    tiles = -(-channels // CHANNELS)
    programs = tiles * -(-at.units // UNITS)
    shares, weights = parts.shape
    parameter_gradients[(2 * programs + -(-weights // CHANNELS),)](
        of.logits, of.hidden, saved, parts, *out,
        n, channels, at.units, tiles, programs, shares, weights, at.row, at.hidden,
        DEPTH=at.depth, BN=ROWS, BU=UNITS, BC=CHANNELS, BS=MOST_SHARES,
    )  # fmt: skip
    return out
