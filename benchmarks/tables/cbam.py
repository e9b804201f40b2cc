"""Tables 1, 2, 4 and 5 of CBAM (arXiv 1807.06521v2), printed sizes beside counts."""

from torch import nn

from benchmarks.tables.counted import Count, after_blocks, gated, named
from benchmarks.tables.rows import Row

# network: parameters in millions and GFLOPs of the plain network, with SE, and with CBAM.
TABLE_4 = {
    "resnet18": ("11.69 1.814", "11.78 1.814", "11.78 1.815"),
    "resnet34": ("21.80 3.664", "21.96 3.664", "21.96 3.665"),
    "resnet50": ("25.56 3.858", "28.09 3.860", "28.09 3.864"),
    "resnet101": ("44.55 7.570", "49.33 7.575", "49.33 7.581"),
    "wrn18_1.5": ("25.88 3.866", "26.07 3.867", "26.08 3.868"),
    "wrn18_2.0": ("45.62 6.696", "45.97 6.696", "45.97 6.697"),
    "resnext50_32x4d": ("25.03 3.768", "27.56 3.771", "27.56 3.774"),
    "resnext101_32x4d": ("44.18 7.508", "48.96 7.512", "48.96 7.519"),
}
TABLE_5 = {
    "mobilenet_0.7": ("2.30 0.283", "2.71 0.283", "2.71 0.289"),
    "mobilenet_1.0": ("4.23 0.569", "5.07 0.570", "5.07 0.576"),
}
ATTENTIONS = ("none", "se", "cbam")


def table_4() -> list[Row]:
    """ImageNet classification: eight networks, each plain, with SE and with CBAM."""
    return _by_network(TABLE_4)


def table_5() -> list[Row]:
    """The same of MobileNetV1."""
    return _by_network(TABLE_5)


def table_2() -> list[Row]:
    """Spatial attention after channel attention, in ResNet-50."""
    both = gated("resnet50", "channel", bias=True)
    return [
        Row(("channel, mean (SE)",), "28.09", "3.860", named("resnet50-se")),
        Row(("channel, mean and max",), "28.09", "3.860", both),
        Row(("+ 1×1 convolution, k = 3",), "28.10", "3.862", both + _reduced(3)),
        Row(("+ 1×1 convolution, k = 7",), "28.10", "3.869", both + _reduced(7)),
        Row(("+ mean and max, k = 3",), "28.09", "3.863", _cbam(3)),
        Row(("+ mean and max, k = 7",), "28.09", "3.864", _cbam(7)),
    ]


def table_1() -> list[Row]:
    """What the channel gate pools, in ResNet-50."""
    largest = gated("resnet50", "channel", bias=True, statistics=("max",))
    both = gated("resnet50", "channel", bias=True)
    return [
        Row(("ResNet-50",), "25.56", "3.86", named("resnet50")),
        Row(("mean (SE)",), "25.92", "3.94", named("resnet50-se")),
        Row(("max",), "25.92", "3.94", largest),
        Row(("mean and max",), "25.92", "4.02", both),
    ]


def _by_network(table: dict[str, tuple[str, str, str]]) -> list[Row]:
    rows = []
    for network, printed in table.items():
        for attention, text in zip(ATTENTIONS, printed, strict=True):
            name = network if attention == "none" else f"{network}-{attention}"
            parameters, macs = text.split()
            rows.append(Row((network, attention), parameters, macs, named(name)))
    return rows


def _cbam(kernel_size: int) -> Count:
    return gated("resnet50", "cbam", dialect="official", kernel_size=kernel_size)


def _reduced(kernel_size: int) -> Count:
    """A spatial gate whose descriptor is a learned 1×1 convolution: layers alone, to be counted."""
    padding = kernel_size // 2
    return after_blocks(
        "resnet50",
        lambda channels: nn.Sequential(
            nn.Conv2d(channels, 1, 1), nn.Conv2d(1, 1, kernel_size, padding=padding)
        ),
    )
