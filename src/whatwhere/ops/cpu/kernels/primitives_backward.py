"""Pooling and applying gates, backward: the passes, and what one thread does with its pieces.

A sample is a matrix, as in ``spread``. Its kept axis is cut into tiles; what is summed over that
axis is summed tile by tile, and the tiles' sums added in one order, so that the bits don't depend
on who computed which tile.

With v = x·w, w the weights on the pooled axis, every descriptor's gradient comes back as
q = shift + slope·(v - centre) + [first maximum] dtop, and dx = w·q, dw = Σ x·q:
shift = dmean/n + centre·dl2/l2, slope = dstd/((n - 1)·std) + dl2/l2, centre = mean, or 0.
"""

import math
from typing import Any

from whatwhere.ops.cpu import layout as A
from whatwhere.ops.cpu.kernels.forward import edge, row_or
from whatwhere.ops.cpu.kernels.memory import at, get, integers, put, scalar, stored, take, wide
from whatwhere.ops.cpu.kernels.primitives import area_with_ones, gate_or_ones
from whatwhere.ops.cpu.kernels.simd import (
    _choice,
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
    where_equal,
    where_less,
)

where_at_most = _choice("<=")


@function
def coefficients(tag, a, n, length, count, i0, i1, shift, slope, centre):
    """shift, slope and centre of descriptors i0 to i1 of sample n, each over ``count`` elements."""
    step = lanes(shift)
    pooled = at(wide(tag, a[A.POOLED]), n * a[A.DEPTH] * length)
    grad = at(wide(tag, a[A.DPOOLED]), n * a[A.DEPTH] * length)
    share = filled(shift, 1.0 / count if a[A.MEAN] >= 0 else 0.0)
    dmean = row_or(grad, a[A.MEAN], length, pooled)
    for i in range(i0, i1, step):
        store(shift, i, load(dmean, i, i1 - i) * share, i1 - i)
    if a[A.STD] >= 0 or a[A.L2] >= 0:
        zero = scalar(shift, 0.0)
        means = at(wide(tag, a[A.MEANS]), n * a[A.MEANS_LENGTH])
        for i in range(i0, i1):
            slope[i], centre[i] = zero, zero
            if a[A.STD] >= 0:
                place = a[A.STD] * length + i
                slope[i] = grad[place] / (max(count - 1, 1) * pooled[place])
                centre[i] = means[i]
            if a[A.L2] >= 0:
                place = a[A.L2] * length + i
                ratio = grad[place] / pooled[place]
                slope[i] += ratio
                shift[i] += ratio * centre[i]


@function
def first_nan(x, stride, w, count):
    """Where x·w is NaN first, along a strided row; ``count`` where it is nowhere."""
    for i in range(count):
        value = get(x, i * stride) * w[i]
        if value != value:
            return i
    return count


@function
def rows_gradient(
    x, w, shift, slope, centre, top, dtop, spread, topped, gated, r0, r1, columns, dx, dw
):
    """Rows r0 to r1 of dx, and, with ``gated``, their part of dw."""
    step = lanes(x)
    if gated:
        for k in range(0, columns, step):
            store(dw, k, filled(w, 0.0), columns - k)
    for r in range(r0, r1):
        row, out = at(x, r * columns), at(dx, r * columns)
        a, b, m = filled(w, shift[r]), filled(w, 0.0), filled(w, 0.0)
        if spread:
            b, m = filled(w, slope[r]), filled(w, centre[r])
        highest = filled(w, top[r] if topped else math.nan)
        best = filled(w, math.inf)
        k = 0
        while k + step <= columns:
            best = _row(row, w, a, b, m, highest, spread, gated, k, step, best, out, dw)
            k += step
        if k < columns:
            best = _row(row, w, a, b, m, highest, spread, gated, k, columns - k, best, out, dw)
        if topped:
            _row_owner(row, w, shift, slope, centre, top, dtop, spread, gated, r, columns, best, out, dw)


@body
def _row(x, w, shift, slope, centre, highest, spread, gated, k, count, best, dx, dw):
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
def _row_owner(x, w, shift, slope, centre, top, dtop, spread, gated, r, columns, best, dx, dw):
    place = smallest(best)
    k = columns
    if place < columns:
        k = int(place)
    elif top[r] != top[r]:
        k = first_nan(x, 1, w, columns)
    if k < columns:
        grad = shift[r] + dtop[r]
        if spread:
            grad += slope[r] * (get(x, k) * w[k] - centre[r])
        put(dx, k, w[k] * grad)
        if gated:
            dw[k] += get(x, k) * dtop[r]


