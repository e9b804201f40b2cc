"""Passes over one sample stored pixel by pixel: (P, C), the channels of a position side by side.

The same passes as in ``planes``, of the same arguments.
"""

import math

from whatwhere.ops.cpu.kernels.memory import at
from whatwhere.ops.cpu.kernels.planes import gated_top_with_nan, top_with_nan
from whatwhere.ops.cpu.kernels.simd import (
    body,
    filled,
    function,
    keep_first,
    lanes,
    largest,
    load,
    store,
    total,
    where_greater,
    where_less,
)

# Sums of at most so many positions are added in one go, and these sums added up.
BLOCK = 512


@function
def pool(x, c0, c1, channels, positions, part, mean, top):
    """mean[c] and top[c] over all positions, for channels c0 to c1; part (C,) is scratch."""
    step = lanes(x)
    for c in range(c0, c1, step):
        store(mean, c, filled(mean, 0.0), c1 - c)
        store(top, c, filled(mean, -math.inf), c1 - c)
    for start in range(0, positions, BLOCK):
        end = min(positions, start + BLOCK)
        for c in range(c0, c1, step):
            store(part, c, filled(mean, 0.0), c1 - c)
        p = start
        while p < end:
            eight = p + 8 <= end
            rows = at(x, p * channels)
            c = c0
            while c + step <= c1:
                if eight:
                    _pool_eight(rows, c, step, channels, part, top)
                else:
                    _pool_one(rows, c, step, part, top)
                c += step
            if c < c1:
                if eight:
                    _pool_eight(rows, c, c1 - c, channels, part, top)
                else:
                    _pool_one(rows, c, c1 - c, part, top)
            p += 8 if eight else 1
        for c in range(c0, c1, step):
            store(mean, c, load(mean, c, c1 - c) + load(part, c, c1 - c), c1 - c)
    for c in range(c0, c1):
        mean[c] = mean[c] / positions
        if mean[c] != mean[c]:
            top[c] = top_with_nan(at(x, c), channels, positions, top[c])


@body
def _pool_eight(x, c, count, channels, part, top):
    x0 = load(x, c, count)
    x1 = load(x, channels + c, count)
    x2 = load(x, 2 * channels + c, count)
    x3 = load(x, 3 * channels + c, count)
    x4 = load(x, 4 * channels + c, count)
    x5 = load(x, 5 * channels + c, count)
    x6 = load(x, 6 * channels + c, count)
    x7 = load(x, 7 * channels + c, count)
    sums = ((x0 + x1) + (x2 + x3)) + ((x4 + x5) + (x6 + x7))
    x0 = where_greater(x1, x0, x1, x0)
    x2 = where_greater(x3, x2, x3, x2)
    x4 = where_greater(x5, x4, x5, x4)
    x6 = where_greater(x7, x6, x7, x6)
    x0 = where_greater(x2, x0, x2, x0)
    x4 = where_greater(x6, x4, x6, x4)
    _merge(c, count, sums, where_greater(x4, x0, x4, x0), part, top)


@body
def _pool_one(x, c, count, part, top):
    value = load(x, c, count)
    _merge(c, count, value, value, part, top)


@body
def _merge(c, count, sums, tops, part, top):
    before = load(top, c, count)
    store(part, c, load(part, c, count) + sums, count)
    store(top, c, where_greater(tops, before, tops, before), count)


@function
def pool_gated(x, g, p0, p1, channels, mean, top):
    """mean[p] and top[p], the mean and the maximum of x·g over the channels."""
    step = lanes(x)
    for p in range(p0, p1, 4):
        # The last rows of a number that four does not divide are done again.
        row0 = at(x, p * channels)
        row1 = at(x, min(p + 1, p1 - 1) * channels)
        row2 = at(x, min(p + 2, p1 - 1) * channels)
        row3 = at(x, min(p + 3, p1 - 1) * channels)
        s0 = s1 = s2 = s3 = filled(g, 0.0)
        t0 = t1 = t2 = t3 = filled(g, -math.inf)
        c = 0
        while c + step <= channels:
            gate = load(g, c, step)
            v0, v1 = load(row0, c, step) * gate, load(row1, c, step) * gate
            v2, v3 = load(row2, c, step) * gate, load(row3, c, step) * gate
            s0, s1, s2, s3 = s0 + v0, s1 + v1, s2 + v2, s3 + v3
            t0, t1 = where_greater(v0, t0, v0, t0), where_greater(v1, t1, v1, t1)
            t2, t3 = where_greater(v2, t2, v2, t2), where_greater(v3, t3, v3, t3)
            c += step
        if c < channels:
            count = channels - c
            gate = load(g, c, count)
            v0, v1 = load(row0, c, count) * gate, load(row1, c, count) * gate
            v2, v3 = load(row2, c, count) * gate, load(row3, c, count) * gate
            s0, s1, s2, s3 = s0 + v0, s1 + v1, s2 + v2, s3 + v3
            v0, v1 = keep_first(v0, count, t0), keep_first(v1, count, t1)
            v2, v3 = keep_first(v2, count, t2), keep_first(v3, count, t3)
            t0, t1 = where_greater(v0, t0, v0, t0), where_greater(v1, t1, v1, t1)
            t2, t3 = where_greater(v2, t2, v2, t2), where_greater(v3, t3, v3, t3)
        _finish(row0, g, p, channels, s0, t0, mean, top)
        _finish(row1, g, min(p + 1, p1 - 1), channels, s1, t1, mean, top)
        _finish(row2, g, min(p + 2, p1 - 1), channels, s2, t2, mean, top)
        _finish(row3, g, min(p + 3, p1 - 1), channels, s3, t3, mean, top)


@body
def _finish(row, g, p, channels, sums, tops, mean, top):
    whole = total(sums)
    mean[p] = whole / channels
    top[p] = largest(tops)
    if whole != whole:
        top[p] = gated_top_with_nan(row, g, 1, channels, top[p])


@function
def apply(x, g, s, residual, folded, floor, p0, p1, channels, y):
    """y = max(x·g·s + residual, floor), the residual only if ``folded``; floor -inf leaves all."""
    step = lanes(x)
    bottom = filled(g, floor)
    p = p0
    while p < p1:
        four = p + 4 <= p1
        offset = p * channels
        rows, others, out = at(x, offset), at(residual, offset), at(y, offset)
        gates = at(s, p)
        c = 0
        while c + step <= channels:
            gate = load(g, c, step)
            if four:
                _apply_four(rows, gate, gates, others, folded, bottom, c, step, channels, out)
            else:
                place = filled(g, gates[0])
                _apply_one(rows, gate, place, others, folded, bottom, c, step, out)
            c += step
        if c < channels:
            left = channels - c
            gate = load(g, c, left)
            if four:
                _apply_four(rows, gate, gates, others, folded, bottom, c, left, channels, out)
            else:
                place = filled(g, gates[0])
                _apply_one(rows, gate, place, others, folded, bottom, c, left, out)
        p += 4 if four else 1


@body
def _apply_four(x, gate, s, residual, folded, bottom, c, count, channels, y):
    for row in range(4):
        q = row * channels + c
        _apply_one(x, gate, filled(s, s[row]), residual, folded, bottom, q, count, y)


@body
def _apply_one(x, g, s, residual, folded, bottom, q, count, y):
    value = load(x, q, count) * g * s
    if folded:
        value = value + load(residual, q, count)
    store(y, q, where_less(value, bottom, bottom, value), count)
