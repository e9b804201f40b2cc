"""The kernels in forked and spawned processes, in several threads at once, without OpenMP or Numba.

Each runs in an interpreter of its own with a time limit: what is wrong here hangs or aborts.
"""

import os

import pytest

from tests.ops.elsewhere import run_python, training_bits

pytest.importorskip("numba")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

FORKS = """
import threading, time
import torch
from torch.utils.data import DataLoader
from tests.ops.elsewhere import Steps, forward_bits, in_child, training_bits
from whatwhere.ops.cpu import native

torch.set_num_threads(2)
expected = training_bits()
assert in_child(training_bits) == expected

# Another thread runs kernels meanwhile.
stop, alone = threading.Event(), forward_bits()
def busy():
    while not stop.is_set():
        assert forward_bits() == alone
thread = threading.Thread(target=busy)
thread.start()
children = [in_child(forward_bits) for _ in range(8)]
stop.set()
thread.join()
assert children == [alone] * 8

# Another thread compiles meanwhile; the child needs a kernel that the parent has not loaded.
started = threading.Event()
def compile():
    with native._lock:
        started.set()
        time.sleep(0.3)
thread = threading.Thread(target=compile)
thread.start()
started.wait()
wide = in_child(lambda: training_bits(torch.float64))
thread.join()
assert wide == training_bits(torch.float64)

loader = DataLoader(Steps(), batch_size=None, num_workers=2, multiprocessing_context="fork")
assert list(loader) == [expected] * 4
assert training_bits() == expected
print(expected)
"""


@needs_fork
def test_forked_processes():
    assert run_python(FORKS)[0].strip() == training_bits()


SPAWN = """
from torch.utils.data import DataLoader
from tests.ops.elsewhere import Steps, training_bits

expected = training_bits()
loader = DataLoader(Steps(), batch_size=None, num_workers=1, multiprocessing_context="spawn")
assert list(loader) == [expected] * 4
"""


def test_spawned_processes():
    run_python(SPAWN)


THREADS = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
import torch
from tests.ops.elsewhere import forward_bits, in_child, training_bits
from whatwhere.ops.cpu import threads

if sys.argv[1:] or %(without)r:
    threads.openmp = lambda: None
elif sys.platform == "linux":
    assert threads.openmp() is not None
square = torch.randn(400, 400)
def others(index):
    # Every third keeps torch's own threads busy.
    if index %% 3 == 0:
        for _ in range(10):
            square @ square
    return training_bits(samples=1 + index %% 2)
for count in (1, 2, 5):
    torch.set_num_threads(count)
    expected = [training_bits(samples=samples) for samples in (1, 2)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(others, range(24)))
    assert results == expected * 12, count
    print(*expected)
if %(without)r:
    assert any(thread.name.startswith("whatwhere") for thread in threading.enumerate())
    if hasattr(__import__("os"), "fork"):
        assert in_child(training_bits) == training_bits()
"""


@pytest.mark.parametrize("without", [False, True], ids=["OpenMP", "Python's threads"])
def test_many_threads_at_once(without):
    lines = run_python(THREADS % {"without": without})[0].split("\n")[:3]
    bits = f"{training_bits(samples=1)} {training_bits(samples=2)}"
    assert lines == [bits] * 3


ABSENT = """
import sys
for package in {packages}:
    sys.modules[package] = None
import torch, whatwhere
from tests.ops.elsewhere import arguments
from whatwhere import implementation, ops

x, weights = arguments()
print(ops.implementation_of("cbam", x))
x.requires_grad_()
y = ops.cbam(x, **weights)
with implementation("reference"):
    same = ops.cbam(x, **weights)
assert torch.equal(y, same)
assert torch.equal(*(torch.autograd.grad(out.sum(), x)[0] for out in (y, same)))
try:
    with implementation("cpu"):
        ops.cbam(x, **weights)
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize("packages", [("numba", "llvmlite"), ("llvmlite",)], ids=str)
def test_without_numba_plain_pytorch_serves(packages):
    words = f"{packages[0]} is not installed"
    lines = run_python(ABSENT.format(packages=packages))[0].splitlines()
    assert lines[0] == f"('reference', '{words}')"
    assert lines[1].endswith(words)


def test_a_numba_that_cannot_be_imported_is_as_none():
    broken = """
import sys
class Broken:
    def find_spec(self, name, path, target=None):
        if name == "llvmlite.binding":
            raise OSError("libLLVM is of another machine")
sys.meta_path.insert(0, Broken())
"""
    output, errors = run_python(broken + ABSENT.format(packages=()))
    lines = output.splitlines()
    assert lines[0].startswith("('reference', ")
    assert "libLLVM is of another machine" in lines[0]
    assert "libLLVM is of another machine" in lines[1]
    assert errors.count("plain PyTorch serves instead") == 1


WARM = """
import sys, time
from tests.ops.elsewhere import arguments
from whatwhere import ops

x, weights = arguments()
start = time.perf_counter()
assert ops.implementation_of("cbam", x)[0] == "cpu"
ops.cbam(x, **weights)
print(time.perf_counter() - start)
assert "numba" not in sys.modules
"""


def test_kept_kernels_need_no_numba():
    """Importing it would take longer than all the rest of the first call."""
    training_bits()  # kept from now on
    seconds, errors = run_python(WARM)
    assert float(seconds) > 0
    assert "compiles" not in errors
