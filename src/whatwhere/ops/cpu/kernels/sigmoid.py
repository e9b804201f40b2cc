"""The logistic function on vectors."""

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from whatwhere.ops.cpu.kernels.vector import I32, SUFFIX, call, constant

LOG2_E = math.log2(math.e)
# ln 2 in two parts, the first with so few bits that its products with small integers are exact.
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4
# Minimax coefficients of (e^r - 1 - r) / r² on |r| <= ln(2)/2, highest power first (Cephes expf).
COEFFICIENTS = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)
# Adding this leaves the nearest integer in the low bits of a float32.
ROUND = 12582912.0
LOWEST, HIGHEST = -87.0, 88.0


def _exponential(builder: Any, x: Any) -> Any:
    # e^x = 2^n e^r with n the nearest integer to x / ln 2. Comparisons let NaN through.
    number = x.type
    integers = ir.VectorType(I32, number.count)
    low, high = constant(number, LOWEST), constant(number, HIGHEST)
    x = builder.select(builder.fcmp_ordered("<", x, low), low, x)
    above = builder.fcmp_ordered(">", x, high)
    x = builder.select(above, high, x)

    def fused(a: Any, b: Any, c: Any) -> Any:
        return builder.fadd(builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))

    shifted = fused(x, constant(number, LOG2_E), constant(number, ROUND))
    n = builder.fsub(shifted, constant(number, ROUND))
    r = fused(n, constant(number, -LN2_HIGH), x)
    r = fused(n, constant(number, -LN2_LOW), r)
    polynomial = constant(number, COEFFICIENTS[0])
    for coefficient in COEFFICIENTS[1:]:
        polynomial = fused(polynomial, r, constant(number, coefficient))
    value = builder.fadd(fused(polynomial, builder.fmul(r, r), r), constant(number, 1.0))
    exponent = builder.shl(builder.bitcast(shifted, integers), constant(integers, 23))
    power = builder.bitcast(builder.add(builder.bitcast(value, integers), exponent), number)
    return builder.select(above, constant(number, math.inf), power)


@intrinsic
def sigmoid(typing_context: Any, vector: Any) -> Any:
    """1 / (1 + e^-z) of every element; in float32 by a polynomial, good to 2 units in the last."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        negative = builder.fneg(args[0])
        if vector.dtype == types.float32:
            power = _exponential(builder, negative)
        else:
            name = f"llvm.exp.v{vector.lanes}{SUFFIX[vector.dtype]}"
            power = call(builder, name, vector.llvm, [negative])
        one = constant(vector.llvm, 1.0)
        return builder.fdiv(one, builder.fadd(one, power))

    return vector(vector), generate
