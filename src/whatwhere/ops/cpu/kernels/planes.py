"""Passes over one sample stored plane by plane: (C, P), the positions of a channel side by side.

Every pass takes a range of channels or of positions, and gives the same bits however the ranges
are cut, so that threads may share a sample. Names: x the sample, dy the gradient of the output,
g the channel gate (C,), s the spatial gate (P,).
"""

import math

from whatwhere.ops.cpu.kernels.memory import at, get
from whatwhere.ops.cpu.kernels.simd import (
    body,
    filled,
    function,
    keep_first,
    lanes,
    largest,
    load,
    put_vector,
    store,
    total,
    where_greater,
    where_less,
)

# Sums of at most so many elements are added in one go; these sums are added up in float64.
BLOCK = 8192
# Planes of at most so many positions are short.
SHORT = 512


@function
def pool(x, c0, c1, positions, mean, top):
    """mean[c] and top[c], the mean and the maximum of each plane."""
    for c in range(c0, c1):
        row = at(x, c * positions)
        whole = 0.0
        highest = filled(mean, -math.inf)
        for start in range(0, positions, BLOCK):
            part, tops = _pool_block(at(row, start), min(positions - start, BLOCK), highest)
            whole += part
            highest = tops
        mean[c] = whole / positions
        top[c] = largest(highest)
        if whole != whole:
            top[c] = top_with_nan(row, 1, positions, top[c])


@body
def _pool_block(x, count, highest):
    step = lanes(x)
    zero = filled(x, 0.0)
    lowest = filled(x, -math.inf)
    sum0 = sum1 = sum2 = sum3 = zero
    top1 = top2 = top3 = lowest
    top0 = highest
    i = 0
    while i + 4 * step <= count:
        x0 = load(x, i, step)
        x1 = load(x, i + step, step)
        x2 = load(x, i + 2 * step, step)
        x3 = load(x, i + 3 * step, step)
        sum0 = sum0 + x0
        sum1 = sum1 + x1
        sum2 = sum2 + x2
        sum3 = sum3 + x3
        top0 = where_greater(x0, top0, x0, top0)
        top1 = where_greater(x1, top1, x1, top1)
        top2 = where_greater(x2, top2, x2, top2)
        top3 = where_greater(x3, top3, x3, top3)
        i += 4 * step
    while i + step <= count:
        x0 = load(x, i, step)
        sum0 = sum0 + x0
        top0 = where_greater(x0, top0, x0, top0)
        i += step
    if i < count:
        x1 = load(x, i, count - i)
        sum1 = sum1 + x1
        x1 = keep_first(x1, count - i, lowest)
        top1 = where_greater(x1, top1, x1, top1)
    top0 = where_greater(top1, top0, top1, top0)
    top2 = where_greater(top3, top2, top3, top2)
    return total((sum0 + sum1) + (sum2 + sum3)), where_greater(top2, top0, top2, top0)


@function
def top_with_nan(x, stride, count, top):
    """The first NaN of a strided row, else ``top``.

    Vector maxima pass over NaN; where a sum says that there may be one, this looks again.
    """
    for i in range(count):
        value = get(x, i * stride)
        if value != value:
            return value
    return top


@function
def gated_top_with_nan(x, g, stride, channels, top):
    """The first NaN of x·g along the channels of a position, else ``top``."""
    for c in range(channels):
        value = get(x, c * stride) * g[c]
        if value != value:
            return value
    return top


@function
def pool_gated(x, g, p0, p1, channels, positions, mean, top):
    """mean[p] and top[p], the mean and the maximum of x·g over the channels."""
    step = lanes(x)
    c = 0
    while c < channels:
        rows = at(x, c * positions)
        gates = at(g, c)
        eight = c + 8 <= channels
        p = p0
        while p + step <= p1:
            if eight:
                _pool_eight(rows, gates, c, p, step, positions, mean, top)
            else:
                _pool_one(rows, gates, c, p, step, mean, top)
            p += step
        if p < p1:
            if eight:
                _pool_eight(rows, gates, c, p, p1 - p, positions, mean, top)
            else:
                _pool_one(rows, gates, c, p, p1 - p, mean, top)
        c += 8 if eight else 1
    for p in range(p0, p1):
        mean[p] = mean[p] / channels
        if mean[p] != mean[p]:
            top[p] = gated_top_with_nan(at(x, p), g, positions, channels, top[p])


