"""Vectors for Numba: loops say themselves what runs side by side.

LLVM's own vectoriser gives up on loops with many arrays (it cannot rule out that they overlap) and
on maxima. Here a ``Vector`` is a value of the language: ``load`` reads as many elements as one
holds, arithmetic works on all of them, ``store`` writes them back.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core.compiler import Compiler
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin

from whatwhere.ops.cpu.kernels.vector import (
    BYTES,
    ELEMENT,
    FLAGS,
    I32,
    I64,
    SUFFIX,
    Vector,
    call,
    narrow,
    repeat,
    vector_of,
    widen,
)


class Translation(Compiler):
    """Numba's compiler up to LLVM's language; machine code is made once, of the whole kernel."""

    def define_pipelines(self) -> Any:
        """Numba's own passes."""
        self.state.flags.no_compile = True
        return super().define_pipelines()


OPTIONS = {
    "pipeline_class": Translation,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "nogil": True,
    "error_model": "numpy",
}


def _jit(**options: Any) -> Callable[[Any], Any]:
    def decorate(python: Any) -> Any:
        compiled = njit(**OPTIONS, **options)(python)
        template = compiled.get_call_template

        # A constant argument is no reason to compile a function once more.
        def get_call_template(args: Any, kws: Any) -> Any:
            return template([types.unliteral(kind) for kind in args], kws)

        # There is no machine code to call: what calls finds the function by a name of its own.
        def add_overload(result: Any) -> None:
            name = object()
            context = result.target_context
            context.insert_user_function(name, result.fndesc, [result.library])
            compiled.overloads[tuple(result.signature.args)] = result._replace(entry_point=name)

        compiled.get_call_template = get_call_template
        compiled.add_overload = add_overload
        return compiled

    return decorate


function = _jit()
# The body of a loop over vectors, once for whole vectors and once for what is left.
body = _jit(forceinline=True)


def _place(builder: Any, pointer: Any, index: Any, storage: Any, vector: Vector) -> Any:
    memory = ir.VectorType(ELEMENT[storage], vector.lanes)
    return memory, builder.bitcast(builder.gep(pointer, [index]), memory.as_pointer())


def _first(builder: Any, count: Any, vector: Vector) -> Any:
    integers = ir.VectorType(I32, vector.lanes)
    limit = repeat(builder, builder.trunc(count, I32), integers)
    return builder.icmp_signed("<", ir.Constant(integers, list(range(vector.lanes))), limit)


@intrinsic
def lanes(typing_context: Any, pointer: Any) -> Any:
    """How many elements one vector of this pointer's numbers holds."""
    count = vector_of(pointer).lanes

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return I64(count)

    return types.int64(pointer), generate


@intrinsic
def load(typing_context: Any, pointer: Any, index: Any, count: Any) -> Any:
    """The elements from ``index`` on; 0 for those beyond the first ``count``.

    With ``count`` known to be ``lanes(pointer)``, as in the body of a loop over whole vectors,
    nothing of the case remains in the compiled code.
    """
    storage, vector = pointer.dtype, vector_of(pointer)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        base, index, count = args
        memory, place = _place(builder, base, index, storage, vector)
        whole = builder.icmp_signed(">=", count, I64(vector.lanes))
        with builder.if_else(whole, likely=True) as (then, otherwise):
            with then:
                complete = builder.load(place, align=BYTES[storage])
                after_complete = builder.block
            with otherwise:
                name = f"llvm.masked.load.v{vector.lanes}{SUFFIX[storage]}.p0"
                mask = _first(builder, count, vector)
                arguments = [place, I32(BYTES[storage]), mask, ir.Constant(memory, None)]
                partial = call(builder, name, memory, arguments)
                after_partial = builder.block
        raw = builder.phi(memory)
        raw.add_incoming(complete, after_complete)
        raw.add_incoming(partial, after_partial)
        return widen(builder, raw, storage, vector)

    return vector(pointer, types.int64, types.int64), generate


