"""CBAM backward: what one thread does with the pieces of work that it takes.

Phases and pieces as in ``forward``. Between the phases, per sample: the gradient ds of the spatial
gate, the channel that owns each maximum, the gradients dm and dt of the two maps, and for each tile
of positions its parts of the two sums over positions and its first positions of the maxima.
"""

import math
from typing import Any

from whatwhere.ops.cpu import layout as A
from whatwhere.ops.cpu.kernels import dense_backward, maps, pixels_backward, planes_backward
from whatwhere.ops.cpu.kernels.forward import (
    edge,
    gathered_weights,
    row_or,
    sample_rows,
    saved_length,
    scratch_area,
)
from whatwhere.ops.cpu.kernels.memory import at, fence, integers, scalar, stored, take, wide
from whatwhere.ops.cpu.kernels.simd import filled, function, lanes, load, store, where_less

pad, correlate, unsquash = maps.pad, maps.correlate, maps.unsquash
kernel_gradient, plain_sum = maps.kernel_gradient, maps.plain_sum
hidden_gradient = dense_backward.hidden_gradient
descriptor_gradient = dense_backward.descriptor_gradient
expand_gradient = dense_backward.expand_gradient
reduce_gradient = dense_backward.reduce_gradient
reduce_bias_gradient = dense_backward.reduce_bias_gradient
planes_products, planes_weighted = planes_backward.products, planes_backward.weighted
planes_gradient = planes_backward.gradient
pixels_products, pixels_weighted = pixels_backward.products, pixels_backward.weighted
pixels_gradient = pixels_backward.gradient


@function
def map_gradient(tag, a, n, stack, place, ds, dmean, dtop, scratch):
    """The phase MAP_GRADIENT: from ds to the gradients of the maps, and of the convolution."""
    shape = a[A.FRAMES], a[A.HEIGHT], a[A.WIDTH]
    kernel = a[A.KT], a[A.KH], a[A.KW]
    positions, depth = a[A.POSITIONS], a[A.SPATIAL_DEPTH]
    taps = kernel[0] * kernel[1] * kernel[2]
    unsquash(place, float(a[A.SPATIAL_SCALE]), positions, ds)
    parts = at(wide(tag, a[A.KERNEL_PARTS]), n * (depth * taps + 1))
    pad(stack, depth, shape, kernel, scratch)
    kernel_gradient(scratch, ds, depth, shape, kernel, parts)
    parts[depth * taps] = plain_sum(ds, positions)
    pad(ds, 1, shape, kernel, scratch)
    weights = gathered_weights(tag, a, scratch)
    nought = scalar(ds, 0.0)
    for index, target in ((a[A.SPATIAL_MEAN], dmean), (a[A.SPATIAL_TOP], dtop)):
        if index < 0:
            for p in range(positions):
                target[p] = nought
        else:
            correlate(scratch, at(weights, index * taps), True, 1, shape, kernel, nought, target)
    for p in range(positions):
        dmean[p] = dmean[p] / a[A.CHANNELS]


@function
def logits_gradient(tag, a, n, gate, parts, tiles):
    """The phase LOGITS_GRADIENT: dz (C,) of sample n from the tiles' parts of the sums."""
    channels = a[A.CHANNELS]
    dz = at(wide(tag, a[A.DZ]), n * channels)
    step = lanes(dz)
    for c in range(0, channels, step):
        count = channels - c
        whole = filled(dz, 0.0)
        for tile in range(tiles):
            row = at(parts, 3 * tile * channels + c)
            whole = whole + (load(row, 0, count) + load(row, channels, count))
        store(dz, c, whole, count)
    unsquash(gate, float(a[A.CHANNEL_SCALE]), channels, dz)


@function
def network_gradient(tag, a, n0, n1, share, shares, phases):
    """The phases HIDDEN_GRADIENT, DESCRIPTOR_GRADIENT and PARAMETERS."""
    channels, units, depth = a[A.CHANNELS], a[A.UNITS], a[A.CHANNEL_DEPTH]
    length = saved_length(a)
    rows, pre, _, _, _ = sample_rows(tag, a, 0)
    dz, dh, sums = wide(tag, a[A.DZ]), wide(tag, a[A.DHIDDEN]), wide(tag, a[A.SUMS])
    c0, c1 = edge(channels, share, shares, 16), edge(channels, share + 1, shares, 16)
    if phases & A.HIDDEN_GRADIENT:
        j0, j1 = edge(units, share, shares, 16), edge(units, share + 1, shares, 16)
        w1 = wide(tag, a[A.W1])
        hidden_gradient(dz, w1, pre, n0, n1, depth, length, channels, units, j0, j1, dh)
        for n in range(n0, n1):
            for j in range(j0, j1):
                whole = scalar(sums, 0.0)
                for d in range(depth):
                    whole += max(pre[n * length + d * units + j], scalar(sums, 0.0))
                sums[n * units + j] = whole
    if phases & A.DESCRIPTOR_GRADIENT:
        dd = wide(tag, a[A.DDESCRIPTORS])
        w0 = wide(tag, a[A.W0])
        descriptor_gradient(dh, w0, n0, n1, depth, channels, units, c0, c1, dd)
    if phases & A.PARAMETERS:
        dw1, db1, dw0 = wide(tag, a[A.DW1]), wide(tag, a[A.DB1]), wide(tag, a[A.DW0])
        batch = a[A.SAMPLES]
        biased = a[A.DB1] != 0
        expand_gradient(dz, sums, batch, depth, channels, units, c0, c1, dw1, db1, biased)
        reduce_gradient(dh, rows, batch, depth, length, channels, units, c0, c1, dw0)
        if share == 0:
            _small_gradients(tag, a, dh)


