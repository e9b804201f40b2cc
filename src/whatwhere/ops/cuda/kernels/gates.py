"""Gates on x: the product with both, and the last pass of CBAM, which makes the second itself."""

import triton.language as tl

from whatwhere.ops.cuda.kernels.jit import kernel
from whatwhere.ops.cuda.kernels.maps import convolved
from whatwhere.ops.cuda.kernels.network import rectified


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
        value = rectified(value)
    tl.store(y + base + offset, value.to(y.dtype.element_ty), mask=mask)


@kernel
def convolve_and_apply(
    x, saved, wc, bc, residual, y, channels, positions, stride_c, stride_p,
    tiles, splits, steps, sample_from, frames, height, width, kt, kh, wd, wt, wh, ww, scale,
    row, gate_at, maps_at, spatial_at,
    DEPTH: tl.constexpr, KR: tl.constexpr, KW: tl.constexpr, RELU: tl.constexpr,
    BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """At a tile of positions: the spatial gate, then relu?(x · gates + residual) over a split.

    Every split of the channels makes the gate, the first keeps it; y may be x.
    """
    pid = tl.program_id(0)
    split = pid % splits
    p = (pid // splits) % tiles * BP + tl.arange(0, BP)
    sample = (pid // (splits * tiles) + sample_from).to(tl.int64)
    saved += sample * row
    base = sample * channels * positions
    logits = tl.zeros([BP], tl.float32)
    for d in tl.static_range(DEPTH):
        logits += convolved(
            saved + maps_at + d * positions, wc + d * wd, p, frames, height, width, kt, kh,
            wt, wh, ww, 1, KR, KW,
        )  # fmt: skip
    if bc is not None:
        logits += tl.load(bc).to(tl.float32)
    s = scale * tl.sigmoid(logits)
    tl.store(saved + spatial_at + p, s, mask=(p < positions) & (split == 0))
    for step in range(split * steps, (split + 1) * steps):
        c = step * BC + tl.arange(0, BC)
        mask = (c < channels)[:, None] & (p < positions)[None, :]
        offset = c[:, None] * stride_c + p[None, :] * stride_p
        value = tl.load(x + base + offset, mask=mask, other=0.0).to(tl.float32)
        value *= tl.load(saved + gate_at + c, mask=c < channels, other=0.0)[:, None]
        value *= s[None, :]
        if residual is not None:
            value += tl.load(residual + base + offset, mask=mask, other=0.0).to(tl.float32)
        if RELU:
            value = rectified(value)
        tl.store(y + base + offset, value.to(y.dtype.element_ty), mask=mask)
