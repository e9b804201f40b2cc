"""Gates: the channel network, the convolution over maps, and x times both."""

import triton.language as tl

from whatwhere.ops.cuda.kernels.jit import kernel


@kernel
def hidden(
    saved, w0, b0, rows, depth, channels, units, tiles, row, descriptors_at, hidden_at,
    BR: tl.constexpr, BU: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Hidden units before the ReLU, W0 d + b0, of a tile of descriptors of all samples."""
    pid = tl.program_id(0)
    r = pid // tiles * BR + tl.arange(0, BR)
    u = pid % tiles * BU + tl.arange(0, BU)
    sample, which = (r // depth).to(tl.int64), r % depth
    total = tl.zeros([BR, BU], tl.float32)
    for start in range(0, channels, BC):
        c = start + tl.arange(0, BC)
        at = saved + (sample * row + descriptors_at + which * channels)[:, None] + c[None, :]
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
    saved, w1, b1, samples, channels, units, tiles, scale, row, hidden_at, gate_at,
    DEPTH: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, BU: tl.constexpr,
):  # fmt: skip
    """scale · σ(W1 Σ_d ReLU(hidden_d) + D b1) of a tile of samples and channels."""
    pid = tl.program_id(0)
    n = (pid // tiles * BN + tl.arange(0, BN)).to(tl.int64)
    c = pid % tiles * BC + tl.arange(0, BC)
    total = tl.zeros([BN, BC], tl.float32)
    for start in range(0, units, BU):
        u = start + tl.arange(0, BU)
        mask = (n < samples)[:, None] & (u < units)[None, :]
        active = tl.zeros([BN, BU], tl.float32)
        for d in tl.static_range(DEPTH):
            at = saved + (n * row + hidden_at + d * units)[:, None] + u[None, :]
            unit = tl.load(at, mask=mask, other=0.0)
            active += tl.maximum(unit, 0.0, propagate_nan=tl.PropagateNan.ALL)
        mask = (u < units)[:, None] & (c < channels)[None, :]
        w = tl.load(w1 + c[None, :] * units + u[:, None], mask=mask, other=0.0)
        total = tl.dot(active, w.to(tl.float32), total, input_precision="ieee")
    if b1 is not None:
        total += DEPTH * tl.load(b1 + c, mask=c < channels, other=0.0).to(tl.float32)[None, :]
    at = saved + (n * row + gate_at)[:, None] + c[None, :]
    mask = (n < samples)[:, None] & (c < channels)[None, :]
    tl.store(at, scale * tl.sigmoid(total), mask=mask)


@kernel
def spatial_gate(
    saved, wc, bc, frames, height, width, kt, kh, kw, tiles, scale, row, maps_at, gate_at,
    DEPTH: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """scale · σ of the convolution of the maps of a sample, at a tile of positions."""
    pid = tl.program_id(0)
    p = pid % tiles * BP + tl.arange(0, BP)
    positions = frames * height * width
    t, h, w = p // (height * width), p // width % height, p % width
    saved += (pid // tiles).to(tl.int64) * row
    total = tl.zeros([BP], tl.float32)
    for d in tl.static_range(DEPTH):
        for tap in range(kt * kh * kw):
            t1 = t + tap // (kh * kw) - kt // 2
            h1 = h + tap // kw % kh - kh // 2
            w1 = w + tap % kw - kw // 2
            inside = (p < positions) & (t1 >= 0) & (t1 < frames)
            inside &= (h1 >= 0) & (h1 < height) & (w1 >= 0) & (w1 < width)
            at = saved + maps_at + d * positions + (t1 * height + h1) * width + w1
            weight = tl.load(wc + d * (kt * kh * kw) + tap).to(tl.float32)
            total += weight * tl.load(at, mask=inside, other=0.0)
    if bc is not None:
        total += tl.load(bc).to(tl.float32)
    tl.store(saved + gate_at + p, scale * tl.sigmoid(total), mask=p < positions)


@kernel
def apply_gates(
    x, channel, spatial, residual, y, channels, positions, stride_c, stride_p, tiles_c, tiles_p,
    channel_row, channel_at, spatial_row, spatial_at,
    RELU: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """relu?(x · gates + residual) in a tile; y may be x."""
    pid = tl.program_id(0)
    p = pid % tiles_p * BP + tl.arange(0, BP)
    c = pid // tiles_p % tiles_c * BC + tl.arange(0, BC)
    sample = (pid // (tiles_p * tiles_c)).to(tl.int64)
    base = sample * channels * positions
    mask = (c < channels)[:, None] & (p < positions)[None, :]
    offset = c[:, None] * stride_c + p[None, :] * stride_p
    value = tl.load(x + base + offset, mask=mask, other=0.0).to(tl.float32)
    if channel is not None:
        at = channel + sample * channel_row + channel_at + c
        value *= tl.load(at, mask=c < channels, other=0.0)[:, None]
    if spatial is not None:
        at = spatial + sample * spatial_row + spatial_at + p
        value *= tl.load(at, mask=p < positions, other=0.0)[None, :]
    if residual is not None:
        value += tl.load(residual + base + offset, mask=mask, other=0.0).to(tl.float32)
    if RELU:
        value = tl.maximum(value, 0.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(y + base + offset, value.to(y.dtype.element_ty), mask=mask)
