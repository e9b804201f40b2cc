"""CBAM on NVIDIA GPUs, forward and backward, chunk by chunk of the samples.

Forward: pool, channel network, maps, and the spatial gate with its application: x is read three
times, and y written. Backward: x is read twice and dy once in three passes, of which the last
writes dx, between gradients of small tensors. A chunk's passes follow each other while x is in the
cache; gradients of parameters are summed over all samples at the end, in one order.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from whatwhere.ops.cuda import gradients, maps, network, steps
from whatwhere.ops.cuda.gradients import Pooled, sums_of
from whatwhere.ops.cuda.primitives import like
from whatwhere.ops.cuda.steps import Rows, places
from whatwhere.ops.cuda.tiles import absent, chunk_of, chunks, plan


def forward(x: Tensor, arguments: Sequence[Any], y: Tensor) -> Tensor:
    """``raw.cbam`` into y, which may be x; the result is what the backward needs."""
    *parameters, channel, spatial, scale, spatial_scale, residual, relu = arguments
    *of_network, wc, bc = parameters
    each = chunk_of(x, 1)
    p, narrow = plan(x, each), plan(x, each, narrow=True)
    at = network.layout(p, of_network[0].shape[0], len(channel), len(spatial))
    saved = torch.empty((x.shape[0], at.row), dtype=torch.float32, device=x.device)
    gate, planes = Rows(saved, at.row, at.gate), Rows(saved, at.row, at.maps)
    convolution = maps.convolution(wc)
    for chunk in chunks(x.shape[0], each):
        network.channel_gate(p, chunk, x, of_network, channel, scale, saved, at)
        steps.pool_channels(narrow, chunk, x, gate, planes, spatial)
        maps.apply(
            p, chunk, x, wc, bc, convolution, spatial_scale, saved, at, residual, relu, y
        )  # fmt: skip
    return saved


def backward(dy: Tensor, x: Tensor, saved: Tensor, arguments: Sequence[Any]) -> tuple[Tensor, ...]:
    """As ``raw.cbam_backward``."""
    *parameters, channel, spatial, scale, spatial_scale, y = arguments
    w0, _, w1, _, wc, _ = parameters
    n, saved = x.shape[0], saved.contiguous()
    each = chunk_of(x, 2)
    p, swept = plan(x, each), plan(x, each, parts=2, narrow=True)
    at = network.layout(p, w0.shape[0], len(channel), len(spatial))
    gate, s = Rows(saved, at.row, at.gate), Rows(saved, at.row, at.spatial)
    top, map_top = places(channel, p.channels)[1], places(spatial, p.positions, at.maps)[1]
    descriptors = None if top is None else Rows(saved, at.row, top)
    planes = None if map_top is None else Rows(saved, at.row, map_top)
    more = p.shares(p.tiles_c, p.tiles_p)[0]
    sums = sums_of(
        swept, x, channels=swept.tiles_p + more, positions=True,
        first_p=top is not None, first_c=map_top is not None,
    )  # fmt: skip
    assert sums.of_channels is not None
    assert sums.of_positions is not None
    dz, dx, before = sums.of_positions, like(x), None if y is None else like(x)
    convolution = maps.convolution(wc)
    dmaps = dz.new_empty((n, len(spatial), p.positions))
    parts = dz.new_empty((maps.shares(p, n, convolution)[1], convolution.weights))
    of = network.gradients_of(p, saved, at)
    first_p = torch.empty((n, p.channels), dtype=torch.int32, device=x.device)
    of_maps = Pooled(dmaps, first_p if sums.first_c is None else sums.first_c, spatial)
    for chunk in chunks(n, each):
        gradients.sweep(
            swept, chunk, x, dy, sums, y=y, channel=gate, spatial=s,
            descriptors=descriptors, maps=planes, before=before, scale=spatial_scale,
        )  # fmt: skip
        maps.gradients(p, chunk, dz, wc, convolution, dmaps, saved, at, parts)
        gradients.weighted(p, chunk, x, None, of_maps, sums.of_channels)
        gradients.finish(
            chunk, sums.of_channels, sums.first_p, of.logits, first_p, gate=gate, scale=scale
        )
        network.backward(p, chunk, of, saved, w0, w1, at)
        gradients.spread(
            p, chunk, dx, dy=dy if before is None else before, channel=gate, spatial=s,
            maps=of_maps, descriptors=Pooled(of.descriptors, first_p, channel),
        )  # fmt: skip
    of_parameters = network.of_parameters(of, saved, parts, parameters, at)
    present = [absent(x) if one is None else one for one in of_parameters]
    return dx, *present, absent(x) if before is None else before
