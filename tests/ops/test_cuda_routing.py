"""Which tensors on an NVIDIA GPU reach the kernels: told by tensors without values, GPU or none."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from whatwhere import implementation, ops
from whatwhere.ops import implementations, routing

pytest.importorskip("triton")

from whatwhere.ops import cuda

KERNELS = ("cuda", "the kernels serve it")


@pytest.fixture
def device(monkeypatch):
    """As if there were a GPU that runs Triton."""
    monkeypatch.setattr(cuda, "trouble", lambda _device: None)
    with FakeTensorMode():
        yield torch.device("cuda")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(2, 8, 5), (2, 8, 5, 5), (2, 8, 3, 5, 5)], ids=str)
@pytest.mark.parametrize("op", implementations.OPERATIONS)
def test_served(device, op, shape, dtype):
    x = torch.empty(shape, dtype=dtype, device=device)
    with implementation("cuda"):
        assert ops.implementation_of(op, x) == KERNELS
        pooled = ops.pool_positions(x, statistics=["max"])[0]
    assert pooled.shape == (2, 8, *(1,) * (len(shape) - 2))
    assert (pooled.device.type, pooled.dtype) == ("cuda", torch.float32)


def test_kernels_that_no_gpu_has_run_are_for_those_who_ask(device):
    x = torch.empty(2, 8, 5, device=device)
    name, reason = ops.implementation_of("cbam", x)
    assert name == "reference"
    assert 'implementation("cuda") asks for them' in reason
    assert routing.route("apply_gates", x, ()) is None
    with implementation("cuda"):
        assert routing.route("apply_gates", x, ()) is not None


@pytest.mark.parametrize(
    ("shape", "dtype", "statistics", "reason"),
    [
        ((2, 8, 5), torch.float64, ["mean"], "dtype torch.float64"),
        ((2**24, 8, 5), torch.float32, ["mean"], "16777216 samples or more"),
        ((1, 2**16, 2**15), torch.float32, ["mean"], "2147483648 elements or more"),
    ],
)
def test_not_served(device, shape, dtype, statistics, reason):
    x = torch.empty(shape, dtype=dtype, device=device)
    name, words = ops.implementation_of("pool_positions", x, statistics=statistics)
    assert name == "reference"
    assert reason in words
    with implementation("cuda"), pytest.raises(ValueError, match="cannot serve"):
        ops.pool_positions(x, statistics=statistics)


@pytest.mark.parametrize("statistics", [["mean", "std"], ["l2"]], ids=str)
def test_std_and_l2_are_pooled_but_not_in_one_call(device, statistics):
    x = torch.empty(2, 8, 5, device=device)
    for op in ("pool_positions", "pool_channels"):
        with implementation("cuda"):
            assert ops.implementation_of(op, x, statistics=statistics) == KERNELS
    name, words = ops.implementation_of("cbam", x, statistics=statistics)
    assert name == "reference"
    assert f"kernels have no {statistics[-1:]} in this operation" in words


def test_what_is_compiled_goes_where_it_would_run(device):
    x = torch.empty(2, 8, 5, device=device)
    for statistics in (["mean"], ["max", "mean"], ["std"], ["mean", "l2"]):
        for one in (x, x.bfloat16(), x.double()):
            compiled = implementations.without_kernels_compiled(one)
            direct = implementations.without_kernels("pool_positions", one, statistics)
            assert (compiled is None) == (direct is None)


def test_tensors_of_two_devices_never_reach_kernels(device):
    x = torch.empty(2, 8, 5, device=device)
    for other in (torch.empty(2, 8, 1), torch.empty(2, 8, 1, device="cuda:1")):
        assert routing.route("apply_gates", x, (), other) is None
        assert "not all on the device" in routing._why_reference("apply_gates", x, (), (other,))


def test_a_gate_elsewhere_is_refused_as_torch_refuses_it():
    gate = torch.zeros(2, 8, 1, device="meta")
    with pytest.raises(RuntimeError, match="device"):
        ops.apply_gates(torch.zeros(2, 8, 5), channel_gate=gate)


def test_one_device_is_not_forced_on_the_other(device):
    with implementation("cpu"), pytest.raises(ValueError, match="x is on the device cuda:0"):
        ops.pool_positions(torch.empty(2, 8, 5, device=device), statistics=["mean"])


def test_a_tensor_on_the_cpu_is_none_of_the_gpus():
    with implementation("cuda"), pytest.raises(ValueError, match="x is on the device cpu"):
        ops.pool_positions(torch.zeros(2, 8, 5), statistics=["mean"])


def test_without_triton_plain_pytorch_serves(device, monkeypatch):
    monkeypatch.setattr(implementations, "cuda_kernels", lambda: (None, "triton is not installed"))
    x = torch.empty(2, 8, 5, device=device)
    assert ops.implementation_of("cbam", x) == ("reference", "triton is not installed")
    assert implementations.without_kernels_compiled(x) == "triton is not installed"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_machine_without_a_driver_is_no_error():
    with FakeTensorMode():
        x = torch.empty(2, 8, 5, device="cuda")
    cuda.trouble.cache_clear()
    name, reason = ops.implementation_of("cbam", x)
    assert name == "reference"
    assert reason.startswith("Triton can't run here: ")