@intrinsic
def store(typing_context: Any, pointer: Any, index: Any, value: Any, count: Any) -> Any:
    """Write the first ``count`` elements of a vector from ``index`` on, at most all of them."""
    storage, vector = pointer.dtype, vector_of(pointer)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        base, index, value, count = args
        _, place = _place(builder, base, index, storage, vector)
        raw = narrow(builder, value, storage, vector)
        whole = builder.icmp_signed(">=", count, I64(vector.lanes))
        with builder.if_else(whole, likely=True) as (then, otherwise):
            with then:
                builder.store(raw, place, align=BYTES[storage])
            with otherwise:
                name = f"llvm.masked.store.v{vector.lanes}{SUFFIX[storage]}.p0"
                mask = _first(builder, count, vector)
                call(builder, name, ir.VoidType(), [raw, place, I32(BYTES[storage]), mask])
        return context.get_dummy_value()

    return types.void(pointer, types.int64, vector, types.int64), generate


@intrinsic
def store_past(typing_context: Any, pointer: Any, index: Any, value: Any) -> Any:
    """Write a whole vector past the caches, to an address that is a multiple of its size."""
    storage, vector = pointer.dtype, vector_of(pointer)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        base, index, value = args
        _, place = _place(builder, base, index, storage, vector)
        raw = narrow(builder, value, storage, vector)
        written = builder.store(raw, place, align=BYTES[storage] * vector.lanes)
        hint = builder.module.add_metadata([I32(1)])
        written.set_metadata("nontemporal", hint)
        return context.get_dummy_value()

    return types.void(pointer, types.int64, vector), generate


@body
def put_vector(pointer, index, value, count, past):
    """``store``, past the caches if told so; then the vector is a whole one."""
    if past:
        store_past(pointer, index, value)
    else:
        store(pointer, index, value, count)


@intrinsic
def keep_first(typing_context: Any, value: Any, count: Any, filling: Any) -> Any:
    """The first ``count`` elements of a vector, and those of ``filling`` after them."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value_, count_, filling_ = args
        return builder.select(_first(builder, count_, value), value_, filling_)

    return value(value, types.int64, value), generate


@intrinsic
def filled(typing_context: Any, pointer: Any, value: Any) -> Any:
    """A vector of this pointer's numbers that holds one number everywhere."""
    vector = vector_of(pointer)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        number = context.cast(builder, args[1], value, vector.dtype)
        return repeat(builder, number, vector.llvm)

    return vector(pointer, value), generate


@intrinsic
def steps(typing_context: Any, pointer: Any) -> Any:
    """The vector 0, 1, 2, ..."""
    vector = vector_of(pointer)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(vector.llvm, [float(step) for step in range(vector.lanes)])

    return vector(pointer), generate


def _arithmetic(operation: Any, instruction: str) -> None:
    @infer_global(operation)
    class _Template(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
                return signature(args[0], *args)
            return None

    @lower_builtin(operation, Vector, Vector)
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args, flags=FLAGS)


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")


def _choice(comparison: str) -> Any:
    @intrinsic
    def choose(typing_context: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            a, b, yes, no = args
            return builder.select(builder.fcmp_ordered(comparison, a, b), yes, no)

        return yes(a, b, yes, no), generate

    return choose


# where_...(a, b, yes, no): by element, yes where the comparison holds; never with NaN.
where_equal = _choice("==")
where_less = _choice("<")
where_greater = _choice(">")
where_at_most = _choice("<=")


@intrinsic
def total(typing_context: Any, vector: Any) -> Any:
    """The sum of the elements."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        element = ELEMENT[vector.dtype]
        name = f"llvm.vector.reduce.fadd.v{vector.lanes}{SUFFIX[vector.dtype]}"
        return call(builder, name, element, [element(-0.0), args[0]], ("reassoc",))

    return vector.dtype(vector), generate


def _reduction(operation: str) -> Any:
    @intrinsic
    def reduce(typing_context: Any, vector: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            name = f"llvm.vector.reduce.{operation}.v{vector.lanes}{SUFFIX[vector.dtype]}"
            return call(builder, name, ELEMENT[vector.dtype], [args[0]], ("nnan", "nsz"))

        return vector.dtype(vector), generate

    return reduce


# Of vectors that hold no NaN.
largest = _reduction("fmax")
smallest = _reduction("fmin")
