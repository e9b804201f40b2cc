"""The gradient's passes over one sample stored pixel by pixel: (P, C).

The same three passes as in ``planes_backward``, of the same arguments, each from position p0 to p1.
"""

import math

from whatwhere.ops.cpu.kernels.memory import at, get, prefetch, put
from whatwhere.ops.cpu.kernels.simd import (
    body,
    filled,
    function,
    lanes,
    load,
    put_vector,
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
    p = p0
    while p < p1:
        two = p + 2 <= p1
        q = p + 1 if two else p
        rows, grads = at(x, p * channels), at(dy, p * channels)
        second = channels if two else 0
        # A row alone is read twice, the second time without weight.
        s0 = filled(a, s[p])
        s1 = filled(a, s[q]) if two else filled(a, 0.0)
        t0, t1 = filled(a, top[p]), filled(a, top[q])
        d0 = d1 = filled(a, 0.0)
        f0 = f1 = filled(a, math.inf)
        c = 0
        while c + step <= channels:
            ahead = 2 * (channels + c)
            prefetch(rows, ahead)
            prefetch(rows, ahead + step)
            prefetch(grads, ahead)
            prefetch(grads, ahead + step)
            d0, d1, f0, f1 = _products_two(
                rows, grads, g, c, step, second, s0, s1, t0, t1, d0, d1, f0, f1, a
            )
            c += step
        if c < channels:
            d0, d1, f0, f1 = _products_two(
                rows, grads, g, c, channels - c, second, s0, s1, t0, t1, d0, d1, f0, f1, a
            )
        ds[p], ds[q] = total(d0), total(d1)
        owner[p], owner[q] = smallest(f0), smallest(f1)
        p += 2


@body
def _products_two(x, dy, g, c, count, second, s0, s1, t0, t1, d0, d1, f0, f1, a):
    gate = load(g, c, count)
    # Beyond the last channel x·g is 0 and may equal a maximum; these places come last.
    place = steps(a) + filled(a, c)
    nowhere = filled(a, math.inf)
    x0, x1 = load(x, c, count), load(x, second + c, count)
    m0, m1 = x0 * load(dy, c, count), x1 * load(dy, second + c, count)
    store(a, c, load(a, c, count) + (m0 * s0 + m1 * s1), count)
    found0 = where_equal(x0 * gate, t0, place, nowhere)
    found1 = where_equal(x1 * gate, t1, place, nowhere)
    f0 = where_less(found0, f0, found0, f0)
    f1 = where_less(found1, f1, found1, f1)
    return d0 + m0 * gate, d1 + m1 * gate, f0, f1


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
        while c + step <= channels:
            if four:
                ahead = 4 * (c - channels)
                for k in range(4):
                    prefetch(row, ahead + k * step)
                _weighted_rows(row, dm, top, p, 4, c, step, channels, b, first)
            else:
                _weighted_rows(row, dm, top, p, 1, c, step, channels, b, first)
            c += step
        if c < channels:
            rows = 4 if four else 1
            _weighted_rows(row, dm, top, p, rows, c, channels - c, channels, b, first)
        for k in range(4 if four else 1):
            if owner[p + k] < channels:
                c = int(owner[p + k])
                b[c] += get(row, k * channels + c) * dt[p + k]


@body
def _weighted_rows(x, dm, top, p, rows, c, count, channels, b, first):
    highest = load(top, c, count)
    sums, places = load(b, c, count), load(first, c, count)
    for k in range(rows - 1, -1, -1):
        value = load(x, k * channels + c, count)
        sums = sums + value * filled(b, dm[p + k])
        places = where_equal(value, highest, filled(b, p + k), places)
    store(b, c, sums, count)
    store(first, c, places, count)


@function
def gradient(dy, g, s, dm, dt, owner, da, dtop, first, past, p0, p1, channels, dx):
    """Positions p0 to p1 of dx; da and dtop (C,) are the gradients of the channel's pools."""
    step = lanes(dy)
    for p in range(p0, p1):
        grads, out = at(dy, p * channels), at(dx, p * channels)
        # What the owner receives goes with the rest: a number put into memory that was just
        # written past the caches would have to be waited for.
        maps = filled(g, s[p]), filled(g, dm[p]), filled(g, dt[p]), filled(g, owner[p])
        c = 0
        while c + step <= channels:
            _gradient_one(grads, g, maps, da, past, c, step, out)
            c += step
        if c < channels:
            _gradient_one(grads, g, maps, da, False, c, channels - c, out)
    for c in range(channels):
        if first[c] >= p0 and first[c] < p1:
            p = int(first[c])
            q = p * channels + c
            value = get(dy, q) * s[p] + dm[p]
            if owner[p] == c:
                value += dt[p]
            put(dx, q, g[c] * value + da[c] + dtop[c])


@body
def _gradient_one(dy, g, maps, da, past, c, count, dx):
    place, mean, top, owners = maps
    owned = where_equal(steps(g) + filled(g, c), owners, top, filled(g, 0.0))
    value = load(g, c, count) * (load(dy, c, count) * place + mean + owned) + load(da, c, count)
    put_vector(dx, c, value, count, past)
