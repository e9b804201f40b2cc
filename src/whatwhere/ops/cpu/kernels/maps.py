"""The spatial gate's convolution on the maps of one sample, of any rank, and its gradient.

Maps (D, T, H, W) are copied into the middle of zeros, (D, T+kt-1, H+kh-1, W+kw-1); a tap of the
kernel is then an offset. Two-dimensional maps have T = kt = 1, sequences H = kh = 1 too. The area
of zeros has room for one vector more at its end, where vectors of the last rows may reach.
"""

from whatwhere.ops.cpu.kernels.memory import at
from whatwhere.ops.cpu.kernels.sigmoid import sigmoid
from whatwhere.ops.cpu.kernels.simd import body, filled, function, lanes, load, store, total


@function
def pad(source, depth, shape, kernel, target):
    """Copy maps into the middle of zeros."""
    frames, height, width = shape
    kt, kh, kw = kernel
    rows, columns = height + kh - 1, width + kw - 1
    area = depth * (frames + kt - 1) * rows * columns
    step = lanes(source)
    zero = filled(source, 0.0)
    for i in range(0, area, step):
        store(target, i, zero, step)
    for d in range(depth):
        for t in range(frames):
            for h in range(height):
                row = at(source, ((d * frames + t) * height + h) * width)
                place = ((d * (frames + kt - 1) + t + kt // 2) * rows + h + kh // 2) * columns
                out = at(target, place + kw // 2)
                for w in range(0, width, step):
                    store(out, w, load(row, w, width - w), width - w)


@function
def gather(weights, strides, depth, kernel, target):
    """Copy the convolution's weights, whatever their strides, so that they lie side by side."""
    kt, kh, kw = kernel
    i = 0
    for d in range(depth):
        for t in range(kt):
            for h in range(kh):
                for w in range(kw):
                    place = d * strides[0] + t * strides[1] + h * strides[2] + w * strides[3]
                    target[i] = weights[place]
                    i += 1


@function
def correlate(padded, weights, flip, depth, shape, kernel, constant, out):
    """out = Σ weights · padded maps + constant; ``flip`` turns the kernel around."""
    frames, height, width = shape
    step = lanes(padded)
    for t in range(frames):
        for h in range(0, height, 4):
            row = at(out, (t * height + h) * width)
            rows = min(4, height - h)
            w = 0
            while w < width:
                place = t, h, w, rows
                two = w + step < width
                if two:
                    sums = _block(
                        padded, weights, flip, depth, shape, kernel, constant, place, step
                    )
                else:
                    sums = _block(padded, weights, flip, depth, shape, kernel, constant, place, 0)
                _store_rows(row, w, sums[0], rows, width)
                if two:
                    _store_rows(row, w + step, sums[1], rows, width)
                w += 2 * step if two else step


@body
def _store_rows(row, w, sums, rows, width):
    store(row, w, sums[0], width - w)
    if rows > 1:
        store(row, width + w, sums[1], width - w)
    if rows > 2:
        store(row, 2 * width + w, sums[2], width - w)
    if rows > 3:
        store(row, 3 * width + w, sums[3], width - w)


@function
def _block(padded, weights, flip, depth, shape, kernel, constant, place, beside):
    """Four rows of the output, one vector wide and the vector ``beside`` it, 0 for none."""
    frames, height, width = shape
    kt, kh, kw = kernel
    t, h, w, rows = place
    taps = kt * kh * kw
    columns = width + kw - 1
    start = filled(padded, constant)
    sums = start, start, start, start
    others = sums
    for d in range(depth):
        for k in range(kt):
            plane = (d * (frames + kt - 1) + t + k) * (height + kh - 1) + h
            block = at(padded, plane * columns + w)
            tap = k * kh * kw
            first = at(weights, d * taps + (taps - 1 - tap if flip else tap))
            sign = -1 if flip else 1
            # A row that is read serves all the rows of the output that need it.
            for r in range(rows + kh - 1):
                row, from_row = at(block, r * columns), at(first, sign * r * kw)
                if beside > 0:
                    sums, others = _two(row, beside, from_row, sign, r, kh, kw, sums, others)
                else:
                    sums = _one(row, from_row, sign, r, kh, kw, sums)
    return sums, others


@body
def _one(row, weights, sign, r, kh, kw, sums):
    step = lanes(row)
    s0, s1, s2, s3 = sums
    for x in range(kw):
        value = load(row, x, step)
        tap = sign * x
        if r < kh:
            s0 = s0 + value * filled(row, weights[tap])
        if 1 <= r < kh + 1:
            s1 = s1 + value * filled(row, weights[tap - sign * kw])
        if 2 <= r < kh + 2:
            s2 = s2 + value * filled(row, weights[tap - 2 * sign * kw])
        if 3 <= r < kh + 3:
            s3 = s3 + value * filled(row, weights[tap - 3 * sign * kw])
    return s0, s1, s2, s3


@body
def _two(row, beside, weights, sign, r, kh, kw, sums, others):
    step = lanes(row)
    s0, s1, s2, s3 = sums
    z0, z1, z2, z3 = others
    for x in range(kw):
        value, other = load(row, x, step), load(row, beside + x, step)
        tap = sign * x
        if r < kh:
            weight = filled(row, weights[tap])
            s0, z0 = s0 + value * weight, z0 + other * weight
        if 1 <= r < kh + 1:
            weight = filled(row, weights[tap - sign * kw])
            s1, z1 = s1 + value * weight, z1 + other * weight
        if 2 <= r < kh + 2:
            weight = filled(row, weights[tap - 2 * sign * kw])
            s2, z2 = s2 + value * weight, z2 + other * weight
        if 3 <= r < kh + 3:
            weight = filled(row, weights[tap - 3 * sign * kw])
            s3, z3 = s3 + value * weight, z3 + other * weight
    return (s0, s1, s2, s3), (z0, z1, z2, z3)


@function
def squash(logits, scale, count, gate):
    """gate = scale · σ(logits)."""
    step = lanes(logits)
    factor = filled(logits, scale)
    for i in range(0, count, step):
        store(gate, i, factor * sigmoid(load(logits, i, count - i)), count - i)


@function
def unsquash(gate, scale, count, gradient):
    """The gradient of the logits, in place of that of the gate scale · σ(logits)."""
    step = lanes(gate)
    one = filled(gate, 1.0)
    inverse = filled(gate, 1.0 / scale)
    for i in range(0, count, step):
        g = load(gate, i, count - i)
        slope = g * (one - g * inverse)
        store(gradient, i, load(gradient, i, count - i) * slope, count - i)


@function
def kernel_gradient(padded, dz, depth, shape, kernel, dweights):
    """dweights = Σ_p dz[p] · padded maps at p and each tap."""
    frames, height, width = shape
    kt, kh, kw = kernel
    rows, columns = height + kh - 1, width + kw - 1
    tap = 0
    for d in range(depth):
        for t in range(kt):
            for h in range(kh):
                line = at(padded, ((d * (frames + kt - 1) + t) * rows + h) * columns)
                for w in range(0, kw, 4):
                    _four_taps(
                        at(line, w), dz, min(4, kw - w), shape, rows, columns, at(dweights, tap)
                    )
                    tap += min(4, kw - w)


@function
def _four_taps(padded, dz, taps, shape, rows, columns, dweights):
    frames, height, width = shape
    step = lanes(dz)
    # A kernel of fewer taps reads its last tap again.
    w1, w2, w3 = min(1, taps - 1), min(2, taps - 1), min(3, taps - 1)
    sum0 = sum1 = sum2 = sum3 = filled(dz, 0.0)
    for t in range(frames):
        for h in range(height):
            line = at(padded, (t * rows + h) * columns)
            row = at(dz, (t * height + h) * width)
            for w in range(0, width, step):
                value = load(row, w, width - w)
                sum0 = sum0 + value * load(line, w, width - w)
                sum1 = sum1 + value * load(line, w + w1, width - w)
                sum2 = sum2 + value * load(line, w + w2, width - w)
                sum3 = sum3 + value * load(line, w + w3, width - w)
    dweights[0] = total(sum0)
    if taps > 1:
        dweights[1] = total(sum1)
    if taps > 2:
        dweights[2] = total(sum2)
    if taps > 3:
        dweights[3] = total(sum3)


@function
def plain_sum(values, count):
    """The sum of ``count`` numbers."""
    step = lanes(values)
    sums = filled(values, 0.0)
    for i in range(0, count, step):
        sums = sums + load(values, i, count - i)
    return total(sums)
