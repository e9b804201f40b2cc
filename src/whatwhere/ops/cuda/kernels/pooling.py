"""Pooling over positions and over channels: mean and maximum, whole or in parts."""

import triton
import triton.language as tl

from whatwhere.ops.cuda.kernels.jit import kernel


@triton.jit
def highest(tile, axis: tl.constexpr):
    """The maximum along an axis; NaN where any element is."""
    lost = tl.max((tile != tile).to(tl.int32), axis)
    top = tl.max(tl.where(tile != tile, float("-inf"), tile), axis)
    return tl.where(lost > 0, float("nan"), top)


@kernel
def pool_positions(
    x, out, channels, positions, stride_c, stride_p, tiles, splits, steps, count,
    row, split_row, mean_at, top_at,
    MEAN: tl.constexpr, TOP: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Sum and maximum of a tile of channels over the positions of a split."""
    pid = tl.program_id(0)
    split = pid % splits
    c = (pid // splits) % tiles * BC + tl.arange(0, BC)
    sample = (pid // (splits * tiles)).to(tl.int64)
    x += sample * channels * positions
    total = tl.zeros([BC, BP], tl.float32)
    top = tl.full([BC, BP], float("-inf"), tl.float32)
    for step in range(split * steps, (split + 1) * steps):
        p = step * BP + tl.arange(0, BP)
        mask = (c < channels)[:, None] & (p < positions)[None, :]
        offset = c[:, None] * stride_c + p[None, :] * stride_p
        value = tl.load(x + offset, mask=mask, other=0.0).to(tl.float32)
        if MEAN:
            total += value
        if TOP:
            masked = tl.where(mask, value, float("-inf"))
            top = tl.maximum(top, masked, propagate_nan=tl.PropagateNan.ALL)
    out += sample * row + split * split_row
    if MEAN:
        tl.store(out + mean_at + c, tl.sum(total, 1) / count, mask=c < channels)
    if TOP:
        tl.store(out + top_at + c, highest(top, 1), mask=c < channels)


@kernel
def pool_channels(
    x, gate, out, channels, positions, stride_c, stride_p, tiles, splits, steps, count,
    gate_row, gate_at, row, split_row, mean_at, top_at,
    MEAN: tl.constexpr, TOP: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Sum and maximum of x · gate, at a tile of positions, over the channels of a split."""
    pid = tl.program_id(0)
    split = pid % splits
    p = (pid // splits) % tiles * BP + tl.arange(0, BP)
    sample = (pid // (splits * tiles)).to(tl.int64)
    x += sample * channels * positions
    total = tl.zeros([BC, BP], tl.float32)
    top = tl.full([BC, BP], float("-inf"), tl.float32)
    for step in range(split * steps, (split + 1) * steps):
        c = step * BC + tl.arange(0, BC)
        mask = (c < channels)[:, None] & (p < positions)[None, :]
        offset = c[:, None] * stride_c + p[None, :] * stride_p
        value = tl.load(x + offset, mask=mask, other=0.0).to(tl.float32)
        if gate is not None:
            at = gate + sample * gate_row + gate_at + c
            value *= tl.load(at, mask=c < channels, other=0.0)[:, None]
        if MEAN:
            total += value
        if TOP:
            masked = tl.where(mask, value, float("-inf"))
            top = tl.maximum(top, masked, propagate_nan=tl.PropagateNan.ALL)
    out += sample * row + split * split_row
    if MEAN:
        tl.store(out + mean_at + p, tl.sum(total, 0) / count, mask=p < positions)
    if TOP:
        tl.store(out + top_at + p, highest(top, 0), mask=p < positions)


@kernel
def finish_pooling(
    parts, out, length, tiles, splits, count, row, mean_at, top_at,
    MEAN: tl.constexpr, TOP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Mean and maximum from parts (N, splits, 2, length), added in their order."""
    pid = tl.program_id(0)
    place = pid % tiles * BLOCK + tl.arange(0, BLOCK)
    mask = place < length
    sample = (pid // tiles).to(tl.int64)
    parts += sample * splits * 2 * length
    total = tl.zeros([BLOCK], tl.float32)
    top = tl.full([BLOCK], float("-inf"), tl.float32)
    for split in range(splits):
        at = parts + split * 2 * length + place
        if MEAN:
            total += tl.load(at, mask=mask, other=0.0)
        if TOP:
            part = tl.load(at + length, mask=mask, other=0.0)
            top = tl.maximum(top, part, propagate_nan=tl.PropagateNan.ALL)
    out += sample * row
    if MEAN:
        tl.store(out + mean_at + place, total / count, mask=mask)
    if TOP:
        tl.store(out + top_at + place, top, mask=mask)
