"""The whole CBAM op on the CPU: what memory it needs, and in which steps the kernels run.

Whole samples one after another keep each sample in cache. With fewer samples than threads a sample
is shared out step by step, and where the channel gate's weights outweigh a sample, its network runs
for all samples at once so that the weights are read once. The bits are the same each way.
"""

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from whatwhere.ops.cpu import layout as A
from whatwhere.ops.cpu.native import kernel
from whatwhere.ops.cpu.outputs import LINE, goes_past
from whatwhere.ops.cpu.threads import run, thread_count

FIRST = A.PRODUCTS | A.MAP_GRADIENT | A.WEIGHTED | A.LOGITS_GRADIENT
NETWORK = A.HIDDEN_GRADIENT | A.DESCRIPTOR_GRADIENT
# Positions of a tile: a row of a map of so many stays in the first-level cache.
PLANE_TILE, PIXEL_TILES = 2048, 8


@dataclass(frozen=True)
class Plan:
    """All that follows from shapes, dtype and options alone."""

    samples: int
    channels: int
    positions: int
    units: int
    depth: tuple[int, int]
    taps: int
    dtype: torch.dtype
    wide: torch.dtype
    bytes: int  # of one wide number
    by_pixel: bool
    tiles: int
    padded: int
    saved: int
    past: bool  # the caches, where addresses allow it
    template: "array[int]"

    @property
    def scratch(self) -> int:
        """Length of one thread's scratch, in wide numbers."""
        return max(3 * self.channels, self.positions, self.padded) + self.taps

    @property
    def heavy(self) -> bool:
        """Whether the weights of the channel gate's network outweigh a quarter of a sample."""
        return 8 * self.units > self.positions


