"""``cbam`` that also hands out its gates, which it has anyway, to whoever watches them."""

from collections.abc import Sequence
from math import prod

from torch import Tensor

from whatwhere.ops import reference
from whatwhere.ops.arguments import check_parameters, checked_statistics, scale_of
from whatwhere.ops.raw import channel_shape, spatial_shape
from whatwhere.ops.reference import ActivationName, Statistic
from whatwhere.ops.repeated import remember, run_again_with_gates, signature
from whatwhere.ops.routing import route


def cbam_with_gates(
    x: Tensor,
    *,
    reduce_weight: Tensor,
    reduce_bias: Tensor | None = None,
    expand_weight: Tensor,
    expand_bias: Tensor | None = None,
    conv_weight: Tensor,
    conv_bias: Tensor | None = None,
    channel_statistics: Sequence[Statistic] = ("mean", "max"),
    spatial_statistics: Sequence[Statistic] = ("mean", "max"),
    channel_activation: ActivationName = "sigmoid",
    spatial_activation: ActivationName = "sigmoid",
) -> tuple[Tensor, Tensor, Tensor]:
    """y = x · g · s as from ``cbam``, bit for bit, with g and s.

    Args:
        x: and all others as for ``cbam``, whose docstring has the equation and its source.

    Returns:
        y; and, detached and in ``accumulation_dtype(x.dtype)``, g (N, C, 1, ...) and
        s (N, 1, *positions).

    Raises:
        ValueError: as ``cbam``.

    >>> import torch
    >>> x, w0, w1 = torch.ones(1, 4, 3, 3), torch.ones(2, 4), torch.zeros(4, 2)
    >>> weights = {"reduce_weight": w0, "expand_weight": w1}
    >>> y, g, s = cbam_with_gates(x, **weights, conv_weight=torch.zeros(1, 2, 3, 3))
    >>> y.unique(), g.shape, s.shape
    (tensor([0.2500]), torch.Size([1, 4, 1, 1]), torch.Size([1, 1, 3, 3]))
    """
    parameters = (
        reduce_weight,
        reduce_bias,
        expand_weight,
        expand_bias,
        conv_weight,
        conv_bias,
    )
    statistics = tuple(channel_statistics), tuple(spatial_statistics)
    depth, hidden = len(statistics[0]), reduce_weight.shape[0]
    # That of a ``cbam`` with nothing to add, which may have been called and remembered before.
    options = (*statistics, channel_activation, spatial_activation, None, False)
    sign = signature(x, None, parameters, options)
    if sign is not None:
        again = run_again_with_gates(sign, x, parameters)
        if again is not None:
            return again[0], *_gates(again[1], x, depth, hidden)
    channel = checked_statistics("cbam", x, channel_statistics)
    spatial = checked_statistics("cbam", x, spatial_statistics)
    scale = scale_of("channel_activation", channel_activation)
    spatial_scale = scale_of("spatial_activation", spatial_activation)
    check_parameters(x, parameters, len(spatial))
    call = route("cbam", x, (*channel, *spatial), *parameters)
    if call is None:
        y, channel_gate, spatial_gate = reference.cbam(
            x,
            *parameters,
            channel_statistics=channel,
            spatial_statistics=spatial,
            channel_activation=channel_activation,
            spatial_activation=spatial_activation,
        )
        return y, channel_gate.detach(), spatial_gate.detach()
    arguments = (*parameters, channel, spatial, scale, spatial_scale, None, False)
    if sign is not None:
        remember(sign, x, arguments)
    y, saved = call("cbam", x, *arguments)
    return y, *_gates(saved, x, depth, hidden)


def _gates(saved: Tensor, x: Tensor, depth: int, hidden: int) -> tuple[Tensor, Tensor]:
    """The gates among what the raw operation saves, in the order that ``raw.cbam`` says.

    Copies: the backward pass reads what was saved, which is also several times as large.
    """
    channels, positions = x.shape[1], prod(x.shape[2:])
    if saved.requires_grad:
        saved = saved.detach()
    channel = saved.narrow_copy(1, depth * (channels + hidden), channels)
    spatial = saved.narrow_copy(1, saved.shape[1] - positions, positions)
    return channel.view(channel_shape(x)), spatial.view(spatial_shape(x))
