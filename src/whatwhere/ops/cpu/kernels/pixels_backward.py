"""The gradient's passes over one sample stored pixel by pixel: (P, C).

The same three passes as in ``planes_backward``, of the same arguments, each from position p0 to p1.
"""

import math

from whatwhere.ops.cpu.kernels.memory import at, get, put
from whatwhere.ops.cpu.kernels.simd import (
    body,
    filled,
    function,
    lanes,
    load,
    smallest,
    steps,
    store,
    total,
    where_equal,
    where_less,
)


@function
def products(x, dy, g, s, top, p0, p1, channels, ds, owner, a):
    """Positions p0 to p1 of ds and owner, and this tile's part of a."""
    step = lanes(x)
    for c in range(0, channels, step):
        store(a, c, filled(a, 0.0), channels - c)
    for p in range(p0, p1, 4):
        last = p1 - 1
        if p + 4 <= p1:
            _products_rows(x, dy, g, s, top, p, p + 1, p + 2, p + 3, 4, channels, ds, owner, a)
        else:
            second, third = min(p + 1, last), min(p + 2, last)
            _products_rows(
                x, dy, g, s, top, p, second, third, last, p1 - p, channels, ds, owner, a
            )


@body
def _products_rows(x, dy, g, s, top, q0, q1, q2, q3, rows, channels, ds, owner, a):
    # Four rows at a time; of fewer, some are read again and count with the weight 0 in a.
    step = lanes(x)
    e0, e1, e2, e3 = q0 * channels, q1 * channels, q2 * channels, q3 * channels
    nought, nowhere = filled(a, 0.0), filled(a, math.inf)
    s0 = filled(a, s[q0])
    s1 = filled(a, s[q1]) if rows > 1 else nought
    s2 = filled(a, s[q2]) if rows > 2 else nought
    s3 = filled(a, s[q3]) if rows > 3 else nought
    t0, t1, t2, t3 = filled(a, top[q0]), filled(a, top[q1]), filled(a, top[q2]), filled(a, top[q3])
    d0 = d1 = d2 = d3 = nought
    f0 = f1 = f2 = f3 = filled(a, math.inf)
    c = 0
    while c < channels:
        count = channels - c
        gate = load(g, c, count)
        place = steps(a) + filled(a, c)
        before = load(a, c, count)
        m0, d0, f0 = _product(x, dy, e0 + c, count, gate, t0, place, nowhere, d0, f0)
        m1, d1, f1 = _product(x, dy, e1 + c, count, gate, t1, place, nowhere, d1, f1)
        m2, d2, f2 = _product(x, dy, e2 + c, count, gate, t2, place, nowhere, d2, f2)
        m3, d3, f3 = _product(x, dy, e3 + c, count, gate, t3, place, nowhere, d3, f3)
        before = before + ((m0 * s0 + m1 * s1) + (m2 * s2 + m3 * s3))
        store(a, c, before, count)
        c += step
    _put_row(q0, d0, f0, ds, owner)
    _put_row(q1, d1, f1, ds, owner)
    _put_row(q2, d2, f2, ds, owner)
    _put_row(q3, d3, f3, ds, owner)


@body
def _product(x, dy, q, count, gate, top, place, nowhere, ds, first):
    value = load(x, q, count)
    product = value * load(dy, q, count)
    # Beyond the last channel x, dy and g are 0: these places come after all that exist.
    found = where_equal(value * gate, top, place, nowhere)
    return product, ds + product * gate, where_less(found, first, found, first)


@body
def _put_row(p, ds_sum, first, ds, owner):
    ds[p] = total(ds_sum)
    owner[p] = smallest(first)


@function
def weighted(x, dm, dt, owner, top, p0, p1, channels, b, first):
    """This tile's part of b, and the first position in it with the channel's maximum, or inf."""
    step = lanes(x)
    for c in range(0, channels, step):
        store(b, c, filled(b, 0.0), channels - c)
        store(first, c, filled(b, math.inf), channels - c)
    p = p1
    # Down, so that the last position written to ``first`` is the first that has the maximum.
    while p > p0:
        four = p - 4 >= p0
        p -= 4 if four else 1
        row = at(x, p * channels)
        c = 0
        while c < channels:
            count = channels - c
            highest = load(top, c, count)
            sums, places = load(b, c, count), load(first, c, count)
            if four:
                for k in range(3, -1, -1):
                    value = load(row, k * channels + c, count)
                    sums = sums + value * filled(b, dm[p + k])
                    places = where_equal(value, highest, filled(b, p + k), places)
            else:
                value = load(row, c, count)
                sums = sums + value * filled(b, dm[p])
                places = where_equal(value, highest, filled(b, p), places)
            store(b, c, sums, count)
            store(first, c, places, count)
            c += step
        for k in range(4 if four else 1):
            if owner[p + k] < channels:
                c = int(owner[p + k])
                b[c] += get(row, k * channels + c) * dt[p + k]


@function
def gradient(dy, g, s, dm, dt, owner, da, dtop, first, p0, p1, channels, dx):
    """Positions p0 to p1 of dx; da and dtop (C,) are the gradients of the channel's pools."""
    step = lanes(dy)
    p = p0
    while p < p1:
        four = p + 4 <= p1
        rows = 4 if four else 1
        grads, out = at(dy, p * channels), at(dx, p * channels)
        c = 0
        while c < channels:
            count = channels - c
            if four:
                _gradient_rows(
                    grads, g, s, dm, da, dtop, first, p, 4, c, count, channels, out
                )
            else:
                _gradient_rows(
                    grads, g, s, dm, da, dtop, first, p, 1, c, count, channels, out
                )
            c += step
        for row in range(rows):
            q = p + row
            if owner[q] < channels:
                c = int(owner[q])
                value = g[c] * (get(grads, row * channels + c) * s[q] + dm[q] + dt[q]) + da[c]
                if first[c] == q:
                    value += dtop[c]
                put(out, row * channels + c, value)
        p += rows


@body
def _gradient_rows(dy, g, s, dm, da, dtop, first, p, rows, c, count, channels, dx):
    gate, mean, top = load(g, c, count), load(da, c, count), load(dtop, c, count)
    place = load(first, c, count)
    for row in range(rows):
        q = row * channels + c
        value = load(dy, q, count) * filled(g, s[p + row]) + filled(g, dm[p + row])
        owned = where_equal(place, filled(g, p + row), top, filled(g, 0.0))
        store(dx, q, gate * value + mean + owned, count)
