"""Pooling over positions, whole or in parts, and over channels: mean, maximum, std and l2."""

import triton
import triton.language as tl

from whatwhere.ops import reference
from whatwhere.ops.cuda.kernels.jit import kernel

EPSILON = tl.constexpr(reference.EPSILON)


@triton.jit
def highest(tile, axis: tl.constexpr):
    """The maximum along an axis; NaN where any element is."""
    lost = tl.max((tile != tile).to(tl.int32), axis)
    top = tl.max(tl.where(tile != tile, float("-inf"), tile), axis)
    return tl.where(lost > 0, float("nan"), top)


@triton.jit
def together(count, mean, squares, more, its_mean, its_squares):
    """Number, mean and Σ (x - mean)² of two sets as of one (Chan, Golub and LeVeque, 1983)."""
    total = count + more
    share = more.to(tl.float32) / total.to(tl.float32)
    delta = its_mean - mean
    # Of the first set there is nothing to be apart from, however far it is from 0.
    apart = tl.where(count > 0, delta * delta * (count.to(tl.float32) * share), 0.0)
    return total, mean + delta * share, squares + its_squares + apart


@triton.jit
def and_tile(count, mean, squares, tile, mask, more, axis: tl.constexpr):
    """``together`` with a tile that has ``more`` elements inside along the axis, and 0 outside."""
    its_mean = tl.sum(tile, axis) / tl.maximum(more, 1).to(tl.float32)
    off = tl.where(mask, tile - tl.expand_dims(its_mean, axis), 0.0)
    return together(count, mean, squares, more, its_mean, tl.sum(off * off, axis))


@triton.jit
def deviation(squares, count):
    """std from Σ (x - mean)²; 1e-5 alone is under the root where there is one element."""
    return tl.sqrt_rn(squares / tl.maximum(count - 1, 1).to(tl.float32) + EPSILON)


@triton.jit
def add_hidden(w0, descriptor, out, c, channels, units):
    """What the channels c of a descriptor add to all hidden units."""
    descriptor = tl.where(c < channels, descriptor, 0.0)
    for start in range(0, units, 32):
        u = start + tl.arange(0, 32)
        mask = (u < units)[:, None] & (c < channels)[None, :]
        w = tl.load(w0 + u[:, None] * channels + c[None, :], mask=mask, other=0.0)
        part = tl.sum(w.to(tl.float32) * descriptor[None, :], 1)
        tl.store(out + u, part, mask=u < units)


