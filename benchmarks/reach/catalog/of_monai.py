"""MONAI's networks, most of them in 3-D, some in 1-D and 2-D."""

from collections.abc import Callable, Iterator
from typing import Any

from monai.networks import nets

from benchmarks.reach.catalog.entry import Entry, volume

THICK = (8, 8, 16, 16, 32, 8)


def entries() -> Iterator[Entry]:
    """The networks, in the order of the table."""
    for axes in (1, 2, 3):
        yield _entry(f"UNet, {axes}-D", axes, nets.UNet, axes, 1, 2, (8, 16, 32), (2, 2))
        yield _entry(
            f"UNet with residual units, {axes}-D",
            *(axes, nets.UNet, axes, 1, 2, (8, 16, 32), (2, 2)),
            num_res_units=2,
        )
        ours = {"spatial_dims": axes, "n_input_channels": 1, "num_classes": 2}
        yield _entry(f"resnet18, {axes}-D", axes, nets.resnet18, side=64, **ours)
        yield _entry(f"DenseNet121, {axes}-D", axes, nets.DenseNet121, axes, 1, 2, side=64)
    options: dict[str, Any] = {"spatial_dims": 3, "in_channels": 1, "num_classes": 2}
    yield _entry("SEResNet50, 3-D", 3, nets.SEResNet50, side=64, **options)
    efficient = {**options, "pretrained": False}
    name = "EfficientNetBN, 3-D"
    yield _entry(name, 3, nets.EfficientNetBN, "efficientnet-b0", side=64, **efficient)
    yield _entry("BasicUNet, 3-D", 3, nets.BasicUNet, 3, 1, 2, THICK)
    yield _entry("BasicUNetPlusPlus, 3-D", 3, nets.BasicUNetPlusPlus, 3, 1, 2, THICK)
    yield _entry("AttentionUnet, 3-D", 3, nets.AttentionUnet, 3, 1, 2, (8, 16, 32), (2, 2))
    yield _entry("SegResNet, 3-D", 3, nets.SegResNet, 3)
    yield _entry("SegResNetDS, 3-D", 3, nets.SegResNetDS, 3)
    sizes = (3, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2])
    yield _entry("DynUNet, 3-D", 3, nets.DynUNet, *sizes)
    yield _entry("DynUNet with residual blocks, 3-D", 3, nets.DynUNet, *sizes, res_block=True)
    yield _entry("VNet, 3-D", 3, nets.VNet, 3, 1, 2)
    yield _entry("HighResNet, 3-D", 3, nets.HighResNet, 3, 1, 2)
    yield _entry("AutoEncoder, 3-D", 3, nets.AutoEncoder, 3, 1, 1, (8, 16), (2, 2))


def _entry(
    name: str, axes: int, kind: Callable[..., Any], *options: Any, side: int = 32, **named: Any
) -> Entry:
    return Entry(name, lambda: kind(*options, **named), volume(*(side,) * axes, channels=1))
