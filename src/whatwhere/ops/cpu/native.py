"""Machine code of the kernels: compiled once, kept on disk, loaded without Numba.

Importing Numba takes longer than loading all kernels, so what is kept is object code, which
llvmlite links into the process. A file's name tells what its code depends on: the kernels' sources,
the versions that compiled them and the processor. Without a folder that can be written, each
process compiles for itself.
"""

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from whatwhere import files

logger = logging.getLogger("whatwhere")

SUPPORTED = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
Kernel = Callable[[int], None]

_lock = threading.RLock()
_kernels: dict[tuple[str, torch.dtype], tuple[int, Kernel]] = {}
_failures: dict[tuple[str, torch.dtype], str] = {}

if hasattr(os, "register_at_fork"):
    # A child born while another thread compiles would wait for that thread, which it has not.
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )


class KernelError(RuntimeError):
    """A kernel could not be compiled or loaded."""


@cache
def trouble() -> str | None:
    """Why there are no kernels on this machine, or None."""
    for package in ("numba", "llvmlite"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    if sys.byteorder != "little":
        return "the processor stores the high byte first"
    return None


def kernel(name: str, dtype: torch.dtype) -> tuple[int, Kernel]:
    """Address of a kernel for x of a dtype, and the same as a function of the arguments' address.

    Raises:
        KernelError: it could not be compiled or loaded.
    """
    found = _kernels.get((name, dtype))
    if found is None:
        with _lock:
            if (name, dtype) in _failures:
                raise KernelError(_failures[name, dtype])
            found = _kernels.get((name, dtype))
            if found is None:
                found = _kernels[name, dtype] = _make(name, dtype)
    return found


def _make(name: str, dtype: torch.dtype) -> tuple[int, Kernel]:
    try:
        storage = SUPPORTED[dtype]
        address = _load(f"whatwhere_{name}_{storage}", _object_code(name, storage))
    except Exception as error:
        # Once: another attempt would take as long and fail the same way.
        message = _failures[name, dtype] = (
            f"the kernel {name} for {dtype} could not be made: {type(error).__name__}: {error}"
        )
        logger.warning("%s; plain PyTorch serves instead", message)
        raise KernelError(message) from error
    return address, ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)


def _object_code(name: str, storage: str) -> bytes:
    folder = cache_folder()
    path = folder / f"{name}-{storage}-{_fingerprint()}.o"
    code = _read(path)
    if code is None:
        logger.warning(
            "whatwhere compiles %s for %s, once on this machine (kept in %s)", name, storage, folder
        )
        from whatwhere.ops.cpu.kernels.compile import compile_kernel

        start = time.perf_counter()
        code = compile_kernel(name, storage)
        logger.info("%s for %s: %.1f s", name, storage, time.perf_counter() - start)
        _write(path, code)
    return code


def cache_folder() -> Path:
    """Where object code is kept: the user's cache folder, or the one that Numba is told to use."""
    numba_folder = os.environ.get("NUMBA_CACHE_DIR", "")
    if numba_folder != "":
        return Path(numba_folder) / "whatwhere"
    return files.cache_folder()


@cache
def _fingerprint() -> str:
    from llvmlite import binding

    digest = hashlib.sha256()
    for source in sorted((Path(__file__).parent / "kernels").glob("*.py")):
        digest.update(source.read_bytes())
    digest.update((Path(__file__).parent / "layout.py").read_bytes())
    for package in ("numba", "llvmlite"):
        digest.update(importlib.metadata.version(package).encode())
    digest.update(sys.version.encode())
    digest.update(binding.get_host_cpu_name().encode())
    digest.update(binding.get_host_cpu_features().flatten().encode())
    return digest.hexdigest()[:24]


def _read(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    checksum, code = content[:32], content[32:]
    return code if hashlib.sha256(code).digest() == checksum else None


def _write(path: Path, code: bytes) -> None:
    # Under another name first: a reader, or a reader after a crash, never sees half a file.
    part = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part.write_bytes(hashlib.sha256(code).digest() + code)
        part.replace(path)
    except OSError as error:
        logger.info("compiled kernels are not kept: %s", error)


@cache
def _engine() -> Any:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine()
    return binding.create_mcjit_compiler(binding.parse_assembly(""), machine)


def _load(symbol: str, code: bytes) -> int:
    from llvmlite import binding

    engine = _engine()
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address: int = engine.get_function_address(symbol)
    if address == 0:
        raise KernelError(f"its object code has no {symbol}")
    return address
