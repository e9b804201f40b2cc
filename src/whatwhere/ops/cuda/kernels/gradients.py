"""Gradients with respect to x and the gates: two sweeps that sum, one that writes."""

import triton
import triton.language as tl

from whatwhere.ops.cuda.kernels.jit import kernel

NOWHERE = tl.constexpr(2**31 - 1)


@kernel
def sweep(
    x, dy, y, channel, spatial, descriptors, maps,
    before, dx, of_channels, of_positions, first_p, first_c,
    channels, positions, stride_c, stride_p, tiles, steps, kept, sample_from, scale,
    channel_row, channel_at, spatial_row, spatial_at,
    descriptors_row, descriptors_at, maps_row, maps_at,
    LOGITS: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """At a tile of positions, over all channels: what sums of dy and x are wanted.

    ``of_channels`` (N, kept, C) are parts of the gradient of the channel gate, one of each tile;
    ``of_positions`` (N, P) is that of the spatial gate, or with LOGITS that before its scale · σ.
    ``first_p`` (N, tiles, C) and ``first_c`` (N, P) are the first places of the maxima
    ``descriptors`` and ``maps``, or 2³¹ - 1. With y, dy passes the ReLU that made y first, and is
    kept as ``before``. What is None is not computed.
    """
    pid = tl.program_id(0)
    tile = pid % tiles
    p = tile * BP + tl.arange(0, BP)
    sample = (pid // tiles + sample_from).to(tl.int64)
    base = sample * channels * positions
    by_p, here_p = tl.zeros([BC, BP], tl.float32), tl.full([BC, BP], NOWHERE, tl.int32)
    s = tl.full([BP], 1.0, tl.float32)
    if spatial is not None:
        s = tl.load(spatial + sample * spatial_row + spatial_at + p, mask=p < positions, other=0.0)
    for step in range(steps):
        c = step * BC + tl.arange(0, BC)
        mask = (c < channels)[:, None] & (p < positions)[None, :]
        offset = c[:, None] * stride_c + p[None, :] * stride_p
        value = tl.load(x + base + offset, mask=mask, other=0.0).to(tl.float32)
        g = tl.full([BC], 1.0, tl.float32)
        if channel is not None:
            at = channel + sample * channel_row + channel_at + c
            g = tl.load(at, mask=c < channels, other=0.0)
        if dy is not None:
            gradient = tl.load(dy + base + offset, mask=mask, other=0.0).to(tl.float32)
            if y is not None:
                # Where the output is NaN the gradient passes, as torch has it.
                out = tl.load(y + base + offset, mask=mask, other=0.0).to(tl.float32)
                gradient = tl.where(out <= 0, 0.0, gradient)
            if before is not None:
                tl.store(before + base + offset, gradient.to(before.dtype.element_ty), mask=mask)
            if dx is not None:
                tl.store(
                    dx + base + offset,
                    (gradient * g[:, None] * s[None, :]).to(dx.dtype.element_ty),
                    mask=mask,
                )
            gradient *= value
            if of_channels is not None:
                at = of_channels + (sample * kept + tile) * channels + c
                tl.store(at, tl.sum(gradient * s[None, :], 1), mask=c < channels)
            if of_positions is not None:
                by_p += gradient * g[:, None]
        if descriptors is not None:
            at = descriptors + sample * descriptors_row + descriptors_at + c
            top = tl.load(at, mask=c < channels, other=0.0)[:, None]
            # Where the maximum is NaN its place is that of the first NaN; else there is none.
            found = mask & ((value == top) | (value != value))
            at = first_p + (sample * tiles + tile) * channels + c
            place = tl.min(tl.where(found, p[None, :], NOWHERE), 1)
            tl.store(at, place, mask=c < channels)
        if maps is not None:
            at = maps + sample * maps_row + maps_at + p
            top = tl.load(at, mask=p < positions, other=0.0)[None, :]
            value *= g[:, None]
            found = mask & ((value == top) | (value != value))
            here_p = tl.minimum(here_p, tl.where(found, c[:, None], NOWHERE))
    at = sample * positions + p
    if of_positions is not None:
        result = tl.sum(by_p, 0)
        if LOGITS:
            result *= s * (1.0 - s / scale)
        tl.store(of_positions + at, result, mask=p < positions)
    if maps is not None:
        tl.store(first_c + at, tl.min(here_p, 0), mask=p < positions)


@kernel
def finish_sums(
    parts, places, gate, out, first, length, tiles, splits, place_splits, sample_from, scale,
    gate_row, gate_at, BS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add parts (N, splits, length); the least of places (N, place_splits, length).

    With a gate it is the gradient before scale · σ that is kept, not that of the gate.
    """
    pid = tl.program_id(0)
    place = pid % tiles * BLOCK + tl.arange(0, BLOCK)
    part = tl.arange(0, BS)
    inside = place < length
    sample = (pid // tiles + sample_from).to(tl.int64)
    if parts is not None:
        total = tl.zeros([BS, BLOCK], tl.float32)
        for start in range(0, splits, BS):
            at = parts + (sample * splits + start + part)[:, None] * length + place[None, :]
            mask = (start + part < splits)[:, None] & inside[None, :]
            total += tl.load(at, mask=mask, other=0.0)
        result = tl.sum(total, 0)
        if gate is not None:
            g = tl.load(gate + sample * gate_row + gate_at + place, mask=inside, other=0.0)
            result *= g * (1.0 - g / scale)
        tl.store(out + sample * length + place, result, mask=inside)
    if places is not None:
        least = tl.full([BS, BLOCK], NOWHERE, tl.int32)
        for start in range(0, place_splits, BS):
            at = places + (sample * place_splits + start + part)[:, None] * length + place[None, :]
            mask = (start + part < place_splits)[:, None] & inside[None, :]
            least = tl.minimum(least, tl.load(at, mask=mask, other=NOWHERE))
        tl.store(first + sample * length + place, tl.min(least, 0), mask=inside)


@triton.jit
def of_statistics(
    grad, first, pooled, means, value, i, length, j, count, mean_at, top_at, std_at, l2_at,
    axis: tl.constexpr,
):  # fmt: skip
    """The gradient in a tile of what was pooled along an axis, from that of the statistics.

    ``value`` was pooled; i are the places of the statistics, of ``length``, and j those along the
    axis, of ``count`` in all; ``grad`` and ``pooled`` have the statistics at the same places.
    """
    inside = i < length
    result = tl.zeros_like(value)
    if mean_at is not None:
        mean = tl.load(grad + mean_at + i, mask=inside, other=0.0)
        result += tl.expand_dims(mean / count, axis)
    if top_at is not None:
        top = tl.load(grad + top_at + i, mask=inside, other=0.0)
        place = tl.load(first + i, mask=inside, other=NOWHERE)
        here = tl.expand_dims(place, axis) == tl.expand_dims(j, 1 - axis)
        result += tl.where(here, tl.expand_dims(top, axis), 0.0)
    if std_at is not None:
        std = tl.load(pooled + std_at + i, mask=inside, other=1.0)
        slope = tl.load(grad + std_at + i, mask=inside, other=0.0) / (
            std * tl.maximum(count - 1, 1)
        )
        mean = tl.load(means + i, mask=inside, other=0.0)
        result += (value - tl.expand_dims(mean, axis)) * tl.expand_dims(slope, axis)
    if l2_at is not None:
        l2 = tl.load(pooled + l2_at + i, mask=inside, other=1.0)
        slope = tl.load(grad + l2_at + i, mask=inside, other=0.0) / l2
        result += value * tl.expand_dims(slope, axis)
    return result


@kernel
def weighted(
    x, gate, dmaps, first, pooled, means, parts,
    channels, positions, stride_c, stride_p, tiles, splits, steps, sample_from,
    gate_row, gate_at, dmaps_row, means_row, means_at, kept, kept_from,
    mean_at, top_at, std_at, l2_at, BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Σ_p x · ∂(x · gate), of a tile of channels over a split: the last of parts (N, kept, C)."""
    pid = tl.program_id(0)
    split = pid % splits
    c = (pid // splits) % tiles * BC + tl.arange(0, BC)
    sample = (pid // (splits * tiles) + sample_from).to(tl.int64)
    base = sample * channels * positions
    total = tl.zeros([BC, BP], tl.float32)
    g = tl.full([BC], 1.0, tl.float32)
    if pooled is not None:
        g = tl.load(gate + sample * gate_row + gate_at + c, mask=c < channels, other=0.0)
        pooled += sample * dmaps_row
    if means is not None:
        means += sample * means_row + means_at
    for step in range(split * steps, (split + 1) * steps):
        p = step * BP + tl.arange(0, BP)
        mask = (c < channels)[:, None] & (p < positions)[None, :]
        offset = c[:, None] * stride_c + p[None, :] * stride_p
        value = tl.load(x + base + offset, mask=mask, other=0.0).to(tl.float32)
        total += value * of_statistics(
            dmaps + sample * dmaps_row, first + sample * positions, pooled, means,
            value * g[:, None], p, positions, c, channels, mean_at, top_at, std_at, l2_at, 0,
        )  # fmt: skip
    at = parts + (sample * kept + kept_from + split) * channels + c
    tl.store(at, tl.sum(total, 1), mask=c < channels)


@kernel
def spread(
    x, dy, channel, spatial, dmaps, first_c, maps, map_means,
    ddescriptors, first_p, descriptors, means, dx,
    channels, positions, stride_c, stride_p, tiles_c, tiles_p, sample_from,
    channel_row, channel_at, spatial_row, spatial_at,
    dmaps_row, map_means_row, map_means_at, map_mean_at, map_top_at, map_std_at, map_l2_at,
    ddescriptors_row, means_row, means_at, mean_at, top_at, std_at, l2_at,
    BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """dx in a tile: gate · (dy · spatial + that of the maps) + that of the descriptors."""
    pid = tl.program_id(0)
    p = pid % tiles_p * BP + tl.arange(0, BP)
    c = pid // tiles_p % tiles_c * BC + tl.arange(0, BC)
    sample = (pid // (tiles_p * tiles_c) + sample_from).to(tl.int64)
    base = sample * channels * positions
    mask = (c < channels)[:, None] & (p < positions)[None, :]
    offset = c[:, None] * stride_c + p[None, :] * stride_p
    result = tl.zeros([BC, BP], tl.float32)
    value = result
    if x is not None:  # which the deviations alone ask for
        value = tl.load(x + base + offset, mask=mask, other=0.0).to(tl.float32)
    g = tl.full([BC], 1.0, tl.float32)
    if channel is not None:
        g = tl.load(channel + sample * channel_row + channel_at + c, mask=c < channels, other=0.0)
    if dy is not None:
        s = tl.load(spatial + sample * spatial_row + spatial_at + p, mask=p < positions, other=0.0)
        result += tl.load(dy + base + offset, mask=mask, other=0.0).to(tl.float32) * s[None, :]
    if dmaps is not None:
        if maps is not None:
            maps += sample * dmaps_row
        if map_means is not None:
            map_means += sample * map_means_row + map_means_at
        result += of_statistics(
            dmaps + sample * dmaps_row, first_c + sample * positions, maps, map_means,
            value * g[:, None], p, positions, c, channels,
            map_mean_at, map_top_at, map_std_at, map_l2_at, 0,
        )  # fmt: skip
    result *= g[:, None]
    if ddescriptors is not None:
        if descriptors is not None:
            descriptors += sample * ddescriptors_row
        if means is not None:
            means += sample * means_row + means_at
        result += of_statistics(
            ddescriptors + sample * ddescriptors_row, first_p + sample * channels,
            descriptors, means, value, c, channels, p, positions,
            mean_at, top_at, std_at, l2_at, 1,
        )  # fmt: skip
    tl.store(dx + base + offset, result.to(dx.dtype.element_ty), mask=mask)
