"""Gradients with respect to x and the gates: two sweeps that sum, one that writes."""

import triton
import triton.language as tl

from whatwhere.ops.cuda.kernels.jit import kernel

NOWHERE = tl.constexpr(2**31 - 1)


@kernel
def sweep(
    x, dy, channel, spatial, descriptors, maps, dx, of_channels, of_positions, first_p, first_c,
    channels, positions, stride_c, stride_p, tiles, splits, steps, tiles_kept,
    channel_row, channel_at, spatial_row, spatial_at,
    descriptors_row, descriptors_at, maps_row, maps_at,
    BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """At a tile of positions, over the channels of a split: what sums of dy and x are wanted.

    ``of_channels`` (N, tiles_kept, C) and ``of_positions`` (N, splits, P) are parts of the
    gradients of the gates, ``first_p`` (N, tiles, C) and ``first_c`` (N, splits, P) the first
    places of the maxima ``descriptors`` and ``maps``, or 2³¹ - 1. What is None is not computed.
    """
    pid = tl.program_id(0)
    split = pid % splits
    tile = (pid // splits) % tiles
    p = tile * BP + tl.arange(0, BP)
    sample = (pid // (splits * tiles)).to(tl.int64)
    base = sample * channels * positions
    by_p, here_p = tl.zeros([BC, BP], tl.float32), tl.full([BC, BP], NOWHERE, tl.int32)
    s = tl.full([BP], 1.0, tl.float32)
    if spatial is not None:
        s = tl.load(spatial + sample * spatial_row + spatial_at + p, mask=p < positions, other=0.0)
    for step in range(split * steps, (split + 1) * steps):
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
            if dx is not None:
                tl.store(
                    dx + base + offset,
                    (gradient * g[:, None] * s[None, :]).to(dx.dtype.element_ty),
                    mask=mask,
                )
            gradient *= value
            if of_channels is not None:
                at = of_channels + (sample * tiles_kept + tile) * channels + c
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
    at = (sample * splits + split) * positions + p
    if of_positions is not None:
        tl.store(of_positions + at, tl.sum(by_p, 0), mask=p < positions)
    if maps is not None:
        tl.store(first_c + at, tl.min(here_p, 0), mask=p < positions)


@kernel
def finish_sums(
    parts, places, gate, out, first, length, tiles, splits, place_splits, scale,
    gate_row, gate_at, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add parts (N, splits, length) in their order; the least of places (N, place_splits, length).

    With a gate it is the gradient before scale · σ that is kept, not that of the gate.
    """
    pid = tl.program_id(0)
    place = pid % tiles * BLOCK + tl.arange(0, BLOCK)
    mask = place < length
    sample = (pid // tiles).to(tl.int64)
    if parts is not None:
        total = tl.zeros([BLOCK], tl.float32)
        for split in range(splits):
            at = parts + (sample * splits + split) * length + place
            total += tl.load(at, mask=mask, other=0.0)
        if gate is not None:
            g = tl.load(gate + sample * gate_row + gate_at + place, mask=mask, other=0.0)
            total *= g * (1.0 - g / scale)
        tl.store(out + sample * length + place, total, mask=mask)
    if places is not None:
        least = tl.full([BLOCK], NOWHERE, tl.int32)
        for split in range(place_splits):
            at = places + (sample * place_splits + split) * length + place
            least = tl.minimum(least, tl.load(at, mask=mask, other=NOWHERE))
        tl.store(first + sample * length + place, least, mask=mask)


@triton.jit
def of_maps(dmaps, first, p, c, positions, channels, mean_at, top_at, mask):
    """The gradient of x · gate in a tile that the gradients of the maps of a sample give."""
    result = tl.zeros(mask.shape, tl.float32)
    if mean_at is not None:
        mean = tl.load(dmaps + mean_at + p, mask=p < positions, other=0.0)
        result += (mean / channels)[None, :]
    if top_at is not None:
        top = tl.load(dmaps + top_at + p, mask=p < positions, other=0.0)
        place = tl.load(first + p, mask=p < positions, other=NOWHERE)
        result += tl.where(place[None, :] == c[:, None], top[None, :], 0.0)
    return result


@kernel
def weighted(
    x, dmaps, first, parts, channels, positions, stride_c, stride_p, tiles, splits, steps,
    dmaps_row, kept, kept_from, mean_at, top_at,
    BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Σ_p x · ∂(x · gate), of a tile of channels over a split: the last of parts (N, kept, C)."""
    pid = tl.program_id(0)
    split = pid % splits
    c = (pid // splits) % tiles * BC + tl.arange(0, BC)
    sample = (pid // (splits * tiles)).to(tl.int64)
    base = sample * channels * positions
    total = tl.zeros([BC, BP], tl.float32)
    for step in range(split * steps, (split + 1) * steps):
        p = step * BP + tl.arange(0, BP)
        mask = (c < channels)[:, None] & (p < positions)[None, :]
        offset = c[:, None] * stride_c + p[None, :] * stride_p
        value = tl.load(x + base + offset, mask=mask, other=0.0).to(tl.float32)
        total += value * of_maps(
            dmaps + sample * dmaps_row, first + sample * positions,
            p, c, positions, channels, mean_at, top_at, mask,
        )  # fmt: skip
    at = parts + (sample * kept + kept_from + split) * channels + c
    tl.store(at, tl.sum(total, 1), mask=c < channels)


@kernel
def spread(
    dy, channel, spatial, dmaps, first_c, ddescriptors, first_p, dx,
    channels, positions, stride_c, stride_p, tiles_c, tiles_p,
    channel_row, channel_at, spatial_row, spatial_at, dmaps_row, ddescriptors_row,
    map_mean_at, map_top_at, mean_at, top_at,
    BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """dx in a tile: gate · (dy · spatial + that of the maps) + that of the descriptors."""
    pid = tl.program_id(0)
    p = pid % tiles_p * BP + tl.arange(0, BP)
    c = pid // tiles_p % tiles_c * BC + tl.arange(0, BC)
    sample = (pid // (tiles_p * tiles_c)).to(tl.int64)
    base = sample * channels * positions
    mask = (c < channels)[:, None] & (p < positions)[None, :]
    offset = c[:, None] * stride_c + p[None, :] * stride_p
    result = tl.zeros([BC, BP], tl.float32)
    if dy is not None:
        s = tl.load(spatial + sample * spatial_row + spatial_at + p, mask=p < positions, other=0.0)
        result += tl.load(dy + base + offset, mask=mask, other=0.0).to(tl.float32) * s[None, :]
    if dmaps is not None:
        result += of_maps(
            dmaps + sample * dmaps_row, first_c + sample * positions,
            p, c, positions, channels, map_mean_at, map_top_at, mask,
        )  # fmt: skip
    if channel is not None:
        at = channel + sample * channel_row + channel_at + c
        result *= tl.load(at, mask=c < channels, other=0.0)[:, None]
    if mean_at is not None:
        at = ddescriptors + sample * ddescriptors_row + mean_at + c
        result += (tl.load(at, mask=c < channels, other=0.0) / positions)[:, None]
    if top_at is not None:
        at = ddescriptors + sample * ddescriptors_row + top_at + c
        top = tl.load(at, mask=c < channels, other=0.0)
        place = tl.load(first_p + sample * channels + c, mask=c < channels, other=NOWHERE)
        result += tl.where(place[:, None] == p[None, :], top[:, None], 0.0)
    tl.store(dx + base + offset, result.to(dx.dtype.element_ty), mask=mask)
