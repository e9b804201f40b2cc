"""CBAM forward: what one thread does with the pieces of work that it takes.

A piece is a sample, or a share of one, or (``BATCHED``) a share of the channel gate's network for
all samples at once. The phases asked for run one after another on each piece: all of them on whole
samples keeps each sample in cache.
"""

import math
from typing import Any

from whatwhere.ops.cpu import layout as A
from whatwhere.ops.cpu.kernels import dense, maps, pixels, planes
from whatwhere.ops.cpu.kernels.memory import at, fence, integers, scalar, stored, take, wide
from whatwhere.ops.cpu.kernels.simd import body, function

hidden, logits = dense.hidden, dense.logits
gather, pad, correlate, squash = maps.gather, maps.pad, maps.correlate, maps.squash
planes_pool, planes_pool_gated, planes_apply = planes.pool, planes.pool_gated, planes.apply
pixels_pool, pixels_pool_gated, pixels_apply = pixels.pool, pixels.pool_gated, pixels.apply


@function
def edge(size, part, parts, multiple):
    """Where the part-th of the parts of 0..size begins, at a multiple unless at the end."""
    if part >= parts:
        return size
    return size * part // parts // multiple * multiple


@function
def scratch_area(tag, a):
    """A thread's own scratch."""
    slot = take(at(a, A.SCRATCH_TAKEN))
    return at(wide(tag, a[A.SCRATCH]), slot * a[A.SCRATCH_LENGTH])


@function
def sample_rows(tag, a, n):
    """Sample n's rows in ``saved``: descriptors, hidden units, channel gate, maps, spatial gate."""
    channels, positions, units = a[A.CHANNELS], a[A.POSITIONS], a[A.UNITS]
    row = at(wide(tag, a[A.SAVED]), n * saved_length(a))
    pre = at(row, a[A.CHANNEL_DEPTH] * channels)
    gate = at(pre, a[A.CHANNEL_DEPTH] * units)
    stack = at(gate, channels)
    place = at(stack, a[A.SPATIAL_DEPTH] * positions)
    return row, pre, gate, stack, place


@function
def saved_length(a):
    """How many numbers ``saved`` holds per sample."""
    per_channel = (a[A.CHANNEL_DEPTH] + 1) * a[A.CHANNELS] + a[A.CHANNEL_DEPTH] * a[A.UNITS]
    return per_channel + (a[A.SPATIAL_DEPTH] + 1) * a[A.POSITIONS]


@body
def row_or(rows, index, length, otherwise):
    """The index-th row, or another place for what nobody asked for."""
    if index < 0:
        return otherwise
    return at(rows, index * length)


@function
def channel_network(tag, a, n0, n1, share, shares, phases):
    """The phases HIDDEN and LOGITS for samples n0 to n1."""
    channels, units, depth = a[A.CHANNELS], a[A.UNITS], a[A.CHANNEL_DEPTH]
    length = saved_length(a)
    rows, pre, gate, _, _ = sample_rows(tag, a, 0)
    sums = wide(tag, a[A.SUMS])
    if phases & A.HIDDEN:
        j0, j1 = edge(units, share, shares, 2), edge(units, share + 1, shares, 2)
        w0, b0 = wide(tag, a[A.W0]), wide(tag, a[A.B0])
        hidden(
            rows, w0, b0, a[A.B0] != 0, n0, n1, depth, length, channels, units, j0, j1, pre, sums
        )
    if phases & A.LOGITS:
        c0, c1 = edge(channels, share, shares, 16), edge(channels, share + 1, shares, 16)
        w1, b1 = wide(tag, a[A.W1]), wide(tag, a[A.B1])
        logits(sums, w1, b1, a[A.B1] != 0, n0, n1, depth, length, units, c0, c1, gate)
        for n in range(n0, n1):
            row = at(gate, n * length + c0)
            squash(row, float(a[A.CHANNEL_SCALE]), c1 - c0, row)


@function
def gathered_weights(tag, a, scratch):
    """The convolution's weights side by side, at the end of a thread's scratch."""
    kernel = a[A.KT], a[A.KH], a[A.KW]
    taps = a[A.SPATIAL_DEPTH] * kernel[0] * kernel[1] * kernel[2]
    target = at(scratch, a[A.SCRATCH_LENGTH] - taps)
    gather(wide(tag, a[A.WC]), at(a, A.WC_STRIDES), a[A.SPATIAL_DEPTH], kernel, target)
    return target


