"""Which implementation runs, why, and how one is forced."""

import asyncio
import subprocess
import sys
import threading

import pytest
import torch

from tests.ops.calls import prepared
from whatwhere import implementation, ops
from whatwhere.ops import implementations

X = torch.zeros(1, 4, 3, 3)


def test_kernels_run_where_they_can(kernels):
    call, tensors = prepared("cbam-plain", (2, 4, 3, 4))
    assert ops.implementation_of("cbam", tensors[0]) == ("cpu", "the kernels serve it")
    call(*tensors)
    assert kernels.calls == {"cbam": 1}


def test_the_reference_can_be_forced_and_ends_with_the_block(kernels):
    call, tensors = prepared("cbam-plain", (2, 4, 3, 4))

    def fails():
        with implementation("reference"):
            assert ops.implementation_of("cbam", X)[0] == "reference"
            call(*tensors)
            assert not kernels.calls
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    call(*tensors)
    assert kernels.calls["cbam"] == 1


def test_what_kernels_cannot_serve_falls_back_and_is_refused_if_forced(kernels):
    kernels.reason = "no such dtype"
    call, tensors = prepared("cbam-plain", (2, 4, 3, 4))
    call(*tensors)
    assert not kernels.calls
    assert ops.implementation_of("cbam", X) == ("reference", "no such dtype")
    with (
        implementation("cpu"),
        pytest.raises(ValueError, match=r'cbam: implementation\("cpu"\) cannot .* no such dtype'),
    ):
        call(*tensors)


class Subclass(torch.Tensor):
    pass


REASONS = [
    (lambda: X.to("meta"), "device meta"),
    (X.to_sparse, "layout torch.sparse_coo"),
    (lambda: X.as_subclass(Subclass), "a tensor is a Subclass, not a plain one"),
]


@pytest.mark.parametrize(("make", "reason"), REASONS, ids=[reason for _, reason in REASONS])
def test_other_tensors_take_the_reference(make, reason, kernels):
    name, words = ops.implementation_of("cbam", make())
    assert name == "reference"
    assert reason in words


def test_subclasses_and_meta_tensors_keep_their_kind(kernels):
    gate = torch.ones(1, 4, 1, 1)
    y = ops.apply_gates(X.as_subclass(Subclass), channel_gate=gate)
    assert type(y) is Subclass
    assert ops.apply_gates(X.to("meta"), channel_gate=gate.to("meta")).is_meta
    assert type(ops.apply_gates(X, channel_gate=gate.as_subclass(Subclass))) is Subclass
    assert not kernels.calls


def test_without_kernels_the_reference_runs(monkeypatch):
    monkeypatch.setattr(implementations, "kernels", lambda: (None, "numba is not installed"))
    assert ops.implementation_of("cbam", X) == ("reference", "numba is not installed")
    call, tensors = prepared("cbam-plain", (2, 4, 3, 4))
    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*tensors), call(*tensors))
    torch.testing.assert_close(
        torch.ops.whatwhere.pool_positions(X, ["mean"]), torch.zeros(1, 1, 4)
    )


def test_forcing_is_of_one_thread_and_one_task(kernels):
    seen = {}

    def look(name):
        seen[name] = ops.implementation_of("cbam", X)[0]

    async def task(name, forced):
        with implementation(forced):
            await asyncio.sleep(0)
            look(name)

    async def both():
        await asyncio.gather(task("a", "reference"), task("b", "cpu"))

    with implementation("reference"):
        thread = threading.Thread(target=look, args=["thread"])
        thread.start()
        thread.join()
        asyncio.run(both())
        look("after")
    assert seen == {"thread": "cpu", "a": "reference", "b": "cpu", "after": "reference"}


def test_unknown_names_are_refused():
    with (
        pytest.raises(ValueError, match=r"'reference', 'cpu', 'cuda', got 'tpu'"),
        implementation("tpu"),
    ):
        pass
    with pytest.raises(ValueError, match=r"'apply_gates', 'cbam', got 'relu'"):
        ops.implementation_of("relu", X)


def test_importing_does_not_import_a_compiler():
    code = (
        "import sys, whatwhere; print([m for m in ('numba', 'torch._dynamo') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"
