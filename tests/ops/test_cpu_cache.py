"""Kernels on disk, and kernels that can't be made. What compiles is a double: it takes no time."""

import logging
import os

import pytest
import torch

from tests.ops import examples
from tests.ops.elsewhere import arguments, run_python
from tests.ops.kernels import assert_right, cpu
from whatwhere import implementation, ops

pytest.importorskip("numba")
from whatwhere.ops.cpu import native
from whatwhere.ops.cpu.kernels import compile as compiler

NAME, STORAGE = "forward_planes", "float32"
CODE = b"object code" * 100
SHAPE = (2, 9, 6, 5)


class Compiler:
    """Counts its calls; raises ``error`` if it has one."""

    def __init__(self):
        self.calls = []
        self.error = None

    def __call__(self, name, storage):
        self.calls.append(name)
        if self.error is not None:
            raise self.error
        return CODE


@pytest.fixture
def double(monkeypatch, tmp_path):
    compiling = Compiler()
    monkeypatch.setattr(compiler, "compile_kernel", compiling)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    return compiling


def notices(caplog):
    return [r for r in caplog.records if "compiles" in r.getMessage()]


def test_compiled_once_and_said_once(double, caplog):
    for _ in range(3):
        assert native._object_code(NAME, STORAGE) == CODE
    assert double.calls == [NAME]
    assert [r.levelno for r in notices(caplog)] == [logging.WARNING]
    [kept] = native.cache_folder().iterdir()
    assert kept.name.startswith(f"{NAME}-{STORAGE}-")


DAMAGES = {
    "truncated": lambda content: content[: len(content) // 2],
    "of a few bytes": lambda content: content[:5],
    "empty": lambda content: content[:0],
    "changed": lambda content: content[:-1] + b"!",
    "of zeros": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_compiled_anew(damage, double):
    native._object_code(NAME, STORAGE)
    [kept] = native.cache_folder().iterdir()
    kept.write_bytes(DAMAGES[damage](kept.read_bytes()))
    for _ in range(2):
        assert native._object_code(NAME, STORAGE) == CODE
    assert double.calls == [NAME] * 2


def test_a_folder_that_cannot_be_made_is_done_without(double, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    for _ in range(2):
        assert native._object_code(NAME, STORAGE) == CODE
    assert double.calls == [NAME] * 2


def test_where_kernels_are_kept(monkeypatch, tmp_path):
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HOME", str(tmp_path))
    at_home = tmp_path / ".cache" / "whatwhere"
    assert native.cache_folder() == at_home
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert native.cache_folder() == at_home
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert native.cache_folder() == tmp_path / "x" / "whatwhere"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "n"))
    assert native.cache_folder() == tmp_path / "n" / "whatwhere"


def test_without_a_home(monkeypatch):
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(native.Path, "home", no_home)
    assert native.cache_folder().is_absolute()
    assert not native.cache_folder().exists()


AT_ONCE = """
import os, time
from whatwhere.ops.cpu import native
from whatwhere.ops.cpu.kernels import compile as compiler

def slow(name, storage):
    time.sleep(0.3)
    return b"object code" * 100000

compiler.compile_kernel = slow
native._fingerprint()
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        code = native._object_code("forward_planes", "float32")
        os._exit(0 if code == slow(None, None) else 1)
    children.append(child)
assert native._object_code("forward_planes", "float32") == slow(None, None)
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
print(*(path.suffix for path in native.cache_folder().iterdir()))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_several_processes_compile_at_once(tmp_path):
    assert run_python(AT_ONCE, NUMBA_CACHE_DIR=str(tmp_path))[0].split() == [".o"]


@pytest.fixture(scope="module")
def forward_kernels():
    names = {(name, torch.float32) for name in cpu.KERNELS.values()}
    return {name: native.kernel(*name) for name in names}


@pytest.fixture
def broken(forward_kernels, double, monkeypatch):
    """Nothing can be compiled, and of kernels only those of the forward pass are there."""
    double.error = OSError("no linker")
    monkeypatch.setattr(native, "_kernels", dict(forward_kernels))
    monkeypatch.setattr(native, "_failures", {})
    monkeypatch.setattr(cpu, "_reasons", {})
    return double


def gradients(layout, relu):
    x, weights = arguments()
    x = x.contiguous(memory_format=layout)
    given = [t.requires_grad_() for t in (x, *weights.values())]
    y = ops.cbam(x, **weights, residual=x, activation="relu" if relu else None)
    return [y, *torch.autograd.grad(y, given, x.detach())]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("relu", [False, True])
def test_training_goes_on_where_the_gradients_kernel_cannot_be_made(relu, layout, broken, caplog):
    x = arguments()[0].contiguous(memory_format=layout)
    assert ops.implementation_of("cbam", x)[0] == "cpu"
    first, second = gradients(layout, relu), gradients(layout, relu)
    name = "planes" if layout is torch.contiguous_format else "pixels"
    assert broken.calls == [f"backward_{name}"]
    assert caplog.text.count("no linker; plain PyTorch serves instead") == 1
    with implementation("reference"):
        expected = gradients(layout, relu)
    for tensors in (first, second):
        for tensor, wanted in zip(tensors, expected, strict=True):
            torch.testing.assert_close(tensor, wanted, rtol=1e-4, atol=1e-4)
            assert tensor.stride() == wanted.stride()


PRIMITIVES = {
    "pool_positions": lambda **o: examples.pool_positions(SHAPE, statistics=["max", "std"], **o),
    "pool_channels": lambda **o: examples.pool_channels(SHAPE, statistics=["max", "std"], **o),
    "apply_gates": lambda **o: examples.apply_gates(SHAPE, relu=True, **o),
}


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("op", PRIMITIVES)
def test_gradients_of_primitives_too(op, layout, broken, caplog):
    assert_right(PRIMITIVES[op](layout=layout))
    assert len(broken.calls) == 1
    assert caplog.text.count("no linker; plain PyTorch serves instead") == 1


def test_where_no_kernel_can_be_made_plain_pytorch_serves(broken, caplog):
    native._kernels.clear()
    x, weights = arguments()
    name, reason = ops.implementation_of("cbam", x)
    assert name == "reference"
    assert "forward_planes for torch.float32 could not be made: OSError: no linker" in reason
    y = ops.cbam(x, **weights)
    with implementation("reference"):
        assert torch.equal(y, ops.cbam(x, **weights))
    with implementation("cpu"), pytest.raises(ValueError, match="no linker"):
        ops.cbam(x, **weights)
    assert broken.calls == ["forward_planes"]
    assert caplog.text.count("plain PyTorch serves instead") == 1
