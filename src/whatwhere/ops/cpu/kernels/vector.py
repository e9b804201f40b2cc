"""A vector as a value of Numba's language, and how memory holds its elements.

A pointer's element type says how memory holds the numbers: float32, float64, uint16 for the bits
of bfloat16, int16 for the bits of float16. Vectors hold float32 or float64.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import models, register_model

I16, I32, I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
FLOAT, DOUBLE, HALF = ir.FloatType(), ir.DoubleType(), ir.HalfType()
BFLOAT16, FLOAT16 = types.uint16, types.int16

ACCUMULATOR = {
    types.float32: types.float32,
    types.float64: types.float64,
    BFLOAT16: types.float32,
    FLOAT16: types.float32,
}
LANES = {types.float32: 16, types.float64: 8}
ELEMENT = {types.float32: FLOAT, types.float64: DOUBLE, BFLOAT16: I16, FLOAT16: I16}
BYTES = {types.float32: 4, types.float64: 8, BFLOAT16: 2, FLOAT16: 2}
SUFFIX = {types.float32: "f32", types.float64: "f64", BFLOAT16: "i16", FLOAT16: "i16"}
# Sums may be reordered and a product and a sum may fuse; NaN and infinities keep their meaning.
FLAGS = ("contract", "reassoc", "nsz")


class Vector(types.Type):
    """The type of a vector: element type and number of elements."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        self.lanes = LANES[dtype]
        super().__init__(name=f"Vector({dtype})")

    @property
    def llvm(self) -> ir.VectorType:
        """The same as LLVM knows it."""
        return ir.VectorType(ELEMENT[self.dtype], self.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.llvm)


def vector_of(pointer: Any) -> Vector:
    """The vector that a pointer's numbers are read into."""
    return Vector(ACCUMULATOR[pointer.dtype])


def repeat(builder: Any, value: Any, vector: ir.VectorType) -> Any:
    """One number in every element."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, I32(0))
    zeros = ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, undefined, zeros)


def constant(vector: ir.VectorType, value: Any) -> ir.Constant:
    """A constant of one number in every element."""
    return ir.Constant(vector, [value] * vector.count)


def call(builder: Any, name: str, result: Any, arguments: list[Any], flags: Any = ()) -> Any:
    """Call a function by name, as LLVM's own are."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    target = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(target, arguments, fastmath=flags)


def widen(builder: Any, raw: Any, storage: Any, vector: Vector) -> Any:
    """From how memory holds numbers to how vectors do."""
    if storage == BFLOAT16:
        integers = ir.VectorType(I32, vector.lanes)
        bits = builder.shl(builder.zext(raw, integers), constant(integers, 16))
        return builder.bitcast(bits, vector.llvm)
    if storage == FLOAT16:
        halves = builder.bitcast(raw, ir.VectorType(HALF, vector.lanes))
        return builder.fpext(halves, vector.llvm)
    return raw


def narrow(builder: Any, value: Any, storage: Any, vector: Vector) -> Any:
    """From how vectors hold numbers to how memory does, rounded to nearest."""
    shorts = ir.VectorType(I16, vector.lanes)
    if storage == BFLOAT16:
        # Round to nearest, ties to even; NaN by itself, since rounding could carry it to infinity.
        integers = ir.VectorType(I32, vector.lanes)
        bits = builder.bitcast(value, integers)
        last = builder.and_(builder.lshr(bits, constant(integers, 16)), constant(integers, 1))
        rounded = builder.add(bits, builder.add(last, constant(integers, 0x7FFF)))
        rounded = builder.lshr(rounded, constant(integers, 16))
        nan = builder.fcmp_unordered("uno", value, value)
        return builder.trunc(builder.select(nan, constant(integers, 0x7FC0), rounded), shorts)
    if storage == FLOAT16:
        halves = builder.fptrunc(value, ir.VectorType(HALF, vector.lanes))
        return builder.bitcast(halves, shorts)
    return value
