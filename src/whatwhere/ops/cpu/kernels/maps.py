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


@body
def _places(index, vectors, limit, shape, kernel, step):
    # Where the index-th vector of the output begins: in the padded maps, in the output, its length.
    _, height, width = shape
    row, vector = divmod(min(index, limit - 1), vectors)
    t, h = divmod(row, height)
    w = vector * step
    padded = (t * (height + kernel[1] - 1) + h) * (width + kernel[2] - 1) + w
    return padded, row * width + w, min(step, width - w)


@function
def correlate(padded, weights, flip, depth, shape, kernel, constant, out):
    """out = Σ weights · padded maps + constant; ``flip`` turns the kernel around."""
    frames, height, width = shape
    kt, kh, kw = kernel
    step = lanes(padded)
    rows, columns = height + kh - 1, width + kw - 1
    vectors = (width + step - 1) // step
    limit = frames * height * vectors
    taps = kt * kh * kw
    start = filled(padded, constant)
    for index in range(0, limit, 4):
        in0, out0, count0 = _places(index, vectors, limit, shape, kernel, step)
        in1, out1, count1 = _places(index + 1, vectors, limit, shape, kernel, step)
        in2, out2, count2 = _places(index + 2, vectors, limit, shape, kernel, step)
        in3, out3, count3 = _places(index + 3, vectors, limit, shape, kernel, step)
        sum0 = sum1 = sum2 = sum3 = start
        for d in range(depth):
            for t in range(kt):
                for h in range(kh):
                    line = at(padded, ((d * (frames + kt - 1) + t) * rows + h) * columns)
                    tap = (t * kh + h) * kw
                    tap = d * taps + (taps - 1 - tap if flip else tap)
                    sign = -1 if flip else 1
                    for w in range(kw):
                        weight = filled(padded, weights[tap + sign * w])
                        sum0 = sum0 + weight * load(line, in0 + w, step)
                        sum1 = sum1 + weight * load(line, in1 + w, step)
                        sum2 = sum2 + weight * load(line, in2 + w, step)
                        sum3 = sum3 + weight * load(line, in3 + w, step)
        store(out, out0, sum0, count0)
        store(out, out1, sum1, count1)
        store(out, out2, sum2, count2)
        store(out, out3, sum3, count3)


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