@function
def columns_gradient(
    x, w, shift, slope, centre, top, dtop, left, spread, topped, gated, k0, k1, rows, columns, dx, dw
):
    """Columns k0 to k1 of dx, and, with ``gated``, their part of dw; ``left`` is scratch.

    ``left`` holds the maxima whose first place is not found yet, NaN for the others.
    """
    step = lanes(x)
    if topped:
        for k in range(k0, k1, step):
            store(left, k, load(top, k, k1 - k), k1 - k)
    for r in range(rows):
        row, out, weight = at(x, r * columns), at(dx, r * columns), filled(w, w[r])
        sums = filled(w, 0.0)
        k = k0
        while k + step <= k1:
            sums = sums + _column(
                row, weight, shift, slope, centre, dtop, left, spread, topped, k, step, out
            )
            k += step
        if k < k1:
            sums = sums + _column(
                row, weight, shift, slope, centre, dtop, left, spread, topped, k, k1 - k, out
            )
        if gated:
            dw[r] = total(sums)
    if topped:
        for k in range(k0, k1):
            if top[k] != top[k]:
                r = min(first_nan(at(x, k), columns, w, rows), rows - 1)
                grad = shift[k] + dtop[k]
                if spread:
                    grad += slope[k] * (get(x, r * columns + k) * w[r] - centre[k])
                put(dx, r * columns + k, w[r] * grad)
                if gated:
                    dw[r] += get(x, r * columns + k) * dtop[k]


@body
def _column(x, weight, shift, slope, centre, dtop, left, spread, topped, k, count, dx):
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
def products(x, dy, y, masked, u, v, summed, r0, r1, k0, k1, columns, dx, du, dv):
    """dx, du and dv of y = x·u·v for the rows r0 to r1 and the columns k0 to k1 alone.

    u belongs to the rows, v to the columns; dv only with ``summed``. With ``masked`` dy comes back
    through the ReLU that made y.
    """
    step = lanes(x)
    if summed:
        for k in range(k0, k1, step):
            store(dv, k, filled(v, 0.0), k1 - k)
    for r in range(r0, r1):
        offset = r * columns
        row, grads, ys, out = at(x, offset), at(dy, offset), at(y, offset), at(dx, offset)
        gate, sums = filled(u, u[r]), filled(u, 0.0)
        k = k0
        while k + step <= k1:
            sums = sums + _product(row, grads, ys, masked, gate, v, summed, k, step, out, dv)
            k += step
        if k < k1:
            sums = sums + _product(row, grads, ys, masked, gate, v, summed, k, k1 - k, out, dv)
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
def add_up(parts, tiles, length, out):
    """out = Σ_tile parts[tile], in this order."""
    for i in range(0, length, lanes(parts)):
        whole = filled(parts, 0.0)
        for tile in range(tiles):
            whole = whole + load(parts, tile * length + i, length - i)
        store(out, i, whole, length - i)


def pool_rows_backward(tag: Any) -> None:
    """Where rows were pooled: tiles are ranges of rows."""
    a = integers(tag)
    rows, columns, shares, tiles = a[A.ROWS], a[A.COLUMNS], a[A.SHARES], a[A.TILES]
    ones = area_with_ones(tag, a)
    size = max(rows, columns)
    shift, slope, centre = at(ones, size), at(ones, 2 * size), at(ones, 3 * size)
    spread, topped, gated = a[A.STD] >= 0 or a[A.L2] >= 0, a[A.TOP] >= 0, a[A.COLUMN_GATE] != 0
    while True:
        piece = take(a)
        if piece >= a[A.PIECES]:
            break
        n, share = piece // shares, piece % shares
        x = at(stored(tag, a[A.X]), n * rows * columns)
        dx = at(stored(tag, a[A.DX]), n * rows * columns)
        gate = gate_or_ones(tag, a, A.COLUMN_GATE, n, columns, ones)
        top = row_or(at(wide(tag, a[A.POOLED]), n * a[A.DEPTH] * rows), a[A.TOP], rows, shift)
        dtop = row_or(at(wide(tag, a[A.DPOOLED]), n * a[A.DEPTH] * rows), a[A.TOP], rows, shift)
        parts = at(wide(tag, a[A.PARTS]), n * tiles * columns)
        if a[A.PHASES] & A.TILE_BY_TILE:
            for tile in range(edge(tiles, share, shares, 1), edge(tiles, share + 1, shares, 1)):
                r0, r1 = edge(rows, tile, tiles, 4), edge(rows, tile + 1, tiles, 4)
                coefficients(tag, a, n, rows, columns, r0, r1, shift, slope, centre)
                rows_gradient(
                    x, gate, shift, slope, centre, top, dtop, spread, topped, gated,
                    r0, r1, columns, dx, at(parts, tile * columns),
                )
        if a[A.PHASES] & A.TOGETHER:
            add_up(parts, tiles, columns, at(wide(tag, a[A.DCOLUMN]), n * columns))


