"""Sums of deviations, squared or not, over the rows or the columns of one sample.

A sample is a matrix of rows, its columns side by side in memory: of channels by positions where
planes are stored, of positions by channels where pixels are. The weights w belong to the axis that
is pooled. Squares are summed in a second pass, about the mean of the first, which loses nothing to
cancellation.
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
def of_rows(x, w, r0, r1, columns, centre, kind, out):
    """out[r] = Σ_k (x[r, k]·w[k] - centre[r])² for rows r0 to r1.

    ``kind`` says whether there is a centre, else it is 0, and whether to square.
    """
    centred, squared = kind
    for r in range(r0, r1):
        row = at(x, r * columns)
        middle = filled(out, centre[r] if centred else 0.0)
        whole = 0.0
        for start in range(0, columns, BLOCK):
            count = min(columns - start, BLOCK)
            whole += _row_block(at(row, start), at(w, start), middle, squared, count)
        out[r] = whole


@body
def _row_block(x, w, middle, squared, count):
    step = lanes(x)
    s0 = s1 = s2 = s3 = filled(w, 0.0)
    k = 0
    while k + 4 * step <= count:
        s0 = s0 + _term(x, load(w, k, step), middle, squared, k, step)
        s1 = s1 + _term(x, load(w, k + step, step), middle, squared, k + step, step)
        s2 = s2 + _term(x, load(w, k + 2 * step, step), middle, squared, k + 2 * step, step)
        s3 = s3 + _term(x, load(w, k + 3 * step, step), middle, squared, k + 3 * step, step)
        k += 4 * step
    while k + step <= count:
        s0 = s0 + _term(x, load(w, k, step), middle, squared, k, step)
        k += step
    if k < count:
        s1 = s1 + _term(x, load(w, k, count - k), middle, squared, k, count - k)
    return total((s0 + s1) + (s2 + s3))


@body
def _term(x, w, middle, squared, k, count):
    deviation = load(x, k, count) * w - middle
    if squared:
        deviation = deviation * deviation
    return keep_first(deviation, count, filled(x, 0.0))


@function
def of_columns(x, w, k0, k1, rows, columns, centre, kind, part, out):
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
                _column(row, weight, centre, kind, k, step, part)
                k += step
            if k < k1:
                _column(row, weight, centre, kind, k, k1 - k, part)
        for k in range(k0, k1, step):
            store(out, k, load(out, k, k1 - k) + load(part, k, k1 - k), k1 - k)


@body
def _column(x, weight, centre, kind, k, count, part):
    centred, squared = kind
    middle = load(centre, k, count) if centred else filled(part, 0.0)
    term = _term(x, weight, middle, squared, k, count)
    store(part, k, load(part, k, count) + term, count)


@function
def roots(sums, i0, i1, divisor):
    """sums[i] = √(sums[i] / divisor + 1e-5)."""
    for i in range(i0, i1):
        sums[i] = math.sqrt(sums[i] / divisor + EPSILON)
