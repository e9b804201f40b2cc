"""The gradients of all parameters of a CBAM in one launch, each summed in one order."""

import triton
import triton.language as tl

from whatwhere.ops.cuda.kernels.jit import kernel
from whatwhere.ops.cuda.kernels.network import expand_gradient, reduce_gradient


@triton.jit
def convolution_gradient(parts, dwc, dbc, pid, shares, weights, BS: tl.constexpr, BW: tl.constexpr):
    """A tile of the convolution's weights, and the bias behind them, from parts (shares, all)."""
    at, share = pid * BW + tl.arange(0, BW), tl.arange(0, BS)
    total = tl.zeros([BS, BW], tl.float32)
    for start in range(0, shares, BS):
        mask = (start + share < shares)[:, None] & (at < weights)[None, :]
        total += tl.load(parts + (start + share)[:, None] * weights + at[None, :], mask, other=0.0)
    result = tl.sum(total, 0)
    tl.store(dwc + at, result.to(dwc.dtype.element_ty), mask=at < weights - 1)
    if dbc is not None:
        to_bias = dbc + at - (weights - 1)
        tl.store(to_bias, result.to(dbc.dtype.element_ty), mask=at == weights - 1)


@kernel
def parameter_gradients(
    dlogits, dhidden, saved, parts, dw0, db0, dw1, db1, dwc, dbc,
    samples, channels, units, tiles, programs, shares, weights, row, hidden_at,
    DEPTH: tl.constexpr, BN: tl.constexpr, BU: tl.constexpr, BC: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    """Of the first ``programs`` W0 and b0, of as many W1 and b1, of the rest the convolution's."""
    pid = tl.program_id(0)
    if pid < programs:
        reduce_gradient(
            dhidden, saved, dw0, db0, pid, samples * DEPTH, DEPTH, channels, units, tiles, row,
            BN, BU, BC,
        )  # fmt: skip
    elif pid < 2 * programs:
        expand_gradient(
            dlogits, saved, dw1, db1, pid - programs, samples, channels, units, tiles, row,
            hidden_at, DEPTH, BN, BU, BC,
        )  # fmt: skip
    else:
        convolution_gradient(parts, dwc, dbc, pid - 2 * programs, shares, weights, BS, BC)
