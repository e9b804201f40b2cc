"""The passes of the primitives' gradients over one sample, a matrix as in ``spread``.

With v = x·w, w the weights on the pooled axis, the gradients of all descriptors come back as
q = shift + slope·(v - centre) + [first maximum] dtop, where slope = dstd/((n - 1)·std) + dl2/l2;
then dx = w·q and dw = Σ x·q. For "std" the centre is v's first element, and shift takes out what is
left of the mean; without "std" the centre is 0.

``terms`` are shift, slope, centre, top and dtop along the kept axis. ``wanted`` says whether
there are slope and centre, whether there are maxima, and whether dw is asked for.
"""

import math

from whatwhere.ops.cpu import layout as A
from whatwhere.ops.cpu.kernels import spread
from whatwhere.ops.cpu.kernels.forward import row_or
from whatwhere.ops.cpu.kernels.memory import at, get, put, scalar, wide
from whatwhere.ops.cpu.kernels.simd import (
    body,
    filled,
    function,
    keep_first,
    lanes,
    load,
    smallest,
    steps,
    store,
    total,
    where_at_most,
    where_equal,
    where_less,
)

spread_of_rows, spread_of_columns = spread.of_rows, spread.of_columns


@function
def coefficients(tag, a, n, length, count, i0, i1, centre, residual, scratch):
    """The terms of descriptors i0 to i1 of sample n, each over ``count`` elements.

    With "std", residual is Σ (v - centre): so the mean is not rounded before it is subtracted.
    """
    shift, slope = scratch, at(scratch, length)
    pooled = at(wide(tag, a[A.POOLED]), n * a[A.DEPTH] * length)
    grad = at(wide(tag, a[A.DPOOLED]), n * a[A.DEPTH] * length)
    zero = scalar(shift, 0.0)
    share = scalar(shift, 1.0 / count)
    for i in range(i0, i1):
        shift[i] = grad[a[A.MEAN] * length + i] * share if a[A.MEAN] >= 0 else zero
    if a[A.STD] >= 0:
        for i in range(i0, i1):
            place = a[A.STD] * length + i
            slope[i] = grad[place] / (max(count - 1, 1) * pooled[place])
            shift[i] -= slope[i] * (residual[i] * share)
    if a[A.L2] >= 0:
        for i in range(i0, i1):
            place = a[A.L2] * length + i
            ratio = grad[place] / pooled[place]
            if a[A.STD] >= 0:
                slope[i] += ratio
                shift[i] += ratio * centre[i]
            else:
                slope[i], centre[i] = ratio, zero
    top, dtop = row_or(pooled, a[A.TOP], length, shift), row_or(grad, a[A.TOP], length, shift)
    return shift, slope, centre, top, dtop


@function
def row_terms(tag, a, n, x, w, r0, r1, scratch):
    """The terms of the rows r0 to r1."""
    rows, columns = a[A.ROWS], a[A.COLUMNS]
    centre, residual = at(scratch, 2 * rows), at(scratch, 3 * rows)
    if a[A.STD] >= 0:
        for r in range(r0, r1):
            centre[r] = get(x, r * columns) * w[0]
        spread_of_rows(x, w, r0, r1, columns, centre, (True, False), residual)
    return coefficients(tag, a, n, rows, columns, r0, r1, centre, residual, scratch)


@function
def column_terms(tag, a, n, x, w, k0, k1, scratch):
    """The terms of the columns k0 to k1."""
    rows, columns = a[A.ROWS], a[A.COLUMNS]
    centre, residual = at(scratch, 2 * columns), at(scratch, 3 * columns)
    if a[A.STD] >= 0:
        for k in range(k0, k1):
            centre[k] = get(x, k) * w[0]
        part = at(scratch, 4 * columns)
        spread_of_columns(x, w, k0, k1, rows, columns, centre, (True, False), part, residual)
    return coefficients(tag, a, n, columns, rows, k0, k1, centre, residual, scratch)


@function
def place_of(top, x, stride, w, count):
    """Where x·w, along a strided row, is ``top`` first, or NaN; ``count`` where it is nowhere."""
    for i in range(count):
        value = get(x, i * stride) * w[i]
        if value == top or value != value:
            return i
    return count


@function
def rows_gradient(x, w, terms, wanted, r0, r1, columns, dx, dw):
    """Rows r0 to r1 of dx; their part of dw is added to it."""
    step = lanes(x)
    spread, topped, gated = wanted
    shift, slope, centre, top, dtop = terms
    for r in range(r0, r1):
        row, out = at(x, r * columns), at(dx, r * columns)
        line = filled(w, shift[r]), filled(w, 0.0), filled(w, 0.0)
        if spread:
            line = line[0], filled(w, slope[r]), filled(w, centre[r])
        highest = filled(w, top[r] if topped else math.nan)
        best = filled(w, math.inf)
        # Where the maximum is no number, 0 times it would be NaN: its place is passed over in dw.
        endless = topped and top[r] - top[r] != 0
        owner, before = columns, scalar(w, 0.0)
        if endless:
            owner = place_of(top[r], row, 1, w, columns)
            if gated and owner < columns:
                before = dw[owner]
        k = 0
        while k + step <= columns:
            best = _row(row, w, line, highest, spread, gated, k, step, best, out, dw)
            k += step
        if k < columns:
            best = _row(row, w, line, highest, spread, gated, k, columns - k, best, out, dw)
        if topped and not endless:
            owner = int(min(smallest(best), columns))
        if owner < columns:
            value = get(row, owner)
            grad = _owner(value, w[owner], terms, spread, r, owner, out)
            if gated and endless:
                dw[owner] = before + value * grad
            elif gated:
                dw[owner] += value * dtop[r]


