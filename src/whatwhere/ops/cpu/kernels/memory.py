"""Addresses and scalars: how kernels find their arguments, and share out their work."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from whatwhere.ops.cpu.kernels.vector import (
    ACCUMULATOR,
    BFLOAT16,
    FLOAT16,
    I32,
    I64,
    narrow,
    repeat,
    vector_of,
    widen,
)

INTEGERS = types.CPointer(types.int64)


@intrinsic
def integers(typing_context: Any, arguments: Any) -> Any:
    """The arguments of a kernel: an array of 64-bit integers, addresses among them.

    The element type of the pointer that a kernel receives is only a sign of how x is stored.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(INTEGERS))

    return INTEGERS(arguments), generate


@intrinsic
def stored(typing_context: Any, arguments: Any, address: Any) -> Any:
    """A pointer to numbers stored as x is."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[1], context.get_value_type(arguments))

    return arguments(arguments, types.int64), generate


@intrinsic
def wide(typing_context: Any, arguments: Any, address: Any) -> Any:
    """A pointer to numbers stored as vectors hold them: float32, or float64 if x is."""
    pointer = types.CPointer(ACCUMULATOR[arguments.dtype])

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[1], context.get_value_type(pointer))

    return pointer(arguments, types.int64), generate


@intrinsic
def at(typing_context: Any, pointer: Any, index: Any) -> Any:
    """The pointer ``index`` elements further."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.gep(args[0], [args[1]])

    return pointer(pointer, types.int64), generate


@intrinsic
def prefetch(typing_context: Any, pointer: Any, index: Any) -> Any:
    """Ask for the memory at ``index``, which may lie outside of what is allocated."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = builder.bitcast(builder.gep(args[0], [args[1]]), ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [place.type, I32, I32, I32])
        target = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(target, [place, I32(0), I32(3), I32(1)])
        return context.get_dummy_value()

    return types.void(pointer, types.int64), generate


@intrinsic
def fence(typing_context: Any, pointer: Any) -> Any:
    """Everything written before, past the caches too, is seen before what is written after."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(pointer), generate


@intrinsic
def take(typing_context: Any, counter: Any) -> Any:
    """The counter's value; the next thread to ask gets one more."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", args[0], I64(1), "monotonic")

    return types.int64(counter), generate


@intrinsic
def get(typing_context: Any, pointer: Any, index: Any) -> Any:
    """One element, widened."""
    storage, vector = pointer.dtype, vector_of(pointer)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        raw = builder.load(builder.gep(args[0], [args[1]]))
        if storage in (BFLOAT16, FLOAT16):
            raw = repeat(builder, raw, ir.VectorType(raw.type, vector.lanes))
            wide = widen(builder, raw, storage, vector)
            return builder.extract_element(wide, I32(0))
        return raw

    return vector.dtype(pointer, types.int64), generate


@intrinsic
def put(typing_context: Any, pointer: Any, index: Any, value: Any) -> Any:
    """Write one number, rounded to how the pointer's numbers are stored."""
    storage, vector = pointer.dtype, vector_of(pointer)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        number = context.cast(builder, args[2], value, vector.dtype)
        if storage in (BFLOAT16, FLOAT16):
            many = repeat(builder, number, vector.llvm)
            bits = narrow(builder, many, storage, vector)
            number = builder.extract_element(bits, I32(0))
        builder.store(number, builder.gep(args[0], [args[1]]))
        return context.get_dummy_value()

    return types.void(pointer, types.int64, value), generate


@intrinsic
def scalar(typing_context: Any, pointer: Any, value: Any) -> Any:
    """A number as vectors hold it."""
    vector = vector_of(pointer)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.cast(builder, args[1], value, vector.dtype)

    return vector.dtype(pointer, value), generate
