"""Sums of squared deviations over the rows or the columns of one sample, for "std" and "l2".

A sample is a matrix of rows, its columns side by side in memory: of channels by positions where
planes are stored, of positions by channels where pixels are. The weights w belong to the axis that
is pooled. A second pass, about the mean of the first, loses nothing to cancellation.
"""

import math

from whatwhere.ops.cpu.kernels.memory import at
from whatwhere.ops.cpu.kernels.simd import (
    body,
    filled,
    function,
    keep_first,
    lanes,
    load,
    store,
    total,
)

# Sums of at most so many elements are added in one go, and these sums added up.
BLOCK = 8192
ROWS = 512
EPSILON = 1e-5


@function
def of_rows(x, w, r0, r1, columns, centre, centred, out):
    """out[r] = Σ_k (x[r, k]·w[k] - centre[r])² for rows r0 to r1; without ``centred`` about 0."""
    for r in range(r0, r1):
        row = at(x, r * columns)
        middle = filled(out, centre[r] if centred else 0.0)
        whole = 0.0
        for start in range(0, columns, BLOCK):
            count = min(columns - start, BLOCK)
            whole += _row_block(at(row, start), at(w, start), middle, count)
        out[r] = whole


@body
def _row_block(x, w, middle, count):
    step = lanes(x)
    s0 = s1 = s2 = s3 = filled(w, 0.0)
    k = 0
    while k + 4 * step <= count:
        s0 = s0 + _square(x, load(w, k, step), middle, k, step)
        s1 = s1 + _square(x, load(w, k + step, step), middle, k + step, step)
        s2 = s2 + _square(x, load(w, k + 2 * step, step), middle, k + 2 * step, step)
        s3 = s3 + _square(x, load(w, k + 3 * step, step), middle, k + 3 * step, step)
        k += 4 * step
    while k + step <= count:
        s0 = s0 + _square(x, load(w, k, step), middle, k, step)
        k += step
    if k < count:
        s1 = s1 + _square(x, load(w, k, count - k), middle, k, count - k)
    return total((s0 + s1) + (s2 + s3))


@body
def _square(x, w, middle, k, count):
    deviation = load(x, k, count) * w - middle
    return keep_first(deviation * deviation, count, filled(x, 0.0))


@function
def of_columns(x, w, k0, k1, rows, columns, centre, centred, part, out):
    """out[k] = Σ_r (x[r, k]·w[r] - centre[k])² for columns k0 to k1; part is scratch."""
    step = lanes(x)
    for k in range(k0, k1, step):
        store(out, k, filled(out, 0.0), k1 - k)
    for start in range(0, rows, ROWS):
        for k in range(k0, k1, step):
            store(part, k, filled(out, 0.0), k1 - k)
        for r in range(start, min(rows, start + ROWS)):
            row = at(x, r * columns)
            weight = filled(out, w[r])
            k = k0
            while k + step <= k1:
                _column(row, weight, centre, centred, k, step, part)
                k += step
            if k < k1:
                _column(row, weight, centre, centred, k, k1 - k, part)
        for k in range(k0, k1, step):
            store(out, k, load(out, k, k1 - k) + load(part, k, k1 - k), k1 - k)


@body
def _column(x, weight, centre, centred, k, count, part):
    middle = load(centre, k, count) if centred else filled(part, 0.0)
    square = _square(x, weight, middle, k, count)
    store(part, k, load(part, k, count) + square, count)


@function
def roots(sums, i0, i1, divisor):
    """sums[i] = √(sums[i] / divisor + 1e-5)."""
    for i in range(i0, i1):
        sums[i] = math.sqrt(sums[i] / divisor + EPSILON)