@function
def _small_gradients(tag, a, dh):
    samples, units, depth = a[A.SAMPLES], a[A.UNITS], a[A.CHANNEL_DEPTH]
    if a[A.DB0] != 0:
        reduce_bias_gradient(dh, samples * depth, units, wide(tag, a[A.DB0]))
    taps = a[A.SPATIAL_DEPTH] * a[A.KT] * a[A.KH] * a[A.KW]
    parts, dwc = wide(tag, a[A.KERNEL_PARTS]), wide(tag, a[A.DWC])
    for tap in range(taps + 1):
        whole = scalar(parts, 0.0)
        for n in range(samples):
            whole += parts[n * (taps + 1) + tap]
        if tap < taps:
            dwc[tap] = whole
        elif a[A.DBC] != 0:
            wide(tag, a[A.DBC])[0] = whole


@function
def pool_gradients(tag, a, n, parts, tiles, da, dtop, first):
    """What pass 3 adds per channel: of the mean, of the maximum, and where that one lies."""
    channels, positions, depth = a[A.CHANNELS], a[A.POSITIONS], a[A.CHANNEL_DEPTH]
    rows = at(wide(tag, a[A.DDESCRIPTORS]), n * depth * channels)
    mean, top = a[A.CHANNEL_MEAN], a[A.CHANNEL_TOP]
    step = lanes(da)
    inverse = filled(da, 1.0 / positions)
    for c in range(0, channels, step):
        count = channels - c
        nothing = filled(da, 0.0)
        store(
            da, c, load(rows, mean * channels + c, count) * inverse if mean >= 0 else nothing, count
        )
        store(dtop, c, load(rows, top * channels + c, count) if top >= 0 else nothing, count)
        place = filled(da, math.inf)
        for tile in range(tiles):
            found = load(parts, (3 * tile + 2) * channels + c, count)
            place = where_less(found, place, found, place)
        store(first, c, place, count)


@function
def sample_maps(tag, a, n):
    """Sample n's ds, dm, dt and owner."""
    positions = a[A.POSITIONS]
    ds = at(wide(tag, a[A.DMAPS]), n * 4 * positions)
    return ds, at(ds, positions), at(ds, 2 * positions), at(ds, 3 * positions)


