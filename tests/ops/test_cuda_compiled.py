"""The kernels for NVIDIA GPUs, compiled ahead of time: no GPU is needed for what this finds out.

Every launch of every operation is compiled for three generations of devices; the assembler then
says how many registers it takes and what it spills.
"""

import re

import pytest
import torch

pytest.importorskip("triton")

from tests.ops.compiled import compiled_for, usage
from whatwhere.ops import cuda
from whatwhere.ops.raw import memory_format

CAPABILITIES = [80, 90, 100]
# A multiprocessor has 65 536 registers: at so many a thread, 512 threads are there at a time. To
# stay at 64 the assembler sometimes spills two or three of them, in bytes:
REGISTERS, SPILT = 128, 16
BOTH, FOUR = ("mean", "max"), ("l2", "std", "max", "mean")
# A batch of which the channel network is computed in tiles of all samples, and one of which it
# takes more weights than each program should read.
LARGE, WIDE = (24, 64, 28, 28), (1, 1024, 16, 16)
KERNELS = {
    "pool_positions", "pool_channels", "finish_pooling", "network", "gate_of_parts", "hidden",
    "channel_gate", "apply_gates", "convolve_and_apply", "sweep", "finish_sums", "map_gradients",
    "weighted", "hidden_gradient", "descriptor_gradient", "spread", "parameter_gradients",
}  # fmt: skip


def every_primitive(x):
    """Launch what pools, applies gates, and differentiates both; nothing is computed."""
    n, channels = x.shape[:2]
    gate, s = torch.empty(n, channels), torch.empty(n, x[0, 0].numel())
    pooled, maps = cuda.pool_positions(x, FOUR), cuda.pool_channels(x, gate, FOUR)
    cuda.pool_positions_backward(pooled, x, pooled, FOUR)
    cuda.pool_channels_backward(maps, x, gate, maps, FOUR)
    y = cuda.apply_gates(x, gate, s, x, True)
    cuda.apply_gates_backward(y, x, gate, s, y)


def whole(x):
    """The same of CBAM."""
    channels = x.shape[1]
    units = max(16, channels // 16)
    w0, w1 = torch.empty(units, channels), torch.empty(channels, units)
    wc = torch.empty(1, 2, *(7 for _ in x.shape[2:]))
    given = (
        w0,
        torch.empty(units),
        w1,
        torch.empty(channels),
        wc,
        torch.empty(1),
        BOTH,
        BOTH,
        1.0,
        2.0,
    )
    y, saved = cuda.cbam(x, *given, x, True)
    cuda.cbam_backward(y, x, saved, *given, y)


def compiled(capability, x):
    with compiled_for(capability) as launched:
        every_primitive(x)
        for shape in (x.shape, LARGE, WIDE):
            whole(x.new_empty(shape).contiguous(memory_format=memory_format(x)))
    assert {kernel.name for kernel in launched} == KERNELS
    return {kernel.hash: kernel for kernel in launched}.values()


def of_layout(layout, shape, dtype):
    return torch.empty(shape, dtype=dtype).contiguous(memory_format=layout)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_registers_are_few_and_hardly_any_is_spilt(capability, layout, dtype, tmp_path):
    shape = (2, 512, 7, 7) if capability == 90 else (2, 256, 56, 56)
    for kernel in compiled(capability, of_layout(layout, shape, dtype)):
        used = usage(kernel, tmp_path)
        assert used.stack + used.local <= SPILT, f"{kernel.name}: {used}"
        assert used.registers <= REGISTERS, f"{kernel.name}: {used}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_x_is_read_and_written_in_whole_vectors_and_rounded_to_the_nearest(layout, dtype):
    """16 bytes a thread at a time, which is what memory's speed takes."""
    large = {"pool_positions", "pool_channels", "apply_gates", "convolve_and_apply", "sweep"}
    large |= {"weighted", "spread"}
    kernels = compiled(90, of_layout(layout, (2, 256, 56, 56), dtype))
    for kernel in (kernel for kernel in kernels if kernel.name in large):
        code = kernel.asm["ptx"]
        assert "ld.global.v4.b32" in code, kernel.name
        if dtype is torch.bfloat16:
            # No number of x is read by itself; all 2-byte accesses are to x and y.
            assert not re.search(r"(ld|st)\.global\S*\.[bu]16", code), kernel.name
        if kernel.name in ("apply_gates", "convolve_and_apply", "spread"):
            assert "st.global.v4.b32" in code, kernel.name
            assert ("cvt.rn.bf16" in code) == (dtype is torch.bfloat16)


def test_samples_are_addressed_in_64_bits():
    """Tensors may have 2³¹ elements and more: the product with the sample's number is wide."""
    x = of_layout(torch.contiguous_format, (2, 256, 56, 56), torch.float32)
    for kernel in compiled(90, x):
        code = kernel.asm["ttir"]
        assert "arith.extsi" in code, kernel.name
        assert re.search(r"arith\.muli .* : (i64|tensor<.*xi64>)", code), kernel.name
