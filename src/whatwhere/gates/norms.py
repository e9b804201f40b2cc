"""Norms as steps of a mix, with parameters and without."""

from typing import cast

import torch
from torch import Tensor, nn

from whatwhere.checks import check_positive
from whatwhere.gates.layers import Step
from whatwhere.gates.mixes import promoted, set_constant
from whatwhere.ops.reference import degrees_of_freedom


class BatchNorm(Step):
    """Batch normalisation of every channel, over the batch and the positions."""

    def __init__(self, channels: int, *, momentum: float = 0.1) -> None:
        super().__init__()
        self.channels = channels
        self.norm = nn.BatchNorm1d(channels, momentum=momentum)

    def step(self, descriptor: Tensor) -> Tensor:
        """(N, C, ...) to the same shape."""
        rows = descriptor.flatten(2).to(self.norm.weight.dtype)
        normalised: Tensor = self.norm(rows)
        return normalised.to(descriptor.dtype).reshape(descriptor.shape)

    def constant_logits(self, value: float) -> None:
        """Set its weight to 0 and its bias."""
        set_constant(self.norm, value)


class GroupNorm(Step):
    """Normalisation of every sample over groups of channels and all positions; one is LayerNorm.

    Args:
        channels: of the descriptor.
        groups: that divide the channels.
        affine: whether a weight and a bias of every channel follow.
    """

    def __init__(self, channels: int, *, groups: int = 1, affine: bool = True) -> None:
        check_positive("GroupNorm", "groups", groups)
        super().__init__()
        self.channels = channels
        self.norm = nn.GroupNorm(groups, channels, affine=affine)

    def step(self, descriptor: Tensor) -> Tensor:
        """(N, C, ...) to the same shape."""
        weight, bias = promoted(self.norm) if self.norm.affine else (None, None)
        # Not F.group_norm: it refuses a single value, which is 0 after normalisation.
        return torch.group_norm(descriptor, self.norm.num_groups, weight, bias, self.norm.eps)

    def constant_logits(self, value: float) -> None:
        """Set its weight to 0 and its bias."""
        if not self.norm.affine:
            raise ValueError("its norm has no parameters")
        set_constant(self.norm, value)


class Standardise(Step):
    """(d - mean) / (std + 1e-5) over positions, of every sample and channel.

    The deviation is that of n - 1 degrees of freedom; a single position gives 0.
    """

    def step(self, descriptor: Tensor) -> Tensor:
        """(N, C, *S) to the same shape."""
        axes = tuple(range(2, descriptor.ndim))
        centred = descriptor - descriptor.mean(axes, keepdim=True)
        squares = centred.square().sum(axes, keepdim=True)
        return centred / (_root(squares / degrees_of_freedom(descriptor, axes)) + 1e-5)


class ChannelRms(Step):
    """d / √(mean_C d² + 1e-5): the root mean square over channels."""

    def step(self, descriptor: Tensor) -> Tensor:
        """(N, C, ...) to the same shape."""
        root: Tensor = (descriptor.square().mean(1, keepdim=True) + 1e-5).sqrt()
        return descriptor / root


class Energy(Step):
    """(d - mean)² / (4 (var + λ)) + ½ over positions, the inverse energy of SimAM.

    The variance is that of n - 1 degrees of freedom; a single position gives ½.
    """

    def __init__(self, *, regularisation: float = 1e-4) -> None:
        super().__init__()
        self.regularisation = regularisation

    def step(self, descriptor: Tensor) -> Tensor:
        """(N, C, *S) to the same shape."""
        axes = tuple(range(2, descriptor.ndim))
        squares = (descriptor - descriptor.mean(axes, keepdim=True)).square()
        variance = squares.sum(axes, keepdim=True) / degrees_of_freedom(descriptor, axes)
        return cast(Tensor, squares / (4 * (variance + self.regularisation)) + 0.5)

    def extra_repr(self) -> str:
        """λ, for printing."""
        return f"regularisation={self.regularisation:g}"


def _root(x: Tensor) -> Tensor:
    # Without the infinite gradient that a square root has at 0, of maps that are constant.
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0).sqrt(), 0.0)
