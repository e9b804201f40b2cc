"""What each code base calls CBAM: the names of its weights, and what its function has.

Sources, with what is read from them: see ``DIALECTS``. A dialect may have several spellings: the
same function under other names.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, get_args

from whatwhere.gates import DIALECTS as OPTIONS
from whatwhere.gates import Dialect

FLAGS = ("linear", "network_bias", "conv_bias")


@dataclass(frozen=True)
class Spelling:
    """Names, relative to the module, of the layers of one CBAM, and what these layers have.

    Args:
        reduce: the first layer of the shared network.
        expand: the second.
        conv: the convolution of the spatial part.
        norm: the batch norm after it; None where there is none.
        linear: whether the network is of ``nn.Linear``, not of 1×1 convolutions.
        network_bias: whether its layers have biases.
        conv_bias: whether the convolution has one.
    """

    reduce: str
    expand: str
    conv: str
    norm: str | None = None
    linear: bool = False
    network_bias: bool = False
    conv_bias: bool = False

    @property
    def name(self) -> str:
        """What tells it from the dialect's other spellings."""
        return " ".join((self.reduce, self.conv, *(each for each in FLAGS if getattr(self, each))))

    def having(self, flags: Mapping[str, bool]) -> "Spelling":
        """The same names, of layers that have or have not what some of ``FLAGS`` say."""
        changes: dict[str, Any] = dict(flags)
        return replace(self, **changes)


@dataclass(frozen=True)
class CbamDialect:
    """One published function named CBAM.

    Args:
        spellings: its names; the first is what is written if nothing else is asked for.
        source: where it was read.
        varies: what copies of it have or have not: some of ``FLAGS``.
        max_first: whether the convolution's inputs are [max, mean], not [mean, max].
        momentum: of the norm after the convolution; None for no norm.
        residual: whether x is added to the result.
        sizes: the kernel sizes its code can build; empty for all odd ones.
        any_width: whether the hidden width is an argument, not only the reduction ratio.
        holder: what its networks call the module within a block; "" where the block itself holds
            the two parts.
    """

    spellings: tuple[Spelling, ...]
    source: str
    varies: tuple[str, ...] = ()
    max_first: bool = False
    momentum: float | None = None
    residual: bool = False
    sizes: tuple[int, ...] = ()
    any_width: bool = False
    holder: str = "cbam"

    def spelling(self, name: str) -> Spelling:
        """The spelling of a name.

        Raises:
            ValueError: it has none of that name.
        """
        words = name.split()
        for each in self.spellings:
            variant = each.having({flag: flag in words for flag in self.varies})
            if variant.name == name:
                return variant
        known = ", ".join(repr(each.name) for each in self.spellings[:4])
        raise ValueError(
            f"convert: expected a spelling such as {known}"
            + (f", with or without {', '.join(self.varies)}" if self.varies else "")
            + f"; got {name!r}"
        )


def _tutorials() -> Iterator[Spelling]:
    """Two classes, channel and spatial, under the names that tutorials and copies give them."""
    parts = [
        ("ca", "sa"),
        ("channel", "spatial"),
        ("channel_attention", "spatial_attention"),
        ("channelattention", "spatialattention"),
        ("ChannelAttention", "SpatialAttention"),
        ("channel_att", "spatial_att"),
    ]
    networks = [
        ("fc.0", "fc.2"),
        ("sharedMLP.0", "sharedMLP.2"),
        ("shared_MLP.0", "shared_MLP.2"),
        ("shared_mlp.0", "shared_mlp.2"),
        ("mlp.0", "mlp.2"),
        ("fc1", "fc2"),
        ("f1", "f2"),
    ]
    convs = ("conv1", "conv", "conv2d")
    for (channel, spatial), (reduce, expand), conv in product(parts, networks, convs):
        yield Spelling(f"{channel}.{reduce}", f"{channel}.{expand}", f"{spatial}.{conv}")


DIALECTS: dict[Dialect, CbamDialect] = {
    "paper": CbamDialect(
        spellings=tuple(_tutorials()),
        source="luuuyi/CBAM.PyTorch@1851f2a and what was made of it",
        varies=FLAGS,
        holder="",
    ),
    "official": CbamDialect(
        spellings=(
            Spelling(
                "ChannelGate.mlp.1",
                "ChannelGate.mlp.3",
                "SpatialGate.spatial.conv",
                "SpatialGate.spatial.bn",
                linear=True,
                network_bias=True,
            ),
        ),
        source="Jongchan/attention-module@459efad",
        max_first=True,
        momentum=0.01,
        sizes=(7,),
    ),
    "timm": CbamDialect(
        spellings=(Spelling("channel.fc1", "channel.fc2", "spatial.conv.conv", "spatial.conv.bn"),),
        source="timm.layers.CbamModule of timm 1.0",
        varies=("network_bias",),
        momentum=0.1,
        any_width=True,
        holder="se",
    ),
    "pytorchcv": CbamDialect(
        spellings=(
            Spelling(
                "ch_gate.mlp.fc1",
                "ch_gate.mlp.fc2",
                "sp_gate.conv.conv",
                "sp_gate.conv.bn",
                linear=True,
                network_bias=True,
            ),
        ),
        source="osmr/pytorchcv@08805dd",
        max_first=True,
        momentum=0.1,
        sizes=(7,),
    ),
    "mmyolo": CbamDialect(
        spellings=(
            Spelling(
                "channel_attention.fc.0.conv",
                "channel_attention.fc.1.conv",
                "spatial_attention.conv.conv",
                network_bias=True,
                conv_bias=True,
            ),
        ),
        source="open-mmlab/mmyolo@2021152",
    ),
    "external": CbamDialect(
        spellings=(Spelling("ca.se.0", "ca.se.2", "sa.conv", conv_bias=True),),
        source="xmu-xiaoma666/External-Attention-pytorch@8f69516",
        max_first=True,
        residual=True,
    ),
}


def our_spelling(dialect: Dialect) -> Spelling:
    """The names of ``whatwhere.CBAM`` and, by its dialect, what its layers have."""
    parts = OPTIONS[dialect]
    return Spelling(
        "gates.channel.mix.reduce",
        "gates.channel.mix.expand",
        "gates.spatial.mix.conv",
        "gates.spatial.mix.norm" if "norm_momentum" in parts["spatial"] else None,
        linear=True,
        network_bias=parts["channel"].get("bias", False),
        conv_bias=parts["spatial"].get("bias", False),
    )


# A module that is named CBAM and is none: what to find it by, and why no dialect can hold it.
ULTRALYTICS = "ultralytics"
ULTRALYTICS_KEY = "channel_attention.fc.weight"
ULTRALYTICS_REASON = (
    "the channel part of ultralytics' CBAM is one layer on the mean alone, σ(W mean + b), where a "
    "CBAM has two layers on the mean and on the maximum; neither computes what the other does"
)
OURS: Literal["whatwhere"] = "whatwhere"
CodeBase = Literal["whatwhere", "paper", "official", "timm", "pytorchcv", "mmyolo", "external"]
CODE_BASES: tuple[CodeBase, ...] = get_args(CodeBase)
