"""The networks of CBAM's tables, as its authors counted them, on timm's classes.

They differ from timm's and torchvision's networks of the same names where the printed digits say
so: a bottleneck's stride is on its first 1×1 convolution, a wide ResNet's stem stays 64 channels
wide, and MobileNet's widths are cut off, not rounded to multiples of 8.
"""

import math
from typing import Literal, get_args

import timm
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.resnet import BasicBlock, Bottleneck

from whatwhere.checks import check_choice, check_positive

Depth = Literal[18, 34, 50, 101]

BLOCKS: dict[Depth, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
}
STAGES = (64, 128, 256, 512)
# timm's notation: separable convolutions without a shortcut, repeats, kernel, stride, channels.
MOBILENET = (
    ["dsa_r1_k3_s1_c64"],
    ["dsa_r2_k3_s2_c128"],
    ["dsa_r2_k3_s2_c256"],
    ["dsa_r6_k3_s2_c512"],
    ["dsa_r2_k3_s2_c1024"],
)


class ResNet(timm.models.ResNet):  # type: ignore[misc]  # timm is not typed
    """ResNet, wide ResNet-18 and ResNeXt of CBAM's Table 4 (arXiv 1807.06521).

    Shapes: x is (N, in_channels, H, W); the logits are (N, classes).

    Args:
        depth: 18 and 34 have basic blocks, 50 and 101 bottlenecks. The stride of a bottleneck is
            on its first 1×1 convolution, as in arXiv 1512.03385.
        widen: factor on the channels of the four stages; the stem keeps 64.
        groups: of a bottleneck's 3×3 convolution.
        width_per_group: channels of each of them in the first stage.
        classes: number of classes.
        in_channels: channels of x.

    Raises:
        ValueError: an argument is not what was expected.

    >>> network = ResNet(50)
    >>> network.layer2[0].conv1.stride, network.layer2[0].conv2.stride
    ((2, 2), (1, 1))
    """

    def __init__(
        self,
        depth: Depth,
        *,
        widen: float = 1.0,
        groups: int = 1,
        width_per_group: int = 64,
        classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        check_choice("ResNet", "depth", depth, get_args(Depth))
        _check_factor("ResNet", "widen", widen)
        sizes = {"groups": groups, "width_per_group": width_per_group}
        for name, value in {**sizes, "classes": classes, "in_channels": in_channels}.items():
            check_positive("ResNet", name, value)
        basic = depth < 50
        if basic and (groups, width_per_group) != (1, 64):
            raise ValueError(
                f"ResNet: expected groups and width_per_group with depth 50 or 101, whose blocks "
                f"are bottlenecks, got {groups=} and {width_per_group=} with {depth=}"
            )
        super().__init__(
            BasicBlock if basic else Bottleneck,
            BLOCKS[depth],
            num_classes=classes,
            in_chans=in_channels,
            channels=tuple(round(channels * widen) for channels in STAGES),
            cardinality=groups,
            base_width=width_per_group,
            zero_init_last=False,
        )
        for block in self.modules():
            if isinstance(block, Bottleneck):
                block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


class MobileNet(timm.models.EfficientNet):  # type: ignore[misc]  # timm is not typed
    """MobileNetV1 (arXiv 1704.04861) of CBAM's Table 5, with floor(alpha · channels) channels.

    Shapes: x is (N, in_channels, H, W); the logits are (N, classes).

    Args:
        alpha: factor on all channels, those of the stem as well.
        classes: number of classes.
        in_channels: channels of x.

    Raises:
        ValueError: an argument is not what was expected.

    >>> MobileNet(0.7).num_features
    716
    """

    def __init__(self, alpha: float = 1.0, *, classes: int = 1000, in_channels: int = 3) -> None:
        _check_factor("MobileNet", "alpha", alpha)
        for name, value in {"classes": classes, "in_channels": in_channels}.items():
            check_positive("MobileNet", name, value)

        def scaled(channels: int) -> int:
            return int(channels * alpha)

        super().__init__(
            decode_arch_def(list(MOBILENET)),
            num_classes=classes,
            in_chans=in_channels,
            num_features=0,  # no convolution between the last block and the classifier
            stem_size=32,
            round_chs_fn=scaled,
        )


def _check_factor(owner: str, name: str, value: float) -> None:
    if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
        raise ValueError(f"{owner}: expected a finite {name} > 0, got {value!r}")
