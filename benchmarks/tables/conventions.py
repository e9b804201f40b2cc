"""What the printed digits say of how the authors built and counted their networks."""

from dataclasses import dataclass

import torchvision
from timm.layers import BatchNormAct2d
from torch import nn

from benchmarks.tables.cbam import table_4, table_5
from benchmarks.tables.counted import Count, count, gated, named
from benchmarks.tables.rows import Row, matching
from whatwhere import attend, paper


@dataclass(frozen=True)
class Convention:
    """A way of building, and a row of a table that tells it from another.

    Attributes:
        made: how the networks here are built.
        otherwise: how else they could be.
        row: of the network built so.
        count: of the same network built otherwise.
    """

    made: str
    otherwise: str
    row: Row
    count: Count


def conventions() -> list[Convention]:
    """The ways the digits force, each with what the other way would print."""
    rows = {tuple(row.cells): row for row in (*table_4(), *table_5())}
    return [
        Convention(
            "the two layers of a channel gate have biases",
            "they have none",
            rows["resnet50", "se"],
            gated("resnet50", "channel", statistics=("mean",)),
        ),
        Convention(
            "the mean and the maximum pass them one by one, and both passes count",
            "one pass counts",
            rows["resnet50", "cbam"],
            named("resnet50-se") + gated("resnet50", "spatial") - named("resnet50"),
        ),
        Convention(
            "a bottleneck's stride is on its first 1×1 convolution",
            "it is on the 3×3, as in torchvision and in the authors' code",
            rows["resnet50", "none"],
            count(torchvision.models.resnet50),
        ),
        Convention(
            "the same in ResNeXt",
            "the same",
            rows["resnext50_32x4d", "none"],
            count(torchvision.models.resnext50_32x4d),
        ),
        Convention(
            "a wide ResNet's stem has 64 channels",
            "it is widened too",
            rows["wrn18_1.5", "none"],
            count(_with_wide_stem),
        ),
        Convention(
            "MobileNet has a gate after each of its 27 convolutions with norm and ReLU",
            "it has one after each of its 13 blocks",
            rows["mobilenet_1.0", "cbam"],
            count(_mobilenet_gated_after_blocks),
        ),
        Convention(
            "the SE of MobileNet rounds C/16 to the nearest",
            "it rounds down",
            rows["mobilenet_0.7", "se"],
            count(_mobilenet_rounded_down),
        ),
    ]


def without_biases() -> tuple[int, int]:
    """How many of Table 4's rows with attention match in parameters without biases, and of all."""
    rows = [row for row in table_4() if row.cells[1] != "none"]
    bare = [Row(row.cells, row.parameters, row.macs, _without_biases(*row.cells)) for row in rows]
    return matching(bare, "parameters"), len(rows)


def _without_biases(network: str, attention: str) -> Count:
    if attention == "se":
        return gated(network, "channel", statistics=("mean",))
    # Like the official dialect but for the biases: at these widths rounding makes no difference.
    return gated(network, "cbam", dialect="timm")


def _with_wide_stem() -> nn.Module:
    network = paper.build("wrn18_1.5")
    block = network.layer1[0]
    network.conv1 = nn.Conv2d(3, 96, 7, stride=2, padding=3, bias=False)
    network.bn1 = nn.BatchNorm2d(96)
    block.conv1 = nn.Conv2d(96, 96, 3, padding=1, bias=False)
    block.downsample = None
    return network


def _mobilenet_gated_after_blocks() -> nn.Module:
    def pointwise(name: str, module: nn.Module) -> bool:
        return isinstance(module, BatchNormAct2d) and name.endswith("bn2")

    network = paper.build("mobilenet_1.0")
    attend(network, "cbam", where=pointwise, start="paper", dialect="official")
    return network


def _mobilenet_rounded_down() -> nn.Module:
    def norm(_: str, module: nn.Module) -> bool:
        return isinstance(module, BatchNormAct2d)

    network = paper.build("mobilenet_0.7")
    attend(network, "se", where=norm, start="paper")
    return network
