"""Which gate, with which options, at which places: the attention of published networks.

Options follow the authors' code, so that parameters and multiply-accumulates are those printed:
two layers with biases in SE and CBAM, a convolution without bias and then a batch norm in CBAM,
norms after all layers but the last in BAM.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from timm.layers import BatchNormAct2d
from torch import nn

from whatwhere.surgery import Report, Site, attend, sites

Place = Literal["blocks", "blocks after stage 1", "stages 1 to 3"]


@dataclass(frozen=True)
class Attention:
    """A gate of a paper's ResNets, and where it goes.

    "blocks" is the end of every residual branch, after its last norm and before the addition.
    """

    gate: str
    options: Mapping[str, Any] = field(default_factory=dict)
    place: Place = "blocks"


RESNET: Mapping[str, Attention] = {
    "se": Attention("se"),  # arXiv 1709.01507
    "cbam": Attention("cbam", {"dialect": "official"}),  # arXiv 1807.06521
    "bam": Attention("bam", {"dialect": "official"}, "stages 1 to 3"),  # arXiv 1807.06514
    "eca": Attention("eca"),  # arXiv 1910.03151; kernels below
    "gc": Attention("gc", {"reduction_ratio": 16}, "blocks after stage 1"),  # arXiv 1904.11492
    "shuffle": Attention("shuffle", {"groups": 64}),  # arXiv 2102.00240
    "triplet": Attention("triplet", {"kernel_size": 7}),  # arXiv 2010.03045
}
# Of the four stages: BangguWu/ECANet@b332f6b gives each network its own.
ECA_KERNELS: Mapping[int, tuple[int, int, int, int]] = {
    18: (3, 5, 7, 7),
    34: (3, 3, 5, 7),
    50: (3, 5, 5, 7),
    101: (3, 3, 5, 7),
}
# After each convolution, its norm and its ReLU. C/r is rounded in SE: at 0.7 the printed digits
# say so; CBAM's allow either, and its authors' code cuts off.
MOBILENET: Mapping[str, Attention] = {
    "se": Attention("channel", {"statistics": ("mean",), "bias": True, "rounding": "nearest"}),
    "cbam": Attention("cbam", {"dialect": "official"}),
}


def attend_resnet(network: nn.Module, attention: str, depth: int) -> Report:
    """Put a paper's attention into its ResNet, as published.

    Raises:
        ValueError: the gate can't be built for the network's channels.
    """
    chosen = RESNET[attention]
    options = dict(chosen.options)
    if attention == "eca":
        options["kernel_size"] = lambda site: ECA_KERNELS[depth][_stage(site) - 1]
    where: str | Sequence[str] | Sequence[Site] = "blocks"
    if chosen.place == "stages 1 to 3":
        where = ["layer1", "layer2", "layer3"]
    elif chosen.place == "blocks after stage 1":
        where = [site for site in sites(network, kind="blocks") if _stage(site) > 1]
    return attend(network, chosen.gate, where=where, start="paper", **options)


def attend_mobilenet(network: nn.Module, attention: str) -> Report:
    """Put SE or CBAM into MobileNet as CBAM's Table 5 counts them: at 27 places.

    Raises:
        ValueError: the gate can't be built for the network's channels.
    """
    chosen = MOBILENET[attention]
    where = [name for name, each in network.named_modules() if isinstance(each, BatchNormAct2d)]
    return attend(network, chosen.gate, where=where, start="paper", **chosen.options)


def _stage(site: Site) -> int:
    return int(site.name.removeprefix("layer").partition(".")[0])
