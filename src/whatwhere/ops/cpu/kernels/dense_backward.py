"""The gradient of the channel gate's network, for a batch. Rows and names as in ``dense``.

With z = W1 Σ_d ReLU(h_d) + D·b1 and h_d = W0 d + b0:
dh_d = (W1ᵀ dz)·[h_d > 0], dd = W0ᵀ dh_d, dW1 = Σ_n dz ⊗ Σ_d ReLU(h_d), dW0 = Σ_nd dh_d ⊗ d.
"""

from whatwhere.ops.cpu.kernels.memory import at, scalar
from whatwhere.ops.cpu.kernels.simd import (
    body,
    filled,
    function,
    lanes,
    load,
    store,
    where_equal,
    where_greater,
)


@function
def hidden_gradient(dz, w1, pre, n0, n1, depth, sample, channels, units, j0, j1, dh):
    """dh (N·D, J) for units j0 to j1, from dz (N, C)."""
    step = lanes(w1)
    zero = filled(w1, 0.0)
    for n in range(n0, n1, 4):
        row0 = at(dz, n * channels)
        row1 = at(dz, min(n + 1, n1 - 1) * channels)
        row2 = at(dz, min(n + 2, n1 - 1) * channels)
        row3 = at(dz, min(n + 3, n1 - 1) * channels)
        for j in range(j0, j1, step):
            count = min(step, j1 - j)
            s0 = s1 = s2 = s3 = zero
            for c in range(channels):
                weight = load(w1, c * units + j, count)
                s0 = s0 + weight * filled(w1, row0[c])
                s1 = s1 + weight * filled(w1, row1[c])
                s2 = s2 + weight * filled(w1, row2[c])
                s3 = s3 + weight * filled(w1, row3[c])
            _through_relu(pre, n, depth, sample, units, j, count, s0, dh)
            if n + 1 < n1:
                _through_relu(pre, n + 1, depth, sample, units, j, count, s1, dh)
            if n + 2 < n1:
                _through_relu(pre, n + 2, depth, sample, units, j, count, s2, dh)
            if n + 3 < n1:
                _through_relu(pre, n + 3, depth, sample, units, j, count, s3, dh)


@body
def _through_relu(pre, n, depth, sample, units, j, count, gradient, dh):
    zero = filled(dh, 0.0)
    for d in range(depth):
        before = load(at(pre, n * sample + d * units), j, count)
        # As torch: a NaN before the ReLU lets the gradient pass.
        stopped = where_equal(before, before, zero, gradient)
        passed = where_greater(before, zero, gradient, stopped)
        store(at(dh, (n * depth + d) * units), j, passed, count)


@function
def descriptor_gradient(dh, w0, n0, n1, depth, channels, units, c0, c1, dd):
    """dd (N·D, C) = W0ᵀ dh for channels c0 to c1."""
    step = lanes(w0)
    r1 = n1 * depth
    for r in range(n0 * depth, r1, 4):
        row0 = at(dh, r * units)
        row1 = at(dh, min(r + 1, r1 - 1) * units)
        row2 = at(dh, min(r + 2, r1 - 1) * units)
        row3 = at(dh, min(r + 3, r1 - 1) * units)
        for c in range(c0, c1, step):
            count = min(step, c1 - c)
            s0 = s1 = s2 = s3 = filled(w0, 0.0)
            for j in range(units):
                weight = load(w0, j * channels + c, count)
                s0 = s0 + weight * filled(w0, row0[j])
                s1 = s1 + weight * filled(w0, row1[j])
                s2 = s2 + weight * filled(w0, row2[j])
                s3 = s3 + weight * filled(w0, row3[j])
            store(dd, r * channels + c, s0, count)
            if r + 1 < r1:
                store(dd, (r + 1) * channels + c, s1, count)
            if r + 2 < r1:
                store(dd, (r + 2) * channels + c, s2, count)
            if r + 3 < r1:
                store(dd, (r + 3) * channels + c, s3, count)


@function
def expand_gradient(dz, sums, batch, depth, channels, units, c0, c1, dw1, db1, biased):
    """Rows c0 to c1 of dW1 (C, J), and of db1."""
    step = lanes(sums)
    for c in range(c0, c1):
        for j in range(0, units, step):
            count = min(step, units - j)
            whole = filled(sums, 0.0)
            for n in range(batch):
                whole = whole + filled(sums, dz[n * channels + c]) * load(
                    sums, n * units + j, count
                )
            store(dw1, c * units + j, whole, count)
        if biased:
            total = scalar(dz, 0.0)
            for n in range(batch):
                total += dz[n * channels + c]
            db1[c] = depth * total


@function
def reduce_gradient(dh, saved, batch, depth, sample, channels, units, c0, c1, dw0):
    """Columns c0 to c1 of dW0 (J, C)."""
    step = lanes(dh)
    rows = batch * depth
    for c in range(c0, c1, step):
        count = min(step, c1 - c)
        for j in range(0, units, 4):
            k1, k2, k3 = min(j + 1, units - 1), min(j + 2, units - 1), min(j + 3, units - 1)
            s0 = s1 = s2 = s3 = filled(dh, 0.0)
            for r in range(rows):
                n, d = divmod(r, depth)
                value = load(saved, n * sample + d * channels + c, count)
                row = at(dh, r * units)
                s0 = s0 + value * filled(dh, row[j])
                s1 = s1 + value * filled(dh, row[k1])
                s2 = s2 + value * filled(dh, row[k2])
                s3 = s3 + value * filled(dh, row[k3])
            # In this order a repeated unit is written with the same sum again.
            store(dw0, k3 * channels + c, s3, count)
            store(dw0, k2 * channels + c, s2, count)
            store(dw0, k1 * channels + c, s1, count)
            store(dw0, j * channels + c, s0, count)


@function
def reduce_bias_gradient(dh, rows, units, db0):
    """db0 = Σ dh."""
    for j in range(units):
        total = scalar(dh, 0.0)
        for r in range(rows):
            total += dh[r * units + j]
        db0[j] = total
