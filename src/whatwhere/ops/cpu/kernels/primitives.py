"""Pooling and applying gates, forward: what one thread does with the pieces of work that it takes.

A piece is a sample, or a share of one. An absent gate is a row of ones.
"""

import math
from typing import Any

from whatwhere.ops.cpu import layout as A
from whatwhere.ops.cpu.kernels import pixels, planes, spread
from whatwhere.ops.cpu.kernels.forward import edge, row_or, scratch_area
from whatwhere.ops.cpu.kernels.memory import at, fence, integers, stored, take, wide
from whatwhere.ops.cpu.kernels.simd import body, filled, function, lanes, store

planes_pool, planes_pool_gated = planes.pool, planes.pool_gated
pixels_pool, pixels_pool_gated, pixels_apply = pixels.pool, pixels.pool_gated, pixels.apply
spread_of_rows, spread_of_columns, roots = spread.of_rows, spread.of_columns, spread.roots


@function
def area_with_ones(tag, a):
    """A thread's own scratch, which begins with as many ones as the longest gate is long."""
    scratch = scratch_area(tag, a)
    count = max(a[A.ROWS], a[A.COLUMNS])
    for i in range(0, count, lanes(scratch)):
        store(scratch, i, filled(scratch, 1.0), count - i)
    return scratch


@body
def gate_or_ones(tag, a, place, n, length, ones):
    """Sample n's gate."""
    if a[place] == 0:
        return ones
    return at(wide(tag, a[place]), n * length)


@body
def _targets(tag, a, n, length, size, scratch):
    # Sample n's descriptors, and where its means and maxima go, asked for or not.
    pooled = at(wide(tag, a[A.POOLED]), n * a[A.DEPTH] * length)
    mean = row_or(pooled, a[A.MEAN], length, at(scratch, size))
    return pooled, mean, row_or(pooled, a[A.TOP], length, at(scratch, 2 * size))


@body
def _plain(a):
    # Whether means or maxima are needed at all.
    return a[A.MEAN] >= 0 or a[A.TOP] >= 0 or a[A.STD] >= 0


@function
def _rows_spread(a, x, w, r0, r1, mean, pooled):
    rows, columns = a[A.ROWS], a[A.COLUMNS]
    if a[A.STD] >= 0:
        out = at(pooled, a[A.STD] * rows)
        spread_of_rows(x, w, r0, r1, columns, mean, (True, True), out)
        roots(out, r0, r1, max(columns - 1, 1))
    if a[A.L2] >= 0:
        out = at(pooled, a[A.L2] * rows)
        spread_of_rows(x, w, r0, r1, columns, mean, (False, True), out)
        roots(out, r0, r1, 1)


@function
def _columns_spread(a, x, w, k0, k1, mean, part, pooled):
    rows, columns = a[A.ROWS], a[A.COLUMNS]
    if a[A.STD] >= 0:
        out = at(pooled, a[A.STD] * columns)
        spread_of_columns(x, w, k0, k1, rows, columns, mean, (True, True), part, out)
        roots(out, k0, k1, max(rows - 1, 1))
    if a[A.L2] >= 0:
        out = at(pooled, a[A.L2] * columns)
        spread_of_columns(x, w, k0, k1, rows, columns, mean, (False, True), part, out)
        roots(out, k0, k1, 1)


def pool_positions_planes(tag: Any) -> None:
    """Samples stored (C, P): their rows are pooled."""
    a = integers(tag)
    rows, columns, shares = a[A.ROWS], a[A.COLUMNS], a[A.SHARES]
    ones = area_with_ones(tag, a)
    size = max(rows, columns)
    while True:
        piece = take(a)
        if piece >= a[A.PIECES]:
            break
        n, share = piece // shares, piece % shares
        x = at(stored(tag, a[A.X]), n * rows * columns)
        pooled, mean, top = _targets(tag, a, n, rows, size, ones)
        r0, r1 = edge(rows, share, shares, 8), edge(rows, share + 1, shares, 8)
        # A few rows at a time, so that the second pass finds them in cache.
        for r in range(r0, r1, 8):
            end = min(r1, r + 8)
            if _plain(a):
                planes_pool(x, r, end, columns, mean, top)
            _rows_spread(a, x, ones, r, end, mean, pooled)