@body
def _pool_eight(x, g, c, p, count, positions, mean, top):
    # Eight channels at a time: the two maps are read and written once for eight reads of x.
    x0 = load(x, p, count) * filled(mean, g[0])
    x1 = load(x, positions + p, count) * filled(mean, g[1])
    x2 = load(x, 2 * positions + p, count) * filled(mean, g[2])
    x3 = load(x, 3 * positions + p, count) * filled(mean, g[3])
    x4 = load(x, 4 * positions + p, count) * filled(mean, g[4])
    x5 = load(x, 5 * positions + p, count) * filled(mean, g[5])
    x6 = load(x, 6 * positions + p, count) * filled(mean, g[6])
    x7 = load(x, 7 * positions + p, count) * filled(mean, g[7])
    sums = ((x0 + x1) + (x2 + x3)) + ((x4 + x5) + (x6 + x7))
    x0 = where_greater(x1, x0, x1, x0)
    x2 = where_greater(x3, x2, x3, x2)
    x4 = where_greater(x5, x4, x5, x4)
    x6 = where_greater(x7, x6, x7, x6)
    x0 = where_greater(x2, x0, x2, x0)
    x4 = where_greater(x6, x4, x6, x4)
    x0 = where_greater(x4, x0, x4, x0)
    _merge(c, p, count, sums, x0, mean, top)


@body
def _pool_one(x, g, c, p, count, mean, top):
    value = load(x, p, count) * filled(mean, g[0])
    _merge(c, p, count, value, value, mean, top)


@body
def _merge(c, p, count, sums, tops, mean, top):
    if c > 0:
        sums = load(mean, p, count) + sums
        before = load(top, p, count)
        tops = where_greater(tops, before, tops, before)
    store(mean, p, sums, count)
    store(top, p, tops, count)


@function
def apply(x, g, s, residual, folded, floor, past, c0, c1, positions, y):
    """y = max(x·g·s + residual, floor), the residual only if ``folded``; floor -inf leaves all.

    ``past``: y goes past the caches; its rows are then whole vectors, and aligned.
    """
    step = lanes(x)
    bottom = filled(g, floor)
    c = c0
    while c < c1:
        offset = c * positions
        rows, gates, others, out = at(x, offset), at(g, c), at(residual, offset), at(y, offset)
        # Short rows one after another, as memory lies; long ones share the reads of s.
        eight = c + 8 <= c1 and positions > SHORT
        p = 0
        while p + step <= positions:
            if eight:
                _apply_eight(rows, gates, s, others, folded, bottom, past, p, step, positions, out)
            else:
                value = filled(g, gates[0]), load(s, p, step)
                _apply_one(rows, *value, others, folded, bottom, past, p, step, out)
            p += step
        if p < positions:
            left = positions - p
            if eight:
                _apply_eight(rows, gates, s, others, folded, bottom, False, p, left, positions, out)
            else:
                value = filled(g, gates[0]), load(s, p, left)
                _apply_one(rows, *value, others, folded, bottom, False, p, left, out)
        c += 8 if eight else 1


@body
def _apply_eight(x, g, s, residual, folded, bottom, past, p, count, positions, y):
    gate = load(s, p, count)
    for row in range(8):
        q = row * positions + p
        _apply_one(x, filled(g, g[row]), gate, residual, folded, bottom, past, q, count, y)


@body
def _apply_one(x, g, s, residual, folded, bottom, past, p, count, y):
    value = load(x, p, count) * g * s
    if folded:
        value = value + load(residual, p, count)
    put_vector(y, p, where_less(value, bottom, bottom, value), count, past)