@function
def spatial_map(tag, a, stack, place, scratch):
    """The phase MAP for one sample."""
    shape = a[A.FRAMES], a[A.HEIGHT], a[A.WIDTH]
    kernel = a[A.KT], a[A.KH], a[A.KW]
    constant = wide(tag, a[A.BC])[0] if a[A.BC] != 0 else scalar(stack, 0.0)
    pad(stack, a[A.SPATIAL_DEPTH], shape, kernel, scratch)
    weights = gathered_weights(tag, a, scratch)
    correlate(scratch, weights, False, a[A.SPATIAL_DEPTH], shape, kernel, constant, place)
    squash(place, float(a[A.SPATIAL_SCALE]), a[A.POSITIONS], place)


def forward_planes(tag: Any) -> None:
    """Samples stored (C, P)."""
    a = integers(tag)
    channels, positions, phases, shares = a[A.CHANNELS], a[A.POSITIONS], a[A.PHASES], a[A.SHARES]
    scratch = scratch_area(tag, a)
    floor = 0.0 if a[A.RELU] else -math.inf
    past = a[A.PAST] != 0
    while True:
        piece = take(a)
        if piece >= a[A.PIECES]:
            if past:
                fence(a)
            break
        if phases & A.BATCHED:
            channel_network(tag, a, 0, a[A.SAMPLES], piece, a[A.PIECES], phases)
            continue
        n, share = piece // shares, piece % shares
        x = at(stored(tag, a[A.X]), n * channels * positions)
        rows, _, gate, stack, place = sample_rows(tag, a, n)
        c0, c1 = edge(channels, share, shares, 8), edge(channels, share + 1, shares, 8)
        if phases & A.POOL:
            mean = row_or(rows, a[A.CHANNEL_MEAN], channels, scratch)
            top = row_or(rows, a[A.CHANNEL_TOP], channels, scratch)
            planes_pool(x, c0, c1, positions, mean, top)
        if phases & (A.HIDDEN | A.LOGITS):
            channel_network(tag, a, n, n + 1, 0, 1, phases)
        if phases & A.STATISTICS:
            mean = row_or(stack, a[A.SPATIAL_MEAN], positions, scratch)
            top = row_or(stack, a[A.SPATIAL_TOP], positions, scratch)
            p0, p1 = edge(positions, share, shares, 16), edge(positions, share + 1, shares, 16)
            for p in range(p0, p1, a[A.TILE]):
                end = min(p1, p + a[A.TILE])
                planes_pool_gated(x, gate, p, end, channels, positions, mean, top)
        if phases & A.MAP:
            spatial_map(tag, a, stack, place, scratch)
        if phases & A.APPLY:
            residual = at(stored(tag, a[A.RESIDUAL]), n * channels * positions)
            y = at(stored(tag, a[A.Y]), n * channels * positions)
            folded = a[A.RESIDUAL] != 0
            planes_apply(x, gate, place, residual, folded, floor, past, c0, c1, positions, y)


def forward_pixels(tag: Any) -> None:
    """Samples stored (P, C)."""
    a = integers(tag)
    channels, positions, phases, shares = a[A.CHANNELS], a[A.POSITIONS], a[A.PHASES], a[A.SHARES]
    scratch = scratch_area(tag, a)
    floor = 0.0 if a[A.RELU] else -math.inf
    past = a[A.PAST] != 0
    while True:
        piece = take(a)
        if piece >= a[A.PIECES]:
            if past:
                fence(a)
            break
        if phases & A.BATCHED:
            channel_network(tag, a, 0, a[A.SAMPLES], piece, a[A.PIECES], phases)
            continue
        n, share = piece // shares, piece % shares
        x = at(stored(tag, a[A.X]), n * channels * positions)
        rows, _, gate, stack, place = sample_rows(tag, a, n)
        p0, p1 = edge(positions, share, shares, 4), edge(positions, share + 1, shares, 4)
        if phases & A.POOL:
            c0, c1 = edge(channels, share, shares, 16), edge(channels, share + 1, shares, 16)
            mean = row_or(rows, a[A.CHANNEL_MEAN], channels, at(scratch, channels))
            top = row_or(rows, a[A.CHANNEL_TOP], channels, at(scratch, channels))
            pixels_pool(x, c0, c1, channels, positions, scratch, mean, top)
        if phases & (A.HIDDEN | A.LOGITS):
            channel_network(tag, a, n, n + 1, 0, 1, phases)
        if phases & A.STATISTICS:
            mean = row_or(stack, a[A.SPATIAL_MEAN], positions, scratch)
            top = row_or(stack, a[A.SPATIAL_TOP], positions, scratch)
            pixels_pool_gated(x, gate, p0, p1, channels, mean, top)
        if phases & A.MAP:
            spatial_map(tag, a, stack, place, scratch)
        if phases & A.APPLY:
            residual = at(stored(tag, a[A.RESIDUAL]), n * channels * positions)
            y = at(stored(tag, a[A.Y]), n * channels * positions)
            folded = a[A.RESIDUAL] != 0
            pixels_apply(x, gate, place, residual, folded, floor, past, p0, p1, channels, y)
