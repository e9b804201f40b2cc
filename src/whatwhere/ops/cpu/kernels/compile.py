"""From a kernel in Python to object code."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from llvmlite import binding
from numba import types
from numba.core import config
from numba.core.compiler_lock import global_compiler_lock

from whatwhere.ops.cpu.kernels import backward, forward, primitives, primitives_backward
from whatwhere.ops.cpu.kernels.simd import function
from whatwhere.ops.cpu.kernels.vector import BFLOAT16, FLOAT16

ENTRIES = {
    "forward_planes": forward.forward_planes,
    "forward_pixels": forward.forward_pixels,
    "backward_planes": backward.backward_planes,
    "backward_pixels": backward.backward_pixels,
    "pool_positions_planes": primitives.pool_positions_planes,
    "pool_positions_pixels": primitives.pool_positions_pixels,
    "pool_channels_planes": primitives.pool_channels_planes,
    "pool_channels_pixels": primitives.pool_channels_pixels,
    "pool_rows_backward": primitives_backward.pool_rows_backward,
    "pool_columns_backward": primitives_backward.pool_columns_backward,
    "apply_gates": primitives.apply_gates,
    "apply_gates_backward": primitives_backward.apply_gates_backward,
}
STORAGE = {
    "float32": types.float32,
    "float64": types.float64,
    "bfloat16": BFLOAT16,
    "float16": FLOAT16,
}


def compile_kernel(name: str, storage: str) -> bytes:
    """Object code with the symbol ``whatwhere_NAME_STORAGE``: a C function of one address."""
    symbol = f"whatwhere_{name}_{storage}"
    pointer = types.CPointer(STORAGE[storage])
    with global_compiler_lock, _in_haste():
        compiled = function(ENTRIES[name])
        compiled.compile((pointer,))
        [result] = compiled.overloads.values()
        result.library.finalize()
    # Numba's own convention passes the places of a result and of an error before the arguments.
    wrapper = f"""
define void @{symbol}(ptr %arguments) {{
  %result = alloca ptr
  %error = alloca ptr
  %status = call i32 @{result.fndesc.mangled_name}(ptr %result, ptr %error, ptr %arguments)
  ret void
}}
"""
    module = binding.parse_assembly(result.library.get_llvm_str() + wrapper)
    for part in module.functions:
        if not part.is_declaration and part.name != symbol:
            part.linkage = binding.Linkage.internal
    return _machine_code(module)


@contextmanager
def _in_haste() -> Iterator[None]:
    # Numba optimises each function again in all that call it; once, at the end, is enough. What it
    # builds meanwhile stays, and looking through it for garbage takes a tenth of the time.
    level, collecting = config.OPT, gc.isenabled()
    config.OPT = type(level)(0)
    gc.disable()
    try:
        yield
    finally:
        config.OPT = level
        if collecting:
            gc.enable()


def _machine_code(module: binding.ModuleRef) -> bytes:
    machine = binding.Target.from_triple(module.triple).create_target_machine(
        cpu=binding.get_host_cpu_name(),
        features=binding.get_host_cpu_features().flatten(),
        opt=2,
        reloc="default",
        codemodel="jitdefault",
    )
    tuning = binding.create_pipeline_tuning_options(speed_level=2)
    # Loops say themselves what runs side by side.
    tuning.loop_vectorization = tuning.slp_vectorization = False
    builder = binding.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
    code: bytes = machine.emit_object(module)
    return code
