"""Pooling and applying gates, backward: what one thread does with the pieces of work it takes.

A piece is a sample, or a share of its tiles. What is summed across tiles is summed tile by tile and
the tiles' sums added in one order, so that the bits don't depend on who computed which tile.
"""

from typing import Any

from whatwhere.ops.cpu import layout as A
from whatwhere.ops.cpu.kernels import primitives_gradients as gradients
from whatwhere.ops.cpu.kernels.forward import edge
from whatwhere.ops.cpu.kernels.memory import at, integers, stored, take, wide
from whatwhere.ops.cpu.kernels.primitives import area_with_ones, gate_or_ones

rows_gradient, columns_gradient = gradients.rows_gradient, gradients.columns_gradient
row_terms, column_terms = gradients.row_terms, gradients.column_terms
products, clear, add_up = gradients.products, gradients.clear, gradients.add_up


def pool_rows_backward(tag: Any) -> None:
    """Where rows were pooled: tiles are ranges of rows."""
    a = integers(tag)
    rows, columns, shares, tiles = a[A.ROWS], a[A.COLUMNS], a[A.SHARES], a[A.TILES]
    ones = area_with_ones(tag, a)
    scratch = at(ones, max(rows, columns))
    wanted = a[A.STD] >= 0 or a[A.L2] >= 0, a[A.TOP] >= 0, a[A.COLUMN_GATE] != 0
    while True:
        piece = take(a)
        if piece >= a[A.PIECES]:
            break
        n, share = piece // shares, piece % shares
        x = at(stored(tag, a[A.X]), n * rows * columns)
        dx = at(stored(tag, a[A.DX]), n * rows * columns)
        gate = gate_or_ones(tag, a, A.COLUMN_GATE, n, columns, ones)
        parts = at(wide(tag, a[A.PARTS]), n * tiles * columns)
        if a[A.PHASES] & A.TILE_BY_TILE:
            for tile in range(edge(tiles, share, shares, 1), edge(tiles, share + 1, shares, 1)):
                r0, r1 = edge(rows, tile, tiles, 4), edge(rows, tile + 1, tiles, 4)
                part = at(parts, tile * columns)
                if wanted[2]:
                    clear(part, columns)
                # A few rows at a time, so that the second pass finds them in cache.
                for r in range(r0, r1, 8):
                    end = min(r1, r + 8)
                    terms = row_terms(tag, a, n, x, gate, r, end, scratch)
                    rows_gradient(x, gate, terms, wanted, r, end, columns, dx, part)
        if a[A.PHASES] & A.TOGETHER:
            add_up(parts, tiles, columns, at(wide(tag, a[A.DCOLUMN]), n * columns))


def pool_columns_backward(tag: Any) -> None:
    """Where columns were pooled: tiles are ranges of columns."""
    a = integers(tag)
    rows, columns, shares, tiles = a[A.ROWS], a[A.COLUMNS], a[A.SHARES], a[A.TILES]
    ones = area_with_ones(tag, a)
    size = max(rows, columns)
    scratch, left = at(ones, size), at(ones, 5 * size)
    wanted = a[A.STD] >= 0 or a[A.L2] >= 0, a[A.TOP] >= 0, a[A.ROW_GATE] != 0
    while True:
        piece = take(a)
        if piece >= a[A.PIECES]:
            break
        n, share = piece // shares, piece % shares
        x = at(stored(tag, a[A.X]), n * rows * columns)
        dx = at(stored(tag, a[A.DX]), n * rows * columns)
        gate = gate_or_ones(tag, a, A.ROW_GATE, n, rows, ones)
        parts = at(wide(tag, a[A.PARTS]), n * tiles * rows)
        if a[A.PHASES] & A.TILE_BY_TILE:
            for tile in range(edge(tiles, share, shares, 1), edge(tiles, share + 1, shares, 1)):
                k0, k1 = edge(columns, tile, tiles, 16), edge(columns, tile + 1, tiles, 16)
                terms = column_terms(tag, a, n, x, gate, k0, k1, scratch)
                part = at(parts, tile * rows)
                columns_gradient(x, gate, terms, left, wanted, k0, k1, rows, columns, dx, part)
        if a[A.PHASES] & A.TOGETHER:
            add_up(parts, tiles, rows, at(wide(tag, a[A.DROW]), n * rows))


def apply_gates_backward(tag: Any) -> None:
    """Tiles are ranges of rows."""
    a = integers(tag)
    rows, columns, shares, tiles = a[A.ROWS], a[A.COLUMNS], a[A.SHARES], a[A.TILES]
    ones = area_with_ones(tag, a)
    nowhere = at(ones, max(rows, columns))
    masked, summed = a[A.RESIDUAL] != 0, a[A.COLUMN_GATE] != 0
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
        parts = at(wide(tag, a[A.PARTS]), n * tiles * columns)
        if a[A.PHASES] & A.TILE_BY_TILE:
            for tile in range(edge(tiles, share, shares, 1), edge(tiles, share + 1, shares, 1)):
                r0, r1 = edge(rows, tile, tiles, 4), edge(rows, tile + 1, tiles, 4)
                dv = at(parts, tile * columns)
                if summed:
                    clear(dv, columns)
                products(x, dy, y, masked, u, v, summed, r0, r1, columns, dx, du, dv)
        if a[A.PHASES] & A.TOGETHER:
            add_up(parts, tiles, columns, at(wide(tag, a[A.DCOLUMN]), n * columns))