@kernel
def pool_positions(
    x, out, w0, hidden, channels, positions, stride_c, stride_p,
    tiles, splits, steps, sample_from, count, row, split_row, mean_at, top_at, std_at, l2_at, units,
    MEAN: tl.constexpr, TOP: tl.constexpr, STD: tl.constexpr, L2: tl.constexpr,
    BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Sums and maximum of a tile of channels over the positions of a split.

    They are Σ x / count, max x, Σ (x - mean)² and Σ x²; the roots are ``finish_pooling``'s. With w0
    (units, C), and one split, what the tile adds to the hidden units of mean and maximum is a part
    of ``hidden`` (N, tiles, 2, units).
    """
    pid = tl.program_id(0)
    split = pid % splits
    tile = (pid // splits) % tiles
    c = tile * BC + tl.arange(0, BC)
    sample = (pid // (splits * tiles) + sample_from).to(tl.int64)
    x += sample * channels * positions
    total = tl.zeros([BC, BP], tl.float32)
    top = tl.full([BC, BP], float("-inf"), tl.float32)
    power = tl.zeros([BC, BP], tl.float32)
    seen, mean, squares = split * 0, tl.zeros([BC], tl.float32), tl.zeros([BC], tl.float32)
    for step in range(split * steps, (split + 1) * steps):
        p = step * BP + tl.arange(0, BP)
        mask = (c < channels)[:, None] & (p < positions)[None, :]
        offset = c[:, None] * stride_c + p[None, :] * stride_p
        value = tl.load(x + offset, mask=mask, other=0.0).to(tl.float32)
        if MEAN or STD:
            total += value
        if TOP:
            masked = tl.where(mask, value, float("-inf"))
            top = tl.maximum(top, masked, propagate_nan=tl.PropagateNan.ALL)
        if STD:
            more = tl.maximum(tl.minimum(positions - step * BP, BP), 0)
            seen, mean, squares = and_tile(seen, mean, squares, value, mask, more, 1)
        if L2:
            power += value * value
    out += sample * row + split * split_row
    if MEAN or STD:
        average = tl.sum(total, 1) / count
        tl.store(out + mean_at + c, average, mask=c < channels)
        if w0 is not None:
            add_hidden(
                w0, average, hidden + (sample * tiles + tile) * 2 * units, c, channels, units
            )
    if TOP:
        maximum = highest(top, 1)
        tl.store(out + top_at + c, maximum, mask=c < channels)
        if w0 is not None:
            hidden += ((sample * tiles + tile) * 2 + 1) * units
            add_hidden(w0, maximum, hidden, c, channels, units)
    if STD:
        tl.store(out + std_at + c, squares, mask=c < channels)
    if L2:
        tl.store(out + l2_at + c, tl.sum(power, 1), mask=c < channels)


@kernel
def pool_channels(
    x, gate, out, channels, positions, stride_c, stride_p, tiles, steps, sample_from,
    gate_row, gate_at, row, mean_at, top_at, std_at, l2_at,
    MEAN: tl.constexpr, TOP: tl.constexpr, STD: tl.constexpr, L2: tl.constexpr,
    BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """The statistics of x · gate over all channels, at a tile of positions."""
    pid = tl.program_id(0)
    p = pid % tiles * BP + tl.arange(0, BP)
    sample = (pid // tiles + sample_from).to(tl.int64)
    x += sample * channels * positions
    total = tl.zeros([BC, BP], tl.float32)
    top = tl.full([BC, BP], float("-inf"), tl.float32)
    power = tl.zeros([BC, BP], tl.float32)
    seen, mean, squares = pid * 0, tl.zeros([BP], tl.float32), tl.zeros([BP], tl.float32)
    for step in range(steps):
        c = step * BC + tl.arange(0, BC)
        mask = (c < channels)[:, None] & (p < positions)[None, :]
        offset = c[:, None] * stride_c + p[None, :] * stride_p
        value = tl.load(x + offset, mask=mask, other=0.0).to(tl.float32)
        if gate is not None:
            at = gate + sample * gate_row + gate_at + c
            value *= tl.load(at, mask=c < channels, other=0.0)[:, None]
        if MEAN:
            total += value
        if TOP:
            masked = tl.where(mask, value, float("-inf"))
            top = tl.maximum(top, masked, propagate_nan=tl.PropagateNan.ALL)
        if STD:
            more = tl.minimum(channels - step * BC, BC)
            seen, mean, squares = and_tile(seen, mean, squares, value, mask, more, 0)
        if L2:
            power += value * value
    out += sample * row
    if MEAN:
        tl.store(out + mean_at + p, tl.sum(total, 0) / channels, mask=p < positions)
    if TOP:
        tl.store(out + top_at + p, highest(top, 0), mask=p < positions)
    if STD:
        tl.store(out + std_at + p, deviation(squares, channels), mask=p < positions)
    if L2:
        tl.store(out + l2_at + p, tl.sqrt_rn(tl.sum(power, 0) + EPSILON), mask=p < positions)


@kernel
def finish_pooling(
    parts, out, length, number, tiles, splits, each, sample_from,
    row, mean_at, top_at, std_at, l2_at,
    MEAN: tl.constexpr, TOP: tl.constexpr, STD: tl.constexpr, L2: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Statistics of ``number`` elements from parts (N, splits, 4, length), added in their order.

    A part has Σ x, max x, Σ (x - its mean)² and Σ x² of ``each`` elements, the last of the rest.
    """
    pid = tl.program_id(0)
    place = pid % tiles * BLOCK + tl.arange(0, BLOCK)
    mask = place < length
    sample = (pid // tiles + sample_from).to(tl.int64)
    parts += sample * splits * 4 * length
    total, power = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    top = tl.full([BLOCK], float("-inf"), tl.float32)
    seen, mean, squares = pid * 0, tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for split in range(splits):
        at = parts + split * 4 * length + place
        part = tl.zeros([BLOCK], tl.float32)
        if MEAN or STD:
            part = tl.load(at, mask=mask, other=0.0)
            total += part
        if TOP:
            one = tl.load(at + length, mask=mask, other=0.0)
            top = tl.maximum(top, one, propagate_nan=tl.PropagateNan.ALL)
        if STD:
            more = tl.minimum(number - split * each, each)
            its_squares = tl.load(at + 2 * length, mask=mask, other=0.0)
            its_mean = part / more.to(tl.float32)
            seen, mean, squares = together(seen, mean, squares, more, its_mean, its_squares)
        if L2:
            power += tl.load(at + 3 * length, mask=mask, other=0.0)
    out += sample * row
    if MEAN:
        tl.store(out + mean_at + place, total / number, mask=mask)
    if TOP:
        tl.store(out + top_at + place, top, mask=mask)
    if STD:
        tl.store(out + std_at + place, deviation(squares, number), mask=mask)
    if L2:
        tl.store(out + l2_at + place, tl.sqrt_rn(power + EPSILON), mask=mask)
