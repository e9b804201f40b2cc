"""CBAM's convolution over maps on chunks of samples: with what it gates, and its gradients."""

from dataclasses import dataclass
from math import prod

from torch import Tensor

from whatwhere.ops.cuda.kernels.gates import convolve_and_apply
from whatwhere.ops.cuda.kernels.maps import map_gradients
from whatwhere.ops.cuda.network import Layout
from whatwhere.ops.cuda.steps import Chunk
from whatwhere.ops.cuda.tiles import BLOCK, ENOUGH, SMALLEST, WARPS, Plan

# Elements of a tile of taps and positions.
TAPS = 1024


@dataclass(frozen=True)
class Convolution:
    """What kernels need to know of weights (1, D, *K), in any strides."""

    size: tuple[int, int, int]  # frames, height, width
    strides: tuple[int, int, int, int]  # of D before those
    depth: int

    @property
    def lines(self) -> int:
        """Rows of taps of one map, as many as a tile has or fewer."""
        return self.size[0] * self.size[1]

    @property
    def weights(self) -> int:
        """All weights, and the bias behind them."""
        return self.depth * prod(self.size) + 1

    @property
    def blocks(self) -> dict[str, int]:
        """The keywords of a kernel that convolves."""
        return {"DEPTH": self.depth, "KR": _power(self.lines), "KW": self.size[2]}


def _power(number: int) -> int:
    return 1 << (number - 1).bit_length()


def convolution(wc: Tensor) -> Convolution:
    """That of weights (1, D, *K)."""
    absent = 5 - wc.ndim
    frames, height, width = (1,) * absent + tuple(wc.shape[2:])
    by_map, *own = wc.stride()[1:]
    by_frame, by_row, by_column = (0,) * absent + tuple(own)
    strides = by_map, by_frame, by_row, by_column
    return Convolution((frames, height, width), strides, wc.shape[1])


def apply(
    p: Plan,
    chunk: Chunk,
    x: Tensor,
    wc: Tensor,
    bc: Tensor | None,
    of: Convolution,
    scale: float,
    saved: Tensor,
    at: Layout,
    residual: Tensor | None,
    relu: bool,
    y: Tensor,
) -> None:
    """The spatial gate of a chunk into ``saved``, and relu?(x · gates + residual) into y."""
    start, count = chunk
    splits, each = p.shares(p.tiles_p, p.tiles_c)
    convolve_and_apply[(count * p.tiles_p * splits,)](
        x, saved, wc, bc, residual, y, *p.strides, p.tiles_p, splits, each, start,
        *p.space, *of.size[:2], *of.strides, scale, at.row, at.gate, at.maps, at.spatial,
        RELU=relu, **of.blocks, **p.blocks,
    )  # fmt: skip


def shares(p: Plan, samples: int, of: Convolution) -> tuple[int, int, int]:
    """For the weights' gradient: positions of a tile, shares of all tiles, tiles of a share."""
    most = TAPS // max(_power(of.lines), _power(of.size[2]))
    block = min(_power(p.positions), BLOCK, most)
    block = max(block, SMALLEST)
    tiles = samples * -(-p.positions // block)
    wanted = -(-2 * ENOUGH // (of.depth * of.lines + 1))
    each = max(1, -(-tiles // wanted))
    return block, -(-tiles // each), each


def gradients(
    p: Plan,
    chunk: Chunk,
    dz: Tensor,
    wc: Tensor,
    of: Convolution,
    dmaps: Tensor,
    saved: Tensor,
    at: Layout,
    parts: Tensor,
) -> None:
    """dmaps (N, D, P) of a chunk from dz (N, P); with the last chunk all weights' into parts."""
    start, count = chunk
    samples = dz.shape[0]
    block, cut, each = shares(p, samples, of)
    tiles = -(-p.positions // block)
    more = cut * (of.depth * of.lines + 1) if start + count == samples else 0
    map_gradients[(count * tiles + more,)](
        dz, wc, dmaps, saved, parts, count * tiles, samples, tiles, start,
        *p.space, *of.size[:2], *of.strides, each, of.weights, at.row, at.maps,
        TAPS=_power(of.size[2]), BP=block, **of.blocks, num_warps=WARPS,
    )  # fmt: skip
