"""The default backbone: a small residual network for sequences, images and clips."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from whatwhere.checks import check_choice, check_positive

_CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_NORMS: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class Block(nn.Module):
    """y = ReLU(BN(conv(ReLU(BN(conv x)))) + shortcut(x)), 3-wide convolutions, ResNet's block."""

    def __init__(self, inputs: int, channels: int, *, ndim: int, stride: int) -> None:
        super().__init__()
        convolution, norm = _CONVOLUTIONS[ndim], _NORMS[ndim]
        strides = _strides(stride, ndim)
        self.conv1 = convolution(inputs, channels, 3, stride=strides, padding=1, bias=False)
        self.bn1 = norm(channels)
        self.conv2 = convolution(channels, channels, 3, padding=1, bias=False)
        self.bn2 = norm(channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != channels:
            self.shortcut = nn.Sequential(
                convolution(inputs, channels, 1, stride=strides, bias=False), norm(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, *S) to (N, channels, *S / stride)."""
        branch = self.relu(self.bn1(self.conv1(x)))
        branch = self.bn2(self.conv2(branch))
        output: Tensor = self.relu(branch + self.shortcut(x))
        return output


class SmallResNet(nn.Module):
    """A residual classifier for (N, C, L), (N, C, H, W) or (N, C, T, H, W).

    A stem that halves every position axis but time, then stages that each halve them again, the
    first excepted. Clips keep their frames throughout, so that *when* stays readable.

    Args:
        classes: number of classes.
        in_channels: channels of x.
        ndim: position axes of x, 1 to 3.
        channels: of each stage.
        blocks: residual blocks of each stage.

    >>> import torch
    >>> SmallResNet(10, in_channels=1, ndim=2)(torch.zeros(2, 1, 40, 40)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        classes: int,
        *,
        in_channels: int = 3,
        ndim: int = 2,
        channels: Sequence[int] = (16, 32, 64),
        blocks: Sequence[int] = (1, 1, 1),
    ) -> None:
        check_positive("SmallResNet", "classes", classes)
        for width in channels:
            check_positive("SmallResNet", "channels", width)
        check_choice("SmallResNet", "ndim", ndim, (1, 2, 3))
        super().__init__()
        strides = _strides(2, ndim)
        self.stem = nn.Sequential(
            _CONVOLUTIONS[ndim](in_channels, channels[0], 3, stride=strides, padding=1, bias=False),
            _NORMS[ndim](channels[0]),
            nn.ReLU(inplace=True),
        )
        stages = []
        inputs = channels[0]
        for index, (width, count) in enumerate(zip(channels, blocks, strict=True)):
            stage = []
            for block in range(count):
                stride = 2 if index > 0 and block == 0 else 1
                stage.append(Block(inputs, width, ndim=ndim, stride=stride))
                inputs = width
            stages.append(nn.Sequential(*stage))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        features: Tensor = self.stages(self.stem(x))
        logits: Tensor = self.head(features.flatten(2).mean(2))
        return logits


def _strides(stride: int, ndim: int) -> tuple[int, ...]:
    return (1, stride, stride) if ndim == 3 else (stride,) * ndim
