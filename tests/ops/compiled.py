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
def compiled_for(capability):
    """In the block launches compile for that capability, run nothing, and are listed."""
    target = GPUTarget("cuda", capability, 32)
    pretended = SimpleNamespace(
        get_current_target=lambda: target,
        get_current_device=lambda: f"pretended {capability}",
        get_current_stream=lambda _device: 0,
    )
    launched, run, active = [], JITFunction.run, driver._active

    def compile_only(self, *arguments, grid, warmup, **options):
        launched.append(run(self, *arguments, grid=grid, warmup=True, **options))

    JITFunction.run = compile_only
    driver.set_active(pretended)
    try:
        yield launched
    finally:
        JITFunction.run = run
        driver._active = active


def usage(kernel, folder):
    """What the assembler says of a compiled kernel."""
    file = folder / "kernel.cubin"
    file.write_bytes(kernel.asm["cubin"])
    done = subprocess.run(
        [TOOL, "-res-usage", file], capture_output=True, text=True, check=True, timeout=60
    )
    [(_, *numbers)] = USAGE.findall(done.stdout + done.stderr)
    return Usage(*map(int, numbers))
