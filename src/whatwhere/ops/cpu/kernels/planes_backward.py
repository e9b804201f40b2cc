"""The gradient's passes over one sample stored plane by plane: (C, P).

With y = x·g·s, dy the gradient of y, and the maps m = mean_C(x·g), t = max_C(x·g) whose gradients
come back through the spatial gate:

1. ``products``: ds = Σ_c dy·x·g, a = Σ_p dy·x·s, and which channel owns each maximum t.
2. ``weighted``: b = Σ_p x·(dm + [owner] dt), and which position owns each channel's maximum.
3. ``gradient``: dx = g·(dy·s + dm + [owner] dt) + da, plus what the channel's maximum receives.

Sums over positions are taken tile by tile and the tiles' sums added later in one order, so that
the bits don't depend on who computed which tile. Owners are kept as numbers in vectors.
"""

import math

from whatwhere.ops.cpu.kernels.memory import at, get, prefetch, put
from whatwhere.ops.cpu.kernels.planes import SHORT
from whatwhere.ops.cpu.kernels.simd import (
    body,
    filled,
    function,
    keep_first,
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
def products(x, dy, g, s, top, p0, p1, channels, positions, ds, owner, a):
    """Positions p0 to p1 of ds and owner, and this tile's part of a."""
    step = lanes(x)
    c = 0
    while c < channels:
        four = c + 4 <= channels
        offset = c * positions
        rows, grads, gates = at(x, offset), at(dy, offset), at(g, c)
        sum0 = sum1 = sum2 = sum3 = filled(ds, 0.0)
        p = p0
        while p + step <= p1:
            if four:
                if positions <= SHORT:
                    for k in range(4):
                        prefetch(rows, 4 * (positions + p) + k * step)
                        prefetch(grads, 4 * (positions + p) + k * step)
                sums = _products_four(rows, grads, gates, s, top, c, p, step, positions, ds, owner)
            else:
                sums = _products_one(rows, grads, gates, s, top, c, p, step, ds, owner)
            sum0, sum1 = sum0 + sums[0], sum1 + sums[1]
            sum2, sum3 = sum2 + sums[2], sum3 + sums[3]
            p += step
        if p < p1:
            left = p1 - p
            if four:
                sums = _products_four(rows, grads, gates, s, top, c, p, left, positions, ds, owner)
            else:
                sums = _products_one(rows, grads, gates, s, top, c, p, left, ds, owner)
            sum0, sum1 = sum0 + sums[0], sum1 + sums[1]
            sum2, sum3 = sum2 + sums[2], sum3 + sums[3]
        a[c] = total(sum0)
        if four:
            a[c + 1], a[c + 2], a[c + 3] = total(sum1), total(sum2), total(sum3)
        c += 4 if four else 1


@body
def _products_four(x, dy, g, s, top, c, p, count, positions, ds, owner):
    gate, highest = load(s, p, count), load(top, p, count)
    owners = filled(ds, math.inf)
    q = p + 3 * positions
    # Down, so that the first channel that has the maximum is the last to be noted.
    sums, owners, a3 = _product(x, dy, g[3], gate, highest, c + 3, q, count, owners)
    part, owners, a2 = _product(x, dy, g[2], gate, highest, c + 2, q - positions, count, owners)
    sums = sums + part
    q = p + positions
    part, owners, a1 = _product(x, dy, g[1], gate, highest, c + 1, q, count, owners)
    sums = sums + part
    part, owners, a0 = _product(x, dy, g[0], gate, highest, c, p, count, owners)
    _note(c, p, count, sums + part, owners, ds, owner)
    return a0, a1, a2, a3


@body
def _products_one(x, dy, g, s, top, c, p, count, ds, owner):
    gate, highest = load(s, p, count), load(top, p, count)
    owners = filled(ds, math.inf)
    sums, owners, a0 = _product(x, dy, g[0], gate, highest, c, p, count, owners)
    _note(c, p, count, sums, owners, ds, owner)
    nothing = filled(ds, 0.0)
    return a0, nothing, nothing, nothing


@body
def _product(x, dy, g, s, top, c, q, count, owners):
    value = load(x, q, count)
    product = value * load(dy, q, count)
    gate = filled(x, g)
    owners = where_equal(value * gate, top, filled(x, c), owners)
    return product * gate, owners, product * s


@body
def _note(c, p, count, sums, owners, ds, owner):
    if c > 0:
        sums = load(ds, p, count) + sums
        before = load(owner, p, count)
        owners = where_less(before, owners, before, owners)
    store(ds, p, sums, count)
    store(owner, p, owners, count)


@function
def weighted(x, dm, dt, owner, top, p0, p1, channels, positions, b, first):
    """This tile's part of b, and the first position in it with the channel's maximum, or inf."""
    c = 0
    while c < channels:
        row = at(x, c * positions)
        if c + 4 <= channels:
            _weighted_rows(row, dm, dt, owner, at(top, c), c, 4, p0, p1, positions, b, first)
            c += 4
        else:
            _weighted_rows(row, dm, dt, owner, at(top, c), c, 1, p0, p1, positions, b, first)
            c += 1


@body
def _weighted_rows(x, dm, dt, owner, top, c, rows, p0, p1, positions, b, first):
    step = lanes(x)
    # One row is read as if it were four: three times more, to no use but from cache.
    r1, r2, r3 = min(1, rows - 1), min(2, rows - 1), min(3, rows - 1)
    s0 = s1 = s2 = s3 = filled(b, 0.0)
    f0 = f1 = f2 = f3 = filled(b, math.inf)
    p = p0
    while p < p1:
        count = p1 - p
        if positions <= SHORT:
            for k in range(4):
                prefetch(x, 4 * (positions + p) + k * step)
        mean, highest, owners = load(dm, p, count), load(dt, p, count), load(owner, p, count)
        place = steps(dm) + filled(dm, p)
        q = p
        s0, f0 = _weighted_one(x, q, count, mean, highest, owners, c, top[0], place, s0, f0)
        q = r1 * positions + p
        s1, f1 = _weighted_one(x, q, count, mean, highest, owners, c + r1, top[r1], place, s1, f1)
        q = r2 * positions + p
        s2, f2 = _weighted_one(x, q, count, mean, highest, owners, c + r2, top[r2], place, s2, f2)
        q = r3 * positions + p
        s3, f3 = _weighted_one(x, q, count, mean, highest, owners, c + r3, top[r3], place, s3, f3)
        p += step
    b[c + r3], b[c + r2], b[c + r1], b[c] = total(s3), total(s2), total(s1), total(s0)
    first[c + r3], first[c + r2] = smallest(f3), smallest(f2)
    first[c + r1], first[c] = smallest(f1), smallest(f0)


@body
def _weighted_one(x, q, count, mean, highest, owners, c, top, place, sums, best):
    value = load(x, q, count)
    weight = mean + where_equal(owners, filled(x, c), highest, filled(x, 0.0))
    found = where_equal(value, filled(x, top), place, filled(x, math.inf))
    # Beyond the last position x is 0 and may equal a maximum.
    found = keep_first(found, count, best)
    return sums + value * weight, where_less(found, best, found, best)


@function
def gradient(dy, g, s, dm, dt, owner, da, dtop, first, past, c0, c1, p0, p1, positions, dx):
    """Channels c0 to c1 of dx at positions p0 to p1; da and dtop (C,) are the pools' gradients.

    ``past``: as in ``planes.apply``.
    """
    step = lanes(dy)
    c = c0
    while c < c1:
        # Short rows one after another, as memory lies; long ones share the reads of the maps.
        four = c + 4 <= c1 and positions > SHORT
        offset = c * positions
        grads, out = at(dy, offset), at(dx, offset)
        gates, means = at(g, c), at(da, c)
        p = p0
        while p + step <= p1:
            maps = _maps(s, dm, dt, owner, p, step)
            if four:
                _gradient_four(grads, gates, maps, means, past, c, p, step, positions, out)
            else:
                _gradient_one(grads, gates[0], maps, means[0], past, c, p, step, out)
            p += step
        if p < p1:
            maps = _maps(s, dm, dt, owner, p, p1 - p)
            if four:
                _gradient_four(grads, gates, maps, means, False, c, p, p1 - p, positions, out)
            else:
                _gradient_one(grads, gates[0], maps, means[0], False, c, p, p1 - p, out)
        rows = 4 if four else 1
        for row in range(c, c + rows):
            if first[row] >= p0 and first[row] < p1:
                p = int(first[row])
                q = row * positions + p
                value = get(dy, q) * s[p] + dm[p]
                if owner[p] == row:
                    value += dt[p]
                put(dx, q, g[row] * value + da[row] + dtop[row])
        c += rows


@body
def _maps(s, dm, dt, owner, p, count):
    return load(s, p, count), load(dm, p, count), load(dt, p, count), load(owner, p, count)


@body
def _gradient_four(dy, g, maps, da, past, c, p, count, positions, dx):
    for row in range(4):
        _gradient_one(dy, g[row], maps, da[row], past, c + row, row * positions + p, count, dx)


@body
def _gradient_one(dy, g, maps, da, past, c, q, count, dx):
    gate, mean, top, owners = maps
    owned = where_equal(owners, filled(dy, c), top, filled(dy, 0.0))
    value = filled(dy, g) * (load(dy, q, count) * gate + mean + owned) + filled(dy, da)
    put_vector(dx, q, value, count, past)
