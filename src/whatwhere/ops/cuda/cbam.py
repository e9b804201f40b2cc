"""CBAM on NVIDIA GPUs, forward and backward: which steps run, and what lies where in ``saved``.

Forward: pool, hidden units, channel gate, maps, spatial gate, apply: x is read three times, and y
written. Backward: x and dy are read twice and dx is written, between gradients of small tensors,
of which the channel network's are matrix products that torch computes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import relu as rectified

from whatwhere.ops.cuda import steps
from whatwhere.ops.cuda.kernels import gates, maps
from whatwhere.ops.cuda.primitives import like
from whatwhere.ops.cuda.steps import Rows, places
from whatwhere.ops.cuda.tiles import Plan, absent, plan, rows
from whatwhere.ops.raw import through_relu
from whatwhere.ops.reference import without_autocast

# Rows and columns of a matrix product's tile: the least that tensor cores take, and of the sum.
ROWS, UNITS, CHANNELS, STEP = 16, 16, 64, 64
# Programs that share the samples of the gradient of the convolution's weights.
SHARES = 32


@dataclass(frozen=True)
class Layout:
    """Where in a row of ``saved`` what begins, and how long the row is."""

    hidden: int
    gate: int
    maps: int
    spatial: int
    row: int


def _layout(p: Plan, units: int, depth: int, spatial_depth: int) -> Layout:
    hidden = depth * p.channels
    gate = hidden + depth * units
    first = gate + p.channels
    spatial = first + spatial_depth * p.positions
    return Layout(hidden, gate, first, spatial, spatial + p.positions)


def _taps(wc: Tensor) -> tuple[int, ...]:
    size = tuple(wc.shape[2:])
    return (1,) * (3 - len(size)) + size


def _gates(
    p: Plan, x: Tensor, parameters: Sequence[Any], options: Sequence[Any], saved: Tensor, at: Layout
) -> None:
    w0, b0, w1, b1, wc, bc = parameters
    channel, spatial, scale, spatial_scale = options
    units, depth = w0.shape[0], len(channel)
    steps.pool_positions(p, x, Rows(saved, at.row), channel)
    if p.samples == 0:
        return
    lines, tiles = p.samples * depth, -(-units // UNITS)
    gates.hidden[(-(-lines // ROWS) * tiles,)](
        saved, w0, b0, lines, depth, p.channels, units, tiles, at.row, 0, at.hidden,
        BR=ROWS, BU=UNITS, BC=STEP,
    )  # fmt: skip
    tiles = -(-p.channels // CHANNELS)
    gates.channel_gate[(-(-p.samples // ROWS) * tiles,)](
        saved, w1, b1, p.samples, p.channels, units, tiles, scale, at.row, at.hidden, at.gate,
        DEPTH=depth, BN=ROWS, BC=CHANNELS, BU=UNITS,
    )  # fmt: skip
    steps.pool_channels(p, x, Rows(saved, at.row, at.gate), Rows(saved, at.row, at.maps), spatial)
    pieces, block = rows(p.positions)
    gates.spatial_gate[(p.samples * pieces,)](
        saved, wc, bc, *p.space, *_taps(wc), pieces, spatial_scale, at.row, at.maps, at.spatial,
        DEPTH=len(spatial), BP=block,
    )  # fmt: skip


def forward(x: Tensor, arguments: Sequence[Any], y: Tensor) -> Tensor:
    """``raw.cbam`` into y, which may be x; the result is what the backward needs."""
    *parameters, channel, spatial, scale, spatial_scale, residual, relu = arguments
    parameters[4] = parameters[4].contiguous()
    p = plan(x)
    at = _layout(p, parameters[0].shape[0], len(channel), len(spatial))
    saved = torch.empty((p.samples, at.row), dtype=torch.float32, device=x.device)
    _gates(p, x, parameters, (channel, spatial, scale, spatial_scale), saved, at)
    of_channels, of_positions = Rows(saved, at.row, at.gate), Rows(saved, at.row, at.spatial)
    steps.apply_gates(p, x, of_channels, of_positions, residual, relu, y)
    return saved


def _convolution_gradients(
    p: Plan, dz: Tensor, saved: Tensor, at: Layout, wc: Tensor, depth: int
) -> tuple[Tensor, Tensor]:
    # Of the maps (N, D, P) and of the weights.
    dmaps = dz.new_empty((p.samples, depth, p.positions))
    if p.samples == 0:
        return dmaps, torch.zeros_like(wc, dtype=torch.float32)
    wc, size = wc.contiguous(), _taps(wc)
    pieces, block = rows(p.positions)
    maps.map_gradient[(p.samples * pieces,)](
        dz, wc, dmaps, *p.space, *size, pieces, DEPTH=depth, BP=block
    )
    each = -(-p.samples // SHARES)
    shares = -(-p.samples // each)
    parts = dz.new_empty((shares, *wc.shape))
    maps.weight_gradient[(shares * wc.numel(),)](
        dz, saved, parts, p.samples, *p.space, *size, wc.numel(), each, at.row, at.maps, BP=block
    )
    return dmaps, parts.sum(0)


def _network_gradients(
    dlogits: Tensor, descriptors: Tensor, hidden: Tensor, w0: Tensor, w1: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    # Of the descriptors (N, D, C), w0, b0, w1 and b1, from that of the logits (N, C).
    w0, w1 = w0.float(), w1.float()
    depth = hidden.shape[1]
    dhidden = through_relu((dlogits @ w1).unsqueeze(1).expand_as(hidden), hidden)
    flat = dhidden.flatten(0, 1)
    dw0 = flat.t() @ descriptors.flatten(0, 1)
    dw1 = dlogits.t() @ rectified(hidden).sum(1)
    return dhidden @ w0, dw0, flat.sum(0), dw1, depth * dlogits.sum(0)


def backward(dy: Tensor, x: Tensor, saved: Tensor, arguments: Sequence[Any]) -> tuple[Tensor, ...]:
    """As ``raw.cbam_backward``."""
    w0, b0, w1, b1, wc, bc, channel, spatial, scale, spatial_scale, y = arguments
    before = through_relu(dy, y)
    p, depth = plan(x), len(channel)
    units, spatial_depth = w0.shape[0], len(spatial)
    at = _layout(p, units, depth, spatial_depth)
    saved = saved.contiguous()
    of_channels, of_positions = Rows(saved, at.row, at.gate), Rows(saved, at.row, at.spatial)
    top, map_top = places(channel, p.channels)[1], places(spatial, p.positions, at.maps)[1]
    swept = steps.sweep(
        x, before, of_channels, of_positions,
        descriptors=None if top is None else Rows(saved, at.row, top),
        maps=None if map_top is None else Rows(saved, at.row, map_top),
        to_channels=True, to_positions=True, more=steps.shares_of_weighted(p)[0],
    )  # fmt: skip
    dz, first_c = steps.finish(swept.of_positions, swept.first_c, of_positions, spatial_scale)
    dmaps, dwc = _convolution_gradients(p, dz, saved, at, wc, spatial_depth)
    assert swept.of_channels is not None
    steps.weighted(p, x, dmaps, first_c, swept.of_channels, spatial)
    dlogits, first_p = steps.finish(swept.of_channels, swept.first_p, of_channels, scale)
    descriptors = saved[:, : at.hidden].unflatten(1, (depth, p.channels))
    hidden = saved[:, at.hidden : at.gate].unflatten(1, (depth, units))
    with without_autocast(x):
        ddescriptors, *of_network = _network_gradients(dlogits, descriptors, hidden, w0, w1)
        gradients = (*of_network, dwc, dz.sum().reshape(1))
    dx = like(x)
    steps.spread(
        p, dx, dy=before, channel=of_channels, spatial=of_positions,
        of_maps=(dmaps, first_c, spatial),
        of_descriptors=(ddescriptors.contiguous(), first_p, channel),
    )  # fmt: skip
    of_parameters = [
        absent(x) if parameter is None else gradient.to(parameter.dtype)
        for gradient, parameter in zip(gradients, (w0, b0, w1, b1, wc, bc), strict=True)
    ]
    dresidual = absent(x) if y is None else _own(before, dy)
    return dx, *of_parameters, dresidual


def _own(gradient: Tensor, dy: Tensor) -> Tensor:
    # An output may not be an input.
    return gradient.clone() if gradient is dy else gradient
