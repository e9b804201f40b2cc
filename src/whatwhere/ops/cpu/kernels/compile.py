"""From a kernel in Python to object code."""

from typing import Any

from llvmlite import binding
from numba import njit, types
from numba.core import config
from numba.core.compiler_lock import global_compiler_lock

from whatwhere.ops.cpu.kernels import backward, forward, primitives, primitives_backward
from whatwhere.ops.cpu.kernels.simd import BFLOAT16, FLOAT16, OPTIONS

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
    pointer = types.CPointer(STORAGE[storage])
    with global_compiler_lock:
        compiled: Any = njit(types.void(pointer), **OPTIONS)(ENTRIES[name])
    [result] = compiled.overloads.values()
    # Numba's own convention passes the places of a result and of an error before the arguments.
    inner = result.fndesc.mangled_name
    text = result.library.get_llvm_str() + f"""
define void @whatwhere_{name}_{storage}(ptr %arguments) {{
  %result = alloca ptr
  %error = alloca ptr
  %status = call i32 @{inner}(ptr %result, ptr %error, ptr %arguments)
  ret void
}}
"""
    module = binding.parse_assembly(text)
    features = binding.get_host_cpu_features().flatten()
    target = binding.Target.from_triple(module.triple)
    machine = target.create_target_machine(
        cpu=binding.get_host_cpu_name(), features=features, opt=3, reloc="default", codemodel="jitdefault"
    )
    code: bytes = machine.emit_object(module)
    return code