def pool_columns_backward(tag: Any) -> None:
    """Where columns were pooled: tiles are ranges of columns."""
    a = integers(tag)
    rows, columns, shares, tiles = a[A.ROWS], a[A.COLUMNS], a[A.SHARES], a[A.TILES]
    ones = area_with_ones(tag, a)
    size = max(rows, columns)
    shift, slope, centre = at(ones, size), at(ones, 2 * size), at(ones, 3 * size)
    left = at(ones, 4 * size)
    spread, topped, gated = a[A.STD] >= 0 or a[A.L2] >= 0, a[A.TOP] >= 0, a[A.ROW_GATE] != 0
    while True:
        piece = take(a)
        if piece >= a[A.PIECES]:
            break
        n, share = piece // shares, piece % shares
        x = at(stored(tag, a[A.X]), n * rows * columns)
        dx = at(stored(tag, a[A.DX]), n * rows * columns)
        gate = gate_or_ones(tag, a, A.ROW_GATE, n, rows, ones)
        top = row_or(at(wide(tag, a[A.POOLED]), n * a[A.DEPTH] * columns), a[A.TOP], columns, shift)
        dtop = row_or(at(wide(tag, a[A.DPOOLED]), n * a[A.DEPTH] * columns), a[A.TOP], columns, shift)
        parts = at(wide(tag, a[A.PARTS]), n * tiles * rows)
        if a[A.PHASES] & A.TILE_BY_TILE:
            for tile in range(edge(tiles, share, shares, 1), edge(tiles, share + 1, shares, 1)):
                k0, k1 = edge(columns, tile, tiles, 16), edge(columns, tile + 1, tiles, 16)
                coefficients(tag, a, n, columns, rows, k0, k1, shift, slope, centre)
                columns_gradient(
                    x, gate, shift, slope, centre, top, dtop, left, spread, topped, gated,
                    k0, k1, rows, columns, dx, at(parts, tile * rows),
                )
        if a[A.PHASES] & A.TOGETHER:
            add_up(parts, tiles, rows, at(wide(tag, a[A.DROW]), n * rows))


def apply_gates_backward(tag: Any) -> None:
    """Tiles are ranges of positions: of columns in planes, of rows in pixels."""
    a = integers(tag)
    rows, columns, shares, tiles = a[A.ROWS], a[A.COLUMNS], a[A.SHARES], a[A.TILES]
    ones = area_with_ones(tag, a)
    nowhere = at(ones, max(rows, columns))
    while True:
        piece = take(a)
        if piece >= a[A.PIECES]:
            break
        n, share = piece // shares, piece % shares
        offset = n * rows * columns
        x, dy = at(stored(tag, a[A.X]), offset), at(stored(tag, a[A.Y]), offset)
        y, dx = at(stored(tag, a[A.RESIDUAL]), offset), at(stored(tag, a[A.DX]), offset)
        u = gate_or_ones(tag, a, A.ROW_GATE, n, rows, ones)
        v = gate_or_ones(tag, a, A.COLUMN_GATE, n, columns, ones)
        du = gate_or_ones(tag, a, A.DROW, n, rows, nowhere)
        dv = gate_or_ones(tag, a, A.DCOLUMN, n, columns, nowhere)
        masked, summed = a[A.RESIDUAL] != 0, a[A.COLUMN_GATE] != 0
        length = columns if a[A.BY_PIXEL] else rows
        parts = at(wide(tag, a[A.PARTS]), n * tiles * length)
        if a[A.PHASES] & A.TILE_BY_TILE:
            for tile in range(edge(tiles, share, shares, 1), edge(tiles, share + 1, shares, 1)):
                r0, r1, k0, k1 = 0, rows, 0, columns
                part = at(parts, tile * length)
                tile_du, tile_dv = part, dv
                if a[A.BY_PIXEL]:
                    r0, r1 = edge(rows, tile, tiles, 4), edge(rows, tile + 1, tiles, 4)
                    tile_du, tile_dv = du, part
                else:
                    k0, k1 = edge(columns, tile, tiles, 16), edge(columns, tile + 1, tiles, 16)
                products(
                    x, dy, y, masked, u, v, summed, r0, r1, k0, k1, columns, dx, tile_du, tile_dv
                )
        if a[A.PHASES] & A.TOGETHER:
            add_up(parts, tiles, length, dv if a[A.BY_PIXEL] else du)