def pool_positions_pixels(tag: Any) -> None:
    """Samples stored (P, C): their columns are pooled."""
    a = integers(tag)
    rows, columns, shares = a[A.ROWS], a[A.COLUMNS], a[A.SHARES]
    ones = area_with_ones(tag, a)
    size = max(rows, columns)
    while True:
        piece = take(a)
        if piece >= a[A.PIECES]:
            break
        n, share = piece // shares, piece % shares
        x = at(stored(tag, a[A.X]), n * rows * columns)
        pooled, mean, top = _targets(tag, a, n, columns, size, ones)
        part = at(ones, 3 * size)
        k0, k1 = edge(columns, share, shares, 16), edge(columns, share + 1, shares, 16)
        if _plain(a):
            pixels_pool(x, k0, k1, columns, rows, part, mean, top)
        _columns_spread(a, x, ones, k0, k1, mean, part, pooled)


def pool_channels_planes(tag: Any) -> None:
    """Samples stored (C, P): their columns are pooled, tile by tile, each tile while in cache."""
    a = integers(tag)
    rows, columns, shares = a[A.ROWS], a[A.COLUMNS], a[A.SHARES]
    ones = area_with_ones(tag, a)
    size = max(rows, columns)
    while True:
        piece = take(a)
        if piece >= a[A.PIECES]:
            break
        n, share = piece // shares, piece % shares
        x = at(stored(tag, a[A.X]), n * rows * columns)
        gate = gate_or_ones(tag, a, A.ROW_GATE, n, rows, ones)
        pooled, mean, top = _targets(tag, a, n, columns, size, ones)
        part = at(ones, 3 * size)
        last = edge(columns, share + 1, shares, 16)
        for k0 in range(edge(columns, share, shares, 16), last, a[A.TILE]):
            k1 = min(last, k0 + a[A.TILE])
            if _plain(a):
                planes_pool_gated(x, gate, k0, k1, rows, columns, mean, top)
            _columns_spread(a, x, gate, k0, k1, mean, part, pooled)


def pool_channels_pixels(tag: Any) -> None:
    """Samples stored (P, C): their rows are pooled."""
    a = integers(tag)
    rows, columns, shares = a[A.ROWS], a[A.COLUMNS], a[A.SHARES]
    ones = area_with_ones(tag, a)
    size = max(rows, columns)
    while True:
        piece = take(a)
        if piece >= a[A.PIECES]:
            break
        n, share = piece // shares, piece % shares
        x = at(stored(tag, a[A.X]), n * rows * columns)
        gate = gate_or_ones(tag, a, A.COLUMN_GATE, n, columns, ones)
        pooled, mean, top = _targets(tag, a, n, rows, size, ones)
        last = edge(rows, share + 1, shares, 4)
        # A few rows at a time, so that the second pass finds them in cache.
        for r0 in range(edge(rows, share, shares, 4), last, a[A.TILE]):
            r1 = min(last, r0 + a[A.TILE])
            if _plain(a):
                pixels_pool_gated(x, gate, r0, r1, columns, mean, top)
            _rows_spread(a, x, gate, r0, r1, mean, pooled)


def apply_gates(tag: Any) -> None:
    """Samples as matrices; either gate, a residual and a ReLU where they are asked for."""
    a = integers(tag)
    rows, columns, shares = a[A.ROWS], a[A.COLUMNS], a[A.SHARES]
    ones = area_with_ones(tag, a)
    floor = 0.0 if a[A.RELU] else -math.inf
    past = a[A.PAST] != 0
    while True:
        piece = take(a)
        if piece >= a[A.PIECES]:
            if past:
                fence(a)
            break
        n, share = piece // shares, piece % shares
        offset = n * rows * columns
        row_gate = gate_or_ones(tag, a, A.ROW_GATE, n, rows, ones)
        column_gate = gate_or_ones(tag, a, A.COLUMN_GATE, n, columns, ones)
        x, y = at(stored(tag, a[A.X]), offset), at(stored(tag, a[A.Y]), offset)
        residual = at(stored(tag, a[A.RESIDUAL]), offset)
        r0, r1 = edge(rows, share, shares, 4), edge(rows, share + 1, shares, 4)
        folded = a[A.RESIDUAL] != 0
        pixels_apply(x, column_gate, row_gate, residual, folded, floor, past, r0, r1, columns, y)
