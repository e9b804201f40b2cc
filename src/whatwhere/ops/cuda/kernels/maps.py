"""The convolution over maps, at a tile of positions, and its gradients."""

import triton
import triton.language as tl

from whatwhere.ops.cuda.kernels.jit import kernel


@triton.jit
def convolved(
    maps, wc, p, frames, height, width, kt, kh, wt, wh, ww,
    SIGN: tl.constexpr, KR: tl.constexpr, KW: tl.constexpr,
):  # fmt: skip
    """One map (P) convolved at positions p; with SIGN -1 by the weights turned round.

    A tile has the rows of taps (time and height) along its first axis, so that threads share them,
    and goes through the taps of a row. KR is a power of two, kt · kh or more.
    """
    positions = frames * height * width
    r = tl.arange(0, KR)
    t, h, w = p // (height * width), p // width % height, p % width
    t1 = t[None, :] + SIGN * (r // kh - kt // 2)[:, None]
    h1 = h[None, :] + SIGN * (r % kh - kh // 2)[:, None]
    inside = (r < kt * kh)[:, None] & (p < positions)[None, :]
    inside &= (t1 >= 0) & (t1 < frames) & (h1 >= 0) & (h1 < height)
    line = (t1 * height + h1) * width
    total = tl.zeros(line.shape, tl.float32)
    for k in tl.static_range(KW):
        w1 = w + SIGN * (k - KW // 2)
        mask = inside & ((w1 >= 0) & (w1 < width))[None, :]
        at = wc + r // kh * wt + r % kh * wh + k * ww
        weight = tl.load(at, mask=r < kt * kh, other=0.0).to(tl.float32)
        total += weight[:, None] * tl.load(maps + line + w1[None, :], mask=mask, other=0.0)
    return tl.sum(total, 0)


@triton.jit
def weight_gradient(
    dz, saved, parts, pid, samples, frames, height, width, kt, kh, each, weights, row, maps_at,
    DEPTH: tl.constexpr, KW: tl.constexpr, TAPS: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Of a row of weights, or of the bias after them, Σ dz · map over ``each`` tiles of all."""
    lines = DEPTH * kt * kh
    share, line = pid // (lines + 1), pid % (lines + 1)
    d, dt, dh = line // (kt * kh), line // kh % kt - kt // 2, line % kh - kh // 2
    positions = frames * height * width
    tiles = (positions + BP - 1) // BP
    k = tl.arange(0, TAPS)
    total, bias = tl.zeros([TAPS, BP], tl.float32), tl.zeros([BP], tl.float32)
    for tile in range(share * each, tl.minimum((share + 1) * each, samples * tiles)):
        sample = tl.cast(tile // tiles, tl.int64)
        p = tile % tiles * BP + tl.arange(0, BP)
        t1, h1 = p // (height * width) + dt, p // width % height + dh
        w1 = (p % width)[None, :] + (k - KW // 2)[:, None]
        inside = (p < positions) & (t1 >= 0) & (t1 < frames) & (h1 >= 0) & (h1 < height)
        mask = inside[None, :] & (w1 >= 0) & (w1 < width) & (k < KW)[:, None] & (line < lines)
        gradient = tl.load(dz + sample * positions + p, mask=p < positions, other=0.0)
        at = saved + sample * row + maps_at + d * positions
        at += ((t1 * height + h1) * width)[None, :] + w1
        total += gradient[None, :] * tl.load(at, mask=mask, other=0.0)
        bias += gradient
    parts += share * weights
    tl.store(parts + line * KW + k, tl.sum(total, 1), mask=(k < KW) & (line < lines))
    tl.store(parts + weights - 1 + k, tl.sum(bias, 0), mask=(k == 0) & (line == lines))


@kernel
def map_gradients(
    dz, wc, dmaps, saved, parts, map_programs, samples, tiles, sample_from,
    frames, height, width, kt, kh, wd, wt, wh, ww, each, weights, row, maps_at,
    DEPTH: tl.constexpr, KR: tl.constexpr, KW: tl.constexpr, TAPS: tl.constexpr,
    BP: tl.constexpr,
):  # fmt: skip
    """Of the first programs dmaps (N, D, P), at a tile of positions, from dz (N, P).

    Of the others the gradients of weights and bias, in parts (shares, weights) over all samples.
    """
    pid = tl.program_id(0)
    if pid < map_programs:
        p = pid % tiles * BP + tl.arange(0, BP)
        positions = frames * height * width
        sample = (pid // tiles + sample_from).to(tl.int64)
        for d in tl.static_range(DEPTH):
            total = convolved(
                dz + sample * positions, wc + d * wd, p, frames, height, width, kt, kh,
                wt, wh, ww, -1, KR, KW,
            )  # fmt: skip
            tl.store(dmaps + (sample * DEPTH + d) * positions + p, total, mask=p < positions)
    else:
        weight_gradient(
            dz, saved, parts, pid - map_programs, samples, frames, height, width, kt, kh, each,
            weights, row, maps_at, DEPTH, KW, TAPS, BP,
        )  # fmt: skip