@lru_cache(maxsize=512)
def plan(
    shape: tuple[int, ...],
    kernel_shape: tuple[int, ...],
    units: int,
    statistics: tuple[tuple[str, ...], tuple[str, ...]],
    scales: tuple[float, float],
    dtype: torch.dtype,
    by_pixel: bool,
) -> Plan:
    """The plan for x of a shape."""
    samples, channels, *space = shape
    positions = math.prod(space)
    space = [1] * (3 - len(space)) + space
    sizes = [1] * (3 - len(kernel_shape)) + list(kernel_shape)
    wide = torch.promote_types(dtype, torch.float32)
    tile = PLANE_TILE
    if by_pixel:
        tile = max(4, -(-positions // PIXEL_TILES // 4) * 4)
    padded = math.prod(size + k - 1 for size, k in zip(space, sizes, strict=True))
    template = array("q", bytes(8 * A.LENGTH))
    template[A.SAMPLES], template[A.CHANNELS] = samples, channels
    template[A.POSITIONS], template[A.UNITS] = positions, units
    template[A.FRAMES], template[A.HEIGHT], template[A.WIDTH] = space
    template[A.KT], template[A.KH], template[A.KW] = sizes
    for place, names in zip((A.CHANNEL_DEPTH, A.SPATIAL_DEPTH), statistics, strict=True):
        template[place] = len(names)
        template[place + 1] = names.index("mean") if "mean" in names else -1
        template[place + 2] = names.index("max") if "max" in names else -1
    template[A.CHANNEL_SCALE], template[A.SPATIAL_SCALE] = (int(scale) for scale in scales)
    template[A.TILE] = tile
    channel_depth, spatial_depth = len(statistics[0]), len(statistics[1])
    row = channels if by_pixel else positions
    return Plan(
        samples=samples,
        channels=channels,
        positions=positions,
        units=units,
        depth=(channel_depth, spatial_depth),
        taps=spatial_depth * math.prod(sizes),
        dtype=dtype,
        wide=wide,
        bytes=wide.itemsize,
        by_pixel=by_pixel,
        tiles=-(-positions // tile),
        # The convolution's last vectors reach beyond the padded maps.
        padded=spatial_depth * padded + 128,
        saved=(channel_depth + 1) * channels
        + channel_depth * units
        + (spatial_depth + 1) * positions,
        past=goes_past(row, samples * channels * positions, dtype),
        template=template,
    )


def forward(
    p: Plan,
    x: Tensor,
    weights: Sequence[Tensor | None],
    residual: Tensor | None,
    relu: bool,
    y: Tensor,
    saved: Tensor | None,
) -> None:
    """Fill y, and saved if wanted; weights are W0, b0, W1, b1, Wc, bc, as wide as sums are."""
    threads = thread_count()
    a = p.template[:]
    length = threads * p.scratch + p.samples * p.units
    kept = 0 if saved is not None else p.samples * p.saved
    scratch = torch.empty(length + kept, dtype=p.wide)
    address = scratch.data_ptr()
    a[A.RELU] = relu
    a[A.PAST] = p.past and y is not x and y.data_ptr() % LINE == 0
    a[A.X], a[A.Y] = x.data_ptr(), y.data_ptr()
    a[A.SAVED] = address + length * p.bytes if saved is None else saved.data_ptr()
    a[A.RESIDUAL] = _address(residual)
    a[A.W0 : A.BC + 1] = array("q", [_address(weight) for weight in weights])
    a[A.WC_STRIDES : A.WC_STRIDES + 4] = _conv_strides(weights[4])
    a[A.SCRATCH], a[A.SCRATCH_LENGTH] = address, p.scratch
    a[A.SUMS] = address + threads * p.scratch * p.bytes
    code = kernel("forward_pixels" if p.by_pixel else "forward_planes", p.dtype)
    shared = p.samples < threads
    if not shared and not p.heavy:
        run(code, a, threads, A.FORWARD, p.samples, 1)
        return
    shares = 2 * threads if shared else 1
    run(code, a, threads, A.POOL, p.samples * shares, shares)
    run(code, a, threads, A.BATCHED | A.HIDDEN, _pieces(p.units, 2, threads), 1)
    run(code, a, threads, A.BATCHED | A.LOGITS, _pieces(p.channels, 16, threads), 1)
    if shared:
        run(code, a, threads, A.STATISTICS, p.samples * shares, shares)
        run(code, a, threads, A.MAP, p.samples, 1)
        run(code, a, threads, A.APPLY, p.samples * shares, shares)
    else:
        run(code, a, threads, A.STATISTICS | A.MAP | A.APPLY, p.samples, 1)


def backward(
    p: Plan,
    dy: Tensor,
    x: Tensor,
    saved: Tensor,
    weights: Sequence[Tensor | None],
    dx: Tensor,
    gradients: Sequence[Tensor | None],
) -> None:
    """Fill dx and the gradients of W0, b0, W1, b1, Wc, bc."""
    threads = thread_count()
    a = p.template[:]
    n, channels = p.samples, p.channels
    lengths = {
        A.SCRATCH: threads * p.scratch,
        A.SUMS: n * p.units,
        A.DZ: n * channels,
        A.DHIDDEN: n * p.depth[0] * p.units,
        A.DDESCRIPTORS: n * p.depth[0] * channels,
        A.DMAPS: n * 4 * p.positions,
        A.PARTS: n * 3 * p.tiles * channels,
        A.KERNEL_PARTS: n * (p.taps + 1),
    }
    scratch = torch.empty(sum(lengths.values()), dtype=p.wide)
    address = scratch.data_ptr()
    for place, length in lengths.items():
        a[place] = address
        address += length * p.bytes
    a[A.SCRATCH_LENGTH] = p.scratch
    a[A.WC_STRIDES : A.WC_STRIDES + 4] = _conv_strides(weights[4])
    a[A.X], a[A.Y], a[A.SAVED] = x.data_ptr(), dy.data_ptr(), saved.data_ptr()
    a[A.DX] = dx.data_ptr()
    a[A.PAST] = p.past and a[A.DX] % LINE == 0
    a[A.W0 : A.BC + 1] = array("q", [_address(weight) for weight in weights])
    a[A.DW0 : A.DBC + 1] = array("q", [_address(gradient) for gradient in gradients])
    code = kernel("backward_pixels" if p.by_pixel else "backward_planes", p.dtype)
    pieces = _pieces(channels, 16, threads)
    shared = n < threads
    if not shared and not p.heavy:
        run(code, a, threads, FIRST | NETWORK | A.GRADIENT, n, 1)
        run(code, a, threads, A.BATCHED | A.PARAMETERS, pieces, 1)
        return
    shares = 2 * threads if shared else 1
    if shared:
        run(code, a, threads, A.PRODUCTS, n * shares, shares)
        run(code, a, threads, A.MAP_GRADIENT, n, 1)
        run(code, a, threads, A.WEIGHTED, n * shares, shares)
        run(code, a, threads, A.LOGITS_GRADIENT, n, 1)
    else:
        run(code, a, threads, FIRST, n, 1)
    run(code, a, threads, A.BATCHED | A.HIDDEN_GRADIENT, _pieces(p.units, 16, threads), 1)
    run(code, a, threads, A.BATCHED | A.DESCRIPTOR_GRADIENT | A.PARAMETERS, pieces, 1)
    run(code, a, threads, A.GRADIENT, n * shares, shares)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _conv_strides(weight: Tensor | None) -> "array[int]":
    # In a channels_last network they are channels_last too.
    assert weight is not None
    _, maps, *axes = weight.stride()
    return array("q", [maps, *(0,) * (3 - len(axes)), *axes])


def _pieces(size: int, multiple: int, threads: int) -> int:
    return max(1, min(size // multiple, 4 * threads))
