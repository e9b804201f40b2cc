"""Compiles every kernel that an operation launches for an NVIDIA GPU that need not be here."""

import re
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

TOOL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
USAGE = re.compile(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


@dataclass(frozen=True)
class Usage:
    """What a thread and a block of a compiled kernel take; local memory is what was spilt."""

    registers: int
    stack: int
    shared: int
    local: int


@contextmanager
def pretended(capability, name):
    """In the block there is a device of that capability, as far as Triton asks.

    Triton keeps what it compiled by the name.
    """
    target = GPUTarget("cuda", capability, 32)
    active = driver._active
    driver.set_active(
        SimpleNamespace(
            get_current_target=lambda: target,
            get_current_device=lambda: name,
            get_current_stream=lambda _device: 0,
        )
    )
    try:
        yield
    finally:
        driver._active = active


@contextmanager
def kinds():
    """What launches in the block would compile, and don't: kernels by name and key."""
    found = set()

    def note(*, key, fn, **_others):
        found.add((fn.name, key))
        return True  # which ends the compilation, and the launch

    before, triton.knobs.runtime.jit_cache_hook = triton.knobs.runtime.jit_cache_hook, note
    try:
        with pretended(90, object()):
            yield found
    finally:
        triton.knobs.runtime.jit_cache_hook = before


@contextmanager
def compiled_for(capability):
    """In the block launches compile for that capability, run nothing, and are listed."""
    launched, run = [], JITFunction.run

    def compile_only(self, *arguments, grid, warmup, **options):
        launched.append(run(self, *arguments, grid=grid, warmup=True, **options))

    JITFunction.run = compile_only
    try:
        with pretended(capability, f"pretended {capability}"):
            yield launched
    finally:
        JITFunction.run = run


def usage(kernel, folder):
    """What the assembler says of a compiled kernel."""
    file = folder / "kernel.cubin"
    file.write_bytes(kernel.asm["cubin"])
    done = subprocess.run(
        [TOOL, "-res-usage", file], capture_output=True, text=True, check=True, timeout=60
    )
    [(_, *numbers)] = USAGE.findall(done.stdout + done.stderr)
    return Usage(*map(int, numbers))
