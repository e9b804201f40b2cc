"""The gradients of the convolution over maps: of the maps, and of its weights."""

import triton.language as tl

from whatwhere.ops.cuda.kernels.jit import kernel


@kernel
def map_gradient(
    dz, wc, dmaps, frames, height, width, kt, kh, kw, tiles, DEPTH: tl.constexpr, BP: tl.constexpr
):
    """dmaps (N, D, P) at a tile of positions: dz (N, P) convolved with the weights turned round."""
    pid = tl.program_id(0)
    p = pid % tiles * BP + tl.arange(0, BP)
    positions = frames * height * width
    sample = (pid // tiles).to(tl.int64)
    t, h, w = p // (height * width), p // width % height, p % width
    for d in tl.static_range(DEPTH):
        total = tl.zeros([BP], tl.float32)
        for tap in range(kt * kh * kw):
            t1 = t - tap // (kh * kw) + kt // 2
            h1 = h - tap // kw % kh + kh // 2
            w1 = w - tap % kw + kw // 2
            inside = (p < positions) & (t1 >= 0) & (t1 < frames)
            inside &= (h1 >= 0) & (h1 < height) & (w1 >= 0) & (w1 < width)
            at = dz + sample * positions + (t1 * height + h1) * width + w1
            weight = tl.load(wc + d * (kt * kh * kw) + tap).to(tl.float32)
            total += weight * tl.load(at, mask=inside, other=0.0)
        tl.store(dmaps + (sample * DEPTH + d) * positions + p, total, mask=p < positions)


@kernel
def weight_gradient(
    dz, saved, parts, samples, frames, height, width, kt, kh, kw, weights, each, row, maps_at,
    BP: tl.constexpr,
):  # fmt: skip
    """Of one weight, Σ dz · map over ``each`` samples: parts (shares, weights)."""
    pid = tl.program_id(0)
    share, weight = pid // weights, pid % weights
    d, tap = weight // (kt * kh * kw), weight % (kt * kh * kw)
    positions = frames * height * width
    total = tl.zeros([BP], tl.float32)
    for n in range(share * each, tl.minimum((share + 1) * each, samples)):
        sample = tl.cast(n, tl.int64)
        for start in range(0, positions, BP):
            p = start + tl.arange(0, BP)
            t1 = p // (height * width) + tap // (kh * kw) - kt // 2
            h1 = p // width % height + tap // kw % kh - kh // 2
            w1 = p % width + tap % kw - kw // 2
            inside = (p < positions) & (t1 >= 0) & (t1 < frames)
            inside &= (h1 >= 0) & (h1 < height) & (w1 >= 0) & (w1 < width)
            gradient = tl.load(dz + sample * positions + p, mask=p < positions, other=0.0)
            at = saved + sample * row + maps_at + d * positions
            total += gradient * tl.load(
                at + (t1 * height + h1) * width + w1, mask=inside, other=0.0
            )
    tl.store(parts + share * weights + weight, tl.sum(total, 0))