@body
def _row(x, w, line, highest, spread, gated, k, count, best, dx, dw):
    shift, slope, centre = line
    value, weight = load(x, k, count), load(w, k, count)
    product = value * weight
    grad = shift
    if spread:
        grad = shift + slope * (product - centre)
    store(dx, k, weight * grad, count)
    if gated:
        store(dw, k, load(dw, k, count) + value * grad, count)
    found = where_equal(product, highest, steps(w) + filled(w, k), filled(w, math.inf))
    found = keep_first(found, count, best)
    return where_less(found, best, found, best)


@body
def _owner(value, weight, terms, spread, i, q, dx):
    # The gradient where descriptor i has its maximum; dx there is put right.
    shift, slope, centre, _, dtop = terms
    grad = shift[i] + dtop[i]
    if spread:
        grad += slope[i] * (value * weight - centre[i])
    put(dx, q, weight * grad)
    return grad


@function
def columns_gradient(x, w, terms, left, wanted, k0, k1, rows, columns, dx, dw):
    """Columns k0 to k1 of dx, and their part of dw.

    ``left`` holds the maxima whose first place is not found yet, NaN for the others.
    """
    step = lanes(x)
    spread, topped, gated = wanted
    _, _, _, top, dtop = terms
    if topped:
        for k in range(k0, k1, step):
            store(left, k, load(top, k, k1 - k), k1 - k)
    for r in range(rows):
        row, out, weight = at(x, r * columns), at(dx, r * columns), filled(w, w[r])
        sums = filled(w, 0.0)
        k = k0
        while k + step <= k1:
            sums = sums + _column(row, weight, terms, left, spread, topped, k, step, out)
            k += step
        if k < k1:
            sums = sums + _column(row, weight, terms, left, spread, topped, k, k1 - k, out)
        if gated:
            dw[r] = total(sums)
    if topped:
        for k in range(k0, k1):
            if top[k] != top[k]:
                r = min(place_of(top[k], at(x, k), columns, w, rows), rows - 1)
                q = r * columns + k
                _owner(get(x, q), w[r], terms, spread, k, q, dx)
                if gated:
                    dw[r] += get(x, q) * dtop[k]


@body
def _column(x, weight, terms, left, spread, topped, k, count, dx):
    shift, slope, centre, _, dtop = terms
    value = load(x, k, count)
    product = value * weight
    grad = load(shift, k, count)
    if spread:
        grad = grad + load(slope, k, count) * (product - load(centre, k, count))
    if topped:
        highest = load(left, k, count)
        grad = grad + where_equal(product, highest, load(dtop, k, count), filled(left, 0.0))
        store(left, k, where_equal(product, highest, filled(left, math.nan), highest), count)
    store(dx, k, weight * grad, count)
    return value * grad


@function
def products(x, dy, y, masked, u, v, summed, r0, r1, columns, dx, du, dv):
    """Rows r0 to r1 of the gradients of y = x·u·v, u on the rows and v on the columns.

    Their part of dv is added to it, with ``summed``. With ``masked`` dy comes back through the
    ReLU that made y.
    """
    step = lanes(x)
    for r in range(r0, r1):
        offset = r * columns
        row, grads, ys, out = at(x, offset), at(dy, offset), at(y, offset), at(dx, offset)
        gate, sums = filled(u, u[r]), filled(u, 0.0)
        k = 0
        while k + step <= columns:
            sums = sums + _product(row, grads, ys, masked, gate, v, summed, k, step, out, dv)
            k += step
        if k < columns:
            left = columns - k
            sums = sums + _product(row, grads, ys, masked, gate, v, summed, k, left, out, dv)
        du[r] = total(sums)


@body
def _product(x, dy, y, masked, u, v, summed, k, count, dx, dv):
    grad, gate = load(dy, k, count), load(v, k, count)
    if masked:
        zero = filled(v, 0.0)
        grad = where_at_most(load(y, k, count), zero, zero, grad)
    product = load(x, k, count) * grad
    store(dx, k, grad * u * gate, count)
    if summed:
        store(dv, k, load(dv, k, count) + product * u, count)
    return product * gate


@function
def clear(row, length):
    """A row of zeros."""
    for i in range(0, length, lanes(row)):
        store(row, i, filled(row, 0.0), length - i)


@function
def add_up(parts, tiles, length, out):
    """out = Σ_tile parts[tile], in this order."""
    for i in range(0, length, lanes(parts)):
        whole = filled(parts, 0.0)
        for tile in range(tiles):
            whole = whole + load(parts, tile * length + i, length - i)
        store(out, i, whole, length - i)
