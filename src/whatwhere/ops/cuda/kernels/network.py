"""The channel network, forward and backward: of one sample at once, or of tiles of all samples."""

import triton
import triton.language as tl

from whatwhere.ops.cuda.kernels.jit import kernel
from whatwhere.ops.cuda.kernels.pooling import highest


@triton.jit
def rectified(value):
    """max(value, 0); NaN stays."""
    return tl.maximum(value, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def descriptor(parts, c, channels, number, splits, TOP: tl.constexpr, BS: tl.constexpr):
    """The maximum or the mean of ``number`` elements from at most BS parts (splits, 4, C)."""
    part = tl.arange(0, BS)
    mask = (part < splits)[:, None] & (c < channels)[None, :]
    at = parts + (part * 4)[:, None] * channels + c[None, :]
    if TOP:
        result = highest(tl.load(at + channels, mask=mask, other=float("-inf")), 0)
    else:
        result = tl.sum(tl.load(at, mask=mask, other=0.0), 0) / number
    return tl.where(c < channels, result, 0.0)


@kernel
def network(
    parts, saved, w0, b0, w1, b1, channels, units, number, tiles, splits, sample_from, scale,
    row, hidden_at, gate_at,
    DEPTH: tl.constexpr, TOP: tl.constexpr,
    BS: tl.constexpr, BC: tl.constexpr, BU: tl.constexpr,
):  # fmt: skip
    """Descriptors from their parts, hidden units, and a tile of the channel gate of a sample.

    Every program of a sample has all hidden units, the first keeps them; the maximum is the
    descriptor TOP, of one or two.
    """
    pid = tl.program_id(0)
    tile = pid % tiles
    own = tile * BC + tl.arange(0, BC)
    sample = (pid // tiles + sample_from).to(tl.int64)
    parts += sample * splits * 4 * channels
    saved += sample * row
    logits = tl.zeros([BC], tl.float32)
    for first in range(0, units, BU):
        u = first + tl.arange(0, BU)
        total, other = tl.zeros([BU, BC], tl.float32), tl.zeros([BU, BC], tl.float32)
        for start in range(0, channels, BC):
            c = start + tl.arange(0, BC)
            mask = (u < units)[:, None] & (c < channels)[None, :]
            w = tl.load(w0 + u[:, None] * channels + c[None, :], mask=mask, other=0.0)
            kept = (c < channels) & (start == tile * BC)
            d = descriptor(parts, c, channels, number, splits, TOP == 0, BS)
            tl.store(saved + c, d, mask=kept)
            total += w.to(tl.float32) * d[None, :]
            if DEPTH == 2:
                d = descriptor(parts, c, channels, number, splits, TOP == 1, BS)
                tl.store(saved + channels + c, d, mask=kept)
                other += w.to(tl.float32) * d[None, :]
        bias = tl.zeros([BU], tl.float32)
        if b0 is not None:
            bias = tl.load(b0 + u, mask=u < units, other=0.0).to(tl.float32)
        kept = (u < units) & (tile == 0)
        unit = tl.sum(total, 1) + bias
        tl.store(saved + hidden_at + u, unit, mask=kept)
        active = rectified(unit)
        if DEPTH == 2:
            unit = tl.sum(other, 1) + bias
            tl.store(saved + hidden_at + units + u, unit, mask=kept)
            active += rectified(unit)
        active = tl.where(u < units, active, 0.0)  # a weight of 0 times infinity is there
        mask = (own < channels)[:, None] & (u < units)[None, :]
        w = tl.load(w1 + own[:, None] * units + u[None, :], mask=mask, other=0.0)
        logits += tl.sum(w.to(tl.float32) * active[None, :], 1)
    if b1 is not None:
        logits += DEPTH * tl.load(b1 + own, mask=own < channels, other=0.0).to(tl.float32)
    tl.store(saved + gate_at + own, scale * tl.sigmoid(logits), mask=own < channels)


@kernel
def gate_of_parts(
    parts, saved, b0, w1, b1, channels, units, tiles, number, sample_from, scale,
    row, hidden_at, gate_at,
    DEPTH: tl.constexpr, TOP: tl.constexpr,
    BS: tl.constexpr, BC: tl.constexpr, BU: tl.constexpr,
):  # fmt: skip
    """Hidden units from parts (N, number, 2, units), and a tile of the channel gate of a sample.

    The first program of a sample keeps the units; the maximum is the descriptor TOP.
    """
    pid = tl.program_id(0)
    tile = pid % tiles
    c, part = tile * BC + tl.arange(0, BC), tl.arange(0, BS)
    sample = (pid // tiles + sample_from).to(tl.int64)
    parts += sample * number * 2 * units
    saved += sample * row
    logits = tl.zeros([BC], tl.float32)
    for first in range(0, units, BU):
        u = first + tl.arange(0, BU)
        bias, active = tl.zeros([BU], tl.float32), tl.zeros([BU], tl.float32)
        if b0 is not None:
            bias = tl.load(b0 + u, mask=u < units, other=0.0).to(tl.float32)
        for d in tl.static_range(DEPTH):
            total = tl.zeros([BS, BU], tl.float32)
            for start in range(0, number, BS):
                at = parts + ((start + part) * 2 + (d == TOP))[:, None] * units + u[None, :]
                mask = (start + part < number)[:, None] & (u < units)[None, :]
                total += tl.load(at, mask=mask, other=0.0)
            unit = tl.sum(total, 0) + bias
            tl.store(saved + hidden_at + d * units + u, unit, mask=(u < units) & (tile == 0))
            active += rectified(unit)
        mask = (c < channels)[:, None] & (u < units)[None, :]
        w = tl.load(w1 + c[:, None] * units + u[None, :], mask=mask, other=0.0)
        logits += tl.sum(w.to(tl.float32) * active[None, :], 1)
    if b1 is not None:
        logits += DEPTH * tl.load(b1 + c, mask=c < channels, other=0.0).to(tl.float32)
    tl.store(saved + gate_at + c, scale * tl.sigmoid(logits), mask=c < channels)


@kernel
def hidden(
    saved, w0, b0, rows, depth, channels, units, tiles, sample_from, row, hidden_at,
    BR: tl.constexpr, BU: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Hidden units before the ReLU, W0 d + b0, of a tile of descriptors of all samples."""
    pid = tl.program_id(0)
    r = pid // tiles * BR + tl.arange(0, BR)
    u = pid % tiles * BU + tl.arange(0, BU)
    sample, which = (r // depth + sample_from).to(tl.int64), r % depth
    total = tl.zeros([BR, BU], tl.float32)
    for start in range(0, channels, BC):
        c = start + tl.arange(0, BC)
        at = saved + (sample * row + which * channels)[:, None] + c[None, :]
        d = tl.load(at, mask=(r < rows)[:, None] & (c < channels)[None, :], other=0.0)
        mask = (c < channels)[:, None] & (u < units)[None, :]
        w = tl.load(w0 + u[None, :] * channels + c[:, None], mask=mask, other=0.0)
        total = tl.dot(d, w.to(tl.float32), total, input_precision="ieee")
    if b0 is not None:
        total += tl.load(b0 + u, mask=u < units, other=0.0).to(tl.float32)[None, :]
    at = saved + (sample * row + hidden_at + which * units)[:, None] + u[None, :]
    tl.store(at, total, mask=(r < rows)[:, None] & (u < units)[None, :])


@kernel
def channel_gate(
    saved, w1, b1, samples, channels, units, tiles, sample_from, scale, row, hidden_at, gate_at,
    DEPTH: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, BU: tl.constexpr,
):  # fmt: skip
    """scale · σ(W1 Σ_d ReLU(hidden_d) + D b1) of a tile of samples and channels."""
    pid = tl.program_id(0)
    n = pid // tiles * BN + tl.arange(0, BN)
    inside = n < samples
    sample = (n + sample_from).to(tl.int64)
    c = pid % tiles * BC + tl.arange(0, BC)
    total = tl.zeros([BN, BC], tl.float32)
    for start in range(0, units, BU):
        u = start + tl.arange(0, BU)
        mask = inside[:, None] & (u < units)[None, :]
        active = tl.zeros([BN, BU], tl.float32)
        for d in tl.static_range(DEPTH):
            at = saved + (sample * row + hidden_at + d * units)[:, None] + u[None, :]
            active += rectified(tl.load(at, mask=mask, other=0.0))
        mask = (u < units)[:, None] & (c < channels)[None, :]
        w = tl.load(w1 + c[None, :] * units + u[:, None], mask=mask, other=0.0)
        total = tl.dot(active, w.to(tl.float32), total, input_precision="ieee")
    if b1 is not None:
        total += DEPTH * tl.load(b1 + c, mask=c < channels, other=0.0).to(tl.float32)[None, :]
    at = saved + (sample * row + gate_at)[:, None] + c[None, :]
    tl.store(at, scale * tl.sigmoid(total), mask=inside[:, None] & (c < channels)[None, :])


@kernel
def hidden_gradient(
    dlogits, saved, w1, dhidden, samples, channels, units, tiles, sample_from, row, hidden_at,
    DEPTH: tl.constexpr, BN: tl.constexpr, BU: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """dhidden (N, D, units): dlogits (N, C) times W1 where the unit is above 0, or NaN."""
    pid = tl.program_id(0)
    n = pid // tiles * BN + tl.arange(0, BN)
    inside = n < samples
    sample = (n + sample_from).to(tl.int64)
    u = pid % tiles * BU + tl.arange(0, BU)
    total = tl.zeros([BN, BU], tl.float32)
    for start in range(0, channels, BC):
        c = start + tl.arange(0, BC)
        at = dlogits + (sample * channels)[:, None] + c[None, :]
        d = tl.load(at, mask=inside[:, None] & (c < channels)[None, :], other=0.0)
        mask = (c < channels)[:, None] & (u < units)[None, :]
        w = tl.load(w1 + c[:, None] * units + u[None, :], mask=mask, other=0.0)
        total = tl.dot(d, w.to(tl.float32), total, input_precision="ieee")
    mask = inside[:, None] & (u < units)[None, :]
    for d in tl.static_range(DEPTH):
        at = saved + (sample * row + hidden_at + d * units)[:, None] + u[None, :]
        unit = tl.load(at, mask=mask, other=0.0)
        at = dhidden + ((sample * DEPTH + d) * units)[:, None] + u[None, :]
        tl.store(at, tl.where(unit <= 0, 0.0, total), mask=mask)


@kernel
def descriptor_gradient(
    dhidden, w0, ddescriptors, rows, depth, channels, units, tiles, sample_from,
    BR: tl.constexpr, BC: tl.constexpr, BU: tl.constexpr,
):  # fmt: skip
    """ddescriptors (N, D, C): dhidden (N, D, units) times W0, a tile of both."""
    pid = tl.program_id(0)
    r = pid // tiles * BR + tl.arange(0, BR)
    c = pid % tiles * BC + tl.arange(0, BC)
    of = (r + sample_from * depth).to(tl.int64)
    total = tl.zeros([BR, BC], tl.float32)
    for start in range(0, units, BU):
        u = start + tl.arange(0, BU)
        mask = (r < rows)[:, None] & (u < units)[None, :]
        d = tl.load(dhidden + (of * units)[:, None] + u[None, :], mask=mask, other=0.0)
        mask = (u < units)[:, None] & (c < channels)[None, :]
        w = tl.load(w0 + u[:, None] * channels + c[None, :], mask=mask, other=0.0)
        total = tl.dot(d, w.to(tl.float32), total, input_precision="ieee")
    at = ddescriptors + (of * channels)[:, None] + c[None, :]
    tl.store(at, total, mask=(r < rows)[:, None] & (c < channels)[None, :])


@triton.jit
def reduce_gradient(
    dhidden, saved, dw0, db0, pid, rows, depth, channels, units, tiles, row,
    BR: tl.constexpr, BU: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """A tile of dW0 = Σ dhidden · descriptor, and db0, over all samples and descriptors."""
    u = pid // tiles * BU + tl.arange(0, BU)
    c = pid % tiles * BC + tl.arange(0, BC)
    total, bias = tl.zeros([BU, BC], tl.float32), tl.zeros([BU, BR], tl.float32)
    for start in range(0, rows, BR):
        r = start + tl.arange(0, BR)
        wide = r.to(tl.int64)
        mask = (u < units)[:, None] & (r < rows)[None, :]
        h = tl.load(dhidden + (wide * units)[None, :] + u[:, None], mask=mask, other=0.0)
        at = saved + (wide // depth * row + wide % depth * channels)[:, None] + c[None, :]
        d = tl.load(at, mask=(r < rows)[:, None] & (c < channels)[None, :], other=0.0)
        total = tl.dot(h, d, total, input_precision="ieee")
        bias += h
    mask = (u < units)[:, None] & (c < channels)[None, :]
    at = dw0 + u[:, None] * channels + c[None, :]
    tl.store(at, total.to(dw0.dtype.element_ty), mask=mask)
    if db0 is not None:
        mask = (u < units) & (pid % tiles == 0)
        tl.store(db0 + u, tl.sum(bias, 1).to(db0.dtype.element_ty), mask=mask)


@triton.jit
def expand_gradient(
    dlogits, saved, dw1, db1, pid, samples, channels, units, tiles, row, hidden_at,
    DEPTH: tl.constexpr, BN: tl.constexpr, BU: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """A tile of dW1 = Σ dlogits · Σ_d ReLU(hidden_d), and db1, over all samples."""
    u = pid // tiles * BU + tl.arange(0, BU)
    c = pid % tiles * BC + tl.arange(0, BC)
    total, bias = tl.zeros([BC, BU], tl.float32), tl.zeros([BC, BN], tl.float32)
    for start in range(0, samples, BN):
        n = start + tl.arange(0, BN)
        wide = n.to(tl.int64)
        mask = (c < channels)[:, None] & (n < samples)[None, :]
        d = tl.load(dlogits + (wide * channels)[None, :] + c[:, None], mask=mask, other=0.0)
        active = tl.zeros([BN, BU], tl.float32)
        for which in tl.static_range(DEPTH):
            at = saved + (wide * row + hidden_at + which * units)[:, None] + u[None, :]
            mask = (n < samples)[:, None] & (u < units)[None, :]
            active += rectified(tl.load(at, mask=mask, other=0.0))
        total = tl.dot(d, active, total, input_precision="ieee")
        bias += d
    mask = (c < channels)[:, None] & (u < units)[None, :]
    at = dw1 + c[:, None] * units + u[None, :]
    tl.store(at, total.to(dw1.dtype.element_ty), mask=mask)
    if db1 is not None:
        mask = (c < channels) & (pid // tiles == 0)
        tl.store(db1 + c, (DEPTH * tl.sum(bias, 1)).to(db1.dtype.element_ty), mask=mask)
