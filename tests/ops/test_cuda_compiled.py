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

CAPABILITIES = [80, 90, 100]
# A multiprocessor has 65 536 registers: at so many a thread, 512 threads are there at a time. To
# stay at 64 the assembler sometimes spills two or three of them, in bytes:
REGISTERS, SPILT = 128, 16
BOTH = ("mean", "max")
KERNELS = {
    "pool_positions", "pool_channels", "finish_pooling", "hidden", "channel_gate", "spatial_gate",
    "apply_gates", "sweep", "finish_sums", "map_gradient", "weight_gradient", "weighted", "spread",
}  # fmt: skip


def every_operation(x):
    """Launch every kernel; nothing is computed."""
    n, channels, *space = x.shape
    positions = x[0, 0].numel()
    f32 = {"dtype": torch.float32}
    gate, s = torch.empty(n, channels, **f32), torch.empty(n, positions, **f32)
    pooled, maps = cuda.pool_positions(x, BOTH), cuda.pool_channels(x, gate, BOTH)
    cuda.pool_positions_backward(pooled, x, pooled, BOTH)
    cuda.pool_channels_backward(maps, x, gate, maps, BOTH)
    y = cuda.apply_gates(x, gate, s, x, True)
    cuda.apply_gates_backward(y, x, gate, s, None)
    w0, w1 = torch.empty(16, channels, **f32), torch.empty(channels, 16, **f32)
    wc = torch.empty(1, 2, *(7 for _ in space), **f32)
    parameters = w0, w0[:, 0].contiguous(), w1, gate[0], wc, torch.empty(1, **f32)
    options = BOTH, BOTH, 1.0, 2.0
    y, saved = cuda.cbam(x, *parameters, *options, x, True)
    cuda.cbam_backward(y, x, saved, *parameters, *options, None)


def compiled(capability, x):
    with compiled_for(capability) as launched:
        every_operation(x)
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
    large = {"pool_positions", "pool_channels", "apply_gates", "sweep", "weighted", "spread"}
    kernels = compiled(90, of_layout(layout, (2, 256, 56, 56), dtype))
    for kernel in (kernel for kernel in kernels if kernel.name in large):
        code = kernel.asm["ptx"]
        # What spreads the gradients of descriptors alone reads nothing of the size of x.
        assert "ld.global.v4.b32" in code or kernel.name == "spread", kernel.name
        if dtype is torch.bfloat16:
            # No number of x is read by itself; all 2-byte accesses are to x and y.
            assert not re.search(r"(ld|st)\.global\S*\.[bu]16", code), kernel.name
        if kernel.name in ("apply_gates", "spread"):
            assert "st.global.v4.b32" in code, kernel.name
            assert ("cvt.rn.bf16" in code) == (dtype is torch.bfloat16)


def test_samples_are_addressed_in_64_bits():
    """Tensors may have 2³¹ elements and more: the product with the sample's number is wide."""
    x = of_layout(torch.contiguous_format, (2, 256, 56, 56), torch.float32)
    for kernel in compiled(90, x):
        code = kernel.asm["ttir"]
        assert "arith.extsi" in code, kernel.name
        assert re.search(r"arith\.muli .* : (i64|tensor<.*xi64>)", code), kernel.name


def test_shapes_share_kernels():
    """A new size is a new kernel only where rows become whole vectors, or cease to be."""
    kinds = []
    for height in (21, 22, 23, 25, 26, 27, 29, 31, 33, 35, 37, 39, 32, 48):
        for samples in (1, 3):
            x = torch.empty(samples, 96, height, height + 2)
            kinds.append({kernel.hash for kernel in compiled(90, x)})
    assert len(set.union(*kinds)) <= 2 * len(kinds[0])
