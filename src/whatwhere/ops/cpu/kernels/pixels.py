"""Passes over one sample stored pixel by pixel: (P, C), the channels of a position side by side.

The same passes as in ``planes``, of the same arguments.
"""

import math

from whatwhere.ops.cpu.kernels.memory import at, prefetch
from whatwhere.ops.cpu.kernels.planes import gated_top_with_nan, top_with_nan
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
            four = p + 4 <= end
            rows = at(x, p * channels)
            c = c0
            while c + step <= c1:
                if four:
                    # In the order of memory: that of the loads, row by row, misleads the hardware.
                    ahead = 4 * (channels + c - c0)
                    for k in range(4):
                        prefetch(rows, ahead + k * step)
                    _pool_four(rows, c, step, channels, part, top)
                else:
                    _pool_one(rows, c, step, part, top)
                c += step
            if c < c1:
                if four:
                    _pool_four(rows, c, c1 - c, channels, part, top)
                else:
                    _pool_one(rows, c, c1 - c, part, top)
            p += 4 if four else 1
        for c in range(c0, c1, step):
            store(mean, c, load(mean, c, c1 - c) + load(part, c, c1 - c), c1 - c)
    for c in range(c0, c1):
        mean[c] = mean[c] / positions
        if mean[c] != mean[c]:
            top[c] = top_with_nan(at(x, c), channels, positions, top[c])


@body
def _pool_four(x, c, count, channels, part, top):
    x0 = load(x, c, count)
    x1 = load(x, channels + c, count)
    x2 = load(x, 2 * channels + c, count)
    x3 = load(x, 3 * channels + c, count)
    sums = (x0 + x1) + (x2 + x3)
    x0 = where_greater(x1, x0, x1, x0)
    x2 = where_greater(x3, x2, x3, x2)
    _merge(c, count, sums, where_greater(x2, x0, x2, x0), part, top)


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
    for p in range(p0, p1):
        row = at(x, p * channels)
        s0 = s1 = s2 = s3 = filled(g, 0.0)
        t0 = t1 = t2 = t3 = filled(g, -math.inf)
        c = 0
        while c + 4 * step <= channels:
            s0, t0 = _pool_gated_one(row, g, c, step, s0, t0)
            s1, t1 = _pool_gated_one(row, g, c + step, step, s1, t1)
            s2, t2 = _pool_gated_one(row, g, c + 2 * step, step, s2, t2)
            s3, t3 = _pool_gated_one(row, g, c + 3 * step, step, s3, t3)
            c += 4 * step
        while c + step <= channels:
            s0, t0 = _pool_gated_one(row, g, c, step, s0, t0)
            c += step
        if c < channels:
            s1, t1 = _pool_gated_one(row, g, c, channels - c, s1, t1)
        t0 = where_greater(t1, t0, t1, t0)
        t2 = where_greater(t3, t2, t3, t2)
        whole = total((s0 + s1) + (s2 + s3))
        mean[p] = whole / channels
        top[p] = largest(where_greater(t2, t0, t2, t0))
        if whole != whole:
            top[p] = gated_top_with_nan(row, g, 1, channels, top[p])


@body
def _pool_gated_one(x, g, c, count, sums, tops):
    value = load(x, c, count) * load(g, c, count)
    sums = sums + value
    value = keep_first(value, count, tops)
    return sums, where_greater(value, tops, value, tops)


@function
def apply(x, g, s, residual, folded, floor, past, p0, p1, channels, y):
    """y = max(x·g·s + residual, floor), as in ``planes``."""
    step = lanes(x)
    bottom = filled(g, floor)
    for p in range(p0, p1):
        offset = p * channels
        row, other, out = at(x, offset), at(residual, offset), at(y, offset)
        place = filled(g, s[p])
        c = 0
        while c + step <= channels:
            _apply_one(row, g, place, other, folded, bottom, past, c, step, out)
            c += step
        if c < channels:
            _apply_one(row, g, place, other, folded, bottom, False, c, channels - c, out)


@body
def _apply_one(x, g, s, residual, folded, bottom, past, c, count, y):
    value = load(x, c, count) * load(g, c, count) * s
    if folded:
        value = value + load(residual, c, count)
    put_vector(y, c, where_less(value, bottom, bottom, value), count, past)
