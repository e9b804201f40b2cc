"""The channel gate's network on the descriptors of a batch, and its gradient.

Descriptors lie in rows (n, d) of C numbers, hidden units in rows of J: ``rows`` numbers them
n·D + d. W0 is (J, C), W1 is (C, J). Every sum is taken in one order, whatever part of the units or
channels is asked for.
"""

from whatwhere.ops.cpu.kernels.memory import at, scalar
from whatwhere.ops.cpu.kernels.simd import (
    body,
    filled,
    function,
    lanes,
    load,
    total,
)


@body
def _row(saved, index, depth, sample, length):
    # Row (n, d): samples lie ``sample`` numbers apart, the descriptors of one side by side.
    n, d = divmod(index, depth)
    return at(saved, n * sample + d * length)


@function
def hidden(descriptors, w0, b0, biased, n0, n1, depth, sample, channels, units, j0, j1, out, sums):
    """out = W0 d + b0 for units j0 to j1, and sums[n] = Σ_d ReLU(out)."""
    r0, r1 = n0 * depth, n1 * depth
    for j in range(j0, j1, 2):
        # The last pair of an odd number repeats a unit, the last rows a row.
        k = min(j + 1, j1 - 1)
        bias0 = b0[j] if biased else scalar(b0, 0.0)
        bias1 = b0[k] if biased else scalar(b0, 0.0)
        for r in range(r0, r1, 4):
            _hidden_block(
                descriptors, w0, bias0, bias1, r, r1, depth, sample, channels, units, j, k, out
            )
    for n in range(n0, n1):
        for j in range(j0, j1):
            whole = scalar(sums, 0.0)
            for d in range(depth):
                value = out[n * sample + d * units + j]
                whole += value if not value <= 0 else scalar(sums, 0.0)
            sums[n * units + j] = whole


@body
def _hidden_block(descriptors, w0, bias0, bias1, r, r1, depth, sample, channels, units, j, k, out):
    step = lanes(w0)
    unit0, unit1 = at(w0, j * channels), at(w0, k * channels)
    row0 = _row(descriptors, r, depth, sample, channels)
    row1 = _row(descriptors, min(r + 1, r1 - 1), depth, sample, channels)
    row2 = _row(descriptors, min(r + 2, r1 - 1), depth, sample, channels)
    row3 = _row(descriptors, min(r + 3, r1 - 1), depth, sample, channels)
    a0 = a1 = a2 = a3 = e0 = e1 = e2 = e3 = filled(w0, 0.0)
    c = 0
    while c < channels:
        count = channels - c
        u0, u1 = load(unit0, c, count), load(unit1, c, count)
        d0, d1 = load(row0, c, count), load(row1, c, count)
        d2, d3 = load(row2, c, count), load(row3, c, count)
        a0, a1, a2, a3 = a0 + u0 * d0, a1 + u0 * d1, a2 + u0 * d2, a3 + u0 * d3
        e0, e1, e2, e3 = e0 + u1 * d0, e1 + u1 * d1, e2 + u1 * d2, e3 + u1 * d3
        c += step
    _put_pair(out, r, depth, sample, units, j, k, total(a0) + bias0, total(e0) + bias1)
    if r + 1 < r1:
        _put_pair(out, r + 1, depth, sample, units, j, k, total(a1) + bias0, total(e1) + bias1)
    if r + 2 < r1:
        _put_pair(out, r + 2, depth, sample, units, j, k, total(a2) + bias0, total(e2) + bias1)
    if r + 3 < r1:
        _put_pair(out, r + 3, depth, sample, units, j, k, total(a3) + bias0, total(e3) + bias1)


@body
def _put_pair(out, r, depth, sample, units, j, k, first, second):
    row = _row(out, r, depth, sample, units)
    row[j] = first
    row[k] = second


@function
def logits(sums, w1, b1, biased, n0, n1, depth, sample, units, c0, c1, out):
    """out[n] = W1 sums[n] + D·b1 for channels c0 to c1."""
    step = lanes(w1)
    for c in range(c0, c1, 4):
        row0 = at(w1, c * units)
        row1 = at(w1, min(c + 1, c1 - 1) * units)
        row2 = at(w1, min(c + 2, c1 - 1) * units)
        row3 = at(w1, min(c + 3, c1 - 1) * units)
        for n in range(n0, n1):
            s0 = s1 = s2 = s3 = filled(w1, 0.0)
            values = at(sums, n * units)
            j = 0
            while j < units:
                count = units - j
                value = load(values, j, count)
                s0 = s0 + value * load(row0, j, count)
                s1 = s1 + value * load(row1, j, count)
                s2 = s2 + value * load(row2, j, count)
                s3 = s3 + value * load(row3, j, count)
                j += step
            row = at(out, n * sample)
            row[c] = total(s0)
            if c + 1 < c1:
                row[c + 1] = total(s1)
            if c + 2 < c1:
                row[c + 2] = total(s2)
            if c + 3 < c1:
                row[c + 3] = total(s3)
    if biased:
        for n in range(n0, n1):
            for c in range(c0, c1):
                out[n * sample + c] += depth * b1[c]