def backward_planes(tag: Any) -> None:
    """Samples stored (C, P)."""
    a = integers(tag)
    channels, positions, phases, shares = a[A.CHANNELS], a[A.POSITIONS], a[A.PHASES], a[A.SHARES]
    scratch = scratch_area(tag, a)
    tiles = (positions + a[A.TILE] - 1) // a[A.TILE]
    past = a[A.PAST] != 0
    while True:
        piece = take(a)
        if piece >= a[A.PIECES]:
            if past:
                fence(a)
            break
        if phases & A.BATCHED:
            network_gradient(tag, a, 0, a[A.SAMPLES], piece, a[A.PIECES], phases)
            continue
        n, share = piece // shares, piece % shares
        x = at(stored(tag, a[A.X]), n * channels * positions)
        dy = at(stored(tag, a[A.Y]), n * channels * positions)
        rows, _, gate, stack, place = sample_rows(tag, a, n)
        ds, dmean, dtop, owner = sample_maps(tag, a, n)
        parts = at(wide(tag, a[A.PARTS]), n * 3 * tiles * channels)
        if phases & A.PRODUCTS:
            top = row_or(stack, a[A.SPATIAL_TOP], positions, stack)
            for tile in range(edge(tiles, share, shares, 1), edge(tiles, share + 1, shares, 1)):
                p0 = tile * a[A.TILE]
                p1 = min(positions, p0 + a[A.TILE])
                sums = at(parts, 3 * tile * channels)
                planes_products(
                    x, dy, gate, place, top, p0, p1, channels, positions, ds, owner, sums
                )
        if phases & A.MAP_GRADIENT:
            map_gradient(tag, a, n, stack, place, ds, dmean, dtop, scratch)
        if phases & A.WEIGHTED:
            top = row_or(rows, a[A.CHANNEL_TOP], channels, rows)
            for tile in range(edge(tiles, share, shares, 1), edge(tiles, share + 1, shares, 1)):
                p0 = tile * a[A.TILE]
                p1 = min(positions, p0 + a[A.TILE])
                sums = at(parts, (3 * tile + 1) * channels)
                first = at(parts, (3 * tile + 2) * channels)
                planes_weighted(
                    x, dmean, dtop, owner, top, p0, p1, channels, positions, sums, first
                )
        if phases & A.LOGITS_GRADIENT:
            logits_gradient(tag, a, n, gate, parts, tiles)
        if phases & (A.HIDDEN_GRADIENT | A.DESCRIPTOR_GRADIENT):
            network_gradient(tag, a, n, n + 1, 0, 1, phases)
        if phases & A.GRADIENT:
            dx = at(stored(tag, a[A.DX]), n * channels * positions)
            da, dhighest, first = scratch, at(scratch, channels), at(scratch, 2 * channels)
            pool_gradients(tag, a, n, parts, tiles, da, dhighest, first)
            c0, c1 = edge(channels, share, shares, 4), edge(channels, share + 1, shares, 4)
            for p in range(0, positions, a[A.TILE]):
                p1 = min(positions, p + a[A.TILE])
                planes_gradient(
                    dy,
                    gate,
                    place,
                    dmean,
                    dtop,
                    owner,
                    da,
                    dhighest,
                    first,
                    past,
                    c0,
                    c1,
                    p,
                    p1,
                    positions,
                    dx,
                )


def backward_pixels(tag: Any) -> None:
    """Samples stored (P, C)."""
    a = integers(tag)
    channels, positions, phases, shares = a[A.CHANNELS], a[A.POSITIONS], a[A.PHASES], a[A.SHARES]
    scratch = scratch_area(tag, a)
    tiles = (positions + a[A.TILE] - 1) // a[A.TILE]
    past = a[A.PAST] != 0
    while True:
        piece = take(a)
        if piece >= a[A.PIECES]:
            if past:
                fence(a)
            break
        if phases & A.BATCHED:
            network_gradient(tag, a, 0, a[A.SAMPLES], piece, a[A.PIECES], phases)
            continue
        n, share = piece // shares, piece % shares
        x = at(stored(tag, a[A.X]), n * channels * positions)
        dy = at(stored(tag, a[A.Y]), n * channels * positions)
        rows, _, gate, stack, place = sample_rows(tag, a, n)
        ds, dmean, dtop, owner = sample_maps(tag, a, n)
        parts = at(wide(tag, a[A.PARTS]), n * 3 * tiles * channels)
        if phases & A.PRODUCTS:
            top = row_or(stack, a[A.SPATIAL_TOP], positions, stack)
            for tile in range(edge(tiles, share, shares, 1), edge(tiles, share + 1, shares, 1)):
                p0 = tile * a[A.TILE]
                p1 = min(positions, p0 + a[A.TILE])
                sums = at(parts, 3 * tile * channels)
                pixels_products(x, dy, gate, place, top, p0, p1, channels, ds, owner, sums)
        if phases & A.MAP_GRADIENT:
            map_gradient(tag, a, n, stack, place, ds, dmean, dtop, scratch)
        if phases & A.WEIGHTED:
            top = row_or(rows, a[A.CHANNEL_TOP], channels, rows)
            for tile in range(edge(tiles, share, shares, 1), edge(tiles, share + 1, shares, 1)):
                p0 = tile * a[A.TILE]
                p1 = min(positions, p0 + a[A.TILE])
                sums = at(parts, (3 * tile + 1) * channels)
                first = at(parts, (3 * tile + 2) * channels)
                pixels_weighted(x, dmean, dtop, owner, top, p0, p1, channels, sums, first)
        if phases & A.LOGITS_GRADIENT:
            logits_gradient(tag, a, n, gate, parts, tiles)
        if phases & (A.HIDDEN_GRADIENT | A.DESCRIPTOR_GRADIENT):
            network_gradient(tag, a, n, n + 1, 0, 1, phases)
        if phases & A.GRADIENT:
            dx = at(stored(tag, a[A.DX]), n * channels * positions)
            da, dhighest, first = scratch, at(scratch, channels), at(scratch, 2 * channels)
            pool_gradients(tag, a, n, parts, tiles, da, dhighest, first)
            p0, p1 = edge(positions, share, shares, 4), edge(positions, share + 1, shares, 4)
            pixels_gradient(
                dy, gate, place, dmean, dtop, owner, da, dhighest, first, past, p0, p1, channels, dx
            )
