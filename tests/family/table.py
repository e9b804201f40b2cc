"""Every gate of the library beside an independent statement of it: the rows of the family's tests.

A row says: ``build(name, channels, ndim=..., **options)`` is the function ``theirs(channels)``.
The statements are those of this folder, and the modules of torchvision and timm that are right.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from timm.layers.cbam import CbamModule
from timm.layers.eca import CecaModule, EcaModule
from timm.layers.gather_excite import GatherExcite as TimmGatherExcite
from timm.layers.squeeze_excite import EffectiveSEModule, SEModule
from torch import nn
from torchvision.ops import SqueezeExcitation

from tests.family import channel, clips, planes, spatial
from whatwhere import build

# 64 channels: with fewer, networks of C / 16 hidden units have none that is alive in some samples.
LINE, IMAGE, CLIP = (3, 64, 9), (3, 64, 7, 6), (3, 64, 8, 5, 4)
SQUARE = (3, 64, 7, 7)


@dataclass(frozen=True)
class Case:
    """One row: ours by name and options, theirs by a constructor, and the shape of x.

    step_tolerance: of a training step in float64.
    """

    name: str
    theirs: Callable[[int], nn.Module]
    options: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = IMAGE
    step_tolerance: float = 1e-10

    def ours(self, **more: Any) -> nn.Module:
        """The library's gate."""
        return build(self.name, self.shape[1], ndim=len(self.shape) - 2, **{**self.options, **more})

    def __str__(self) -> str:
        """The test's id."""
        constructor = self.theirs
        while isinstance(constructor, partial):
            constructor = constructor.func
        words = [f"{name}={value}" for name, value in self.options.items()]
        return " ".join([self.name, *words, f"{len(self.shape) - 2}d", constructor.__name__])


def in_every_rank(name, theirs, shapes=(LINE, IMAGE, CLIP), ranked=False, **options):
    """Rows of one gate for sequences, images and clips; a ranked statement is told which."""
    for shape in shapes:
        statement = partial(theirs, ndim=len(shape) - 2) if ranked else theirs
        yield Case(name, statement, options, shape)


def torchvision_se(channels):
    return SqueezeExcitation(channels, channel.hidden_units(channels, 16))


def timm_eca(channels, *, kernel_size, circular=False):
    # Given channels too, timm's modules put their formula in the place of the kernel size.
    return (CecaModule if circular else EcaModule)(kernel_size=kernel_size)


def timm_gather_excite(channels, *, extent):
    return TimmGatherExcite(channels, extent=extent, use_mlp=False)


CHANNEL = [
    *in_every_rank("se", channel.SE),
    Case("channel", partial(channel.SE, bias=False), {"statistics": ("mean",)}),
    Case("se", partial(channel.SE, reduction_ratio=4), {"reduction_ratio": 4}),
    Case("se", torchvision_se),
    Case("se", partial(SEModule, rd_channels=4)),
    *in_every_rank("cse", partial(channel.SE, reduction_ratio=2)),
    *in_every_rank("ese", channel.ESE),
    # torch's hardsigmoid, in its backward pass, has 1/6 in float32 whatever the dtype.
    Case("ese", EffectiveSEModule, step_tolerance=1e-6),
    *in_every_rank("eca", channel.ECA),
    Case("eca", partial(channel.ECA, kernel_size=5), {"kernel_size": 5}),
    Case("eca", channel.ECA, shape=(2, 256, 3, 2)),
    Case("eca", partial(timm_eca, kernel_size=5), {"kernel_size": 5}),
    Case("eca", EcaModule),
    *in_every_rank("ceca", partial(channel.ECA, circular=True)),
    Case("ceca", partial(channel.ECA, kernel_size=5, circular=True), {"kernel_size": 5}),
    Case("ceca", partial(timm_eca, kernel_size=5, circular=True), {"kernel_size": 5}),
    *in_every_rank("ge", channel.GatherExcite),
    *in_every_rank("ge", partial(channel.GatherExcite, extent=2), extent=2),
    Case("ge", partial(channel.GatherExcite, extent=4), {"extent": 4}),
    Case("ge", partial(timm_gather_excite, extent=0)),
    Case("ge", partial(timm_gather_excite, extent=2), {"extent": 2}),
    Case(
        "ge_theta",
        partial(channel.GatherExciteTheta, resolution=(7, 6)),
        {"resolution": (7, 6)},
    ),
    Case(
        "ge_theta_plus",
        partial(channel.GatherExciteTheta, resolution=(7, 6), plus=True),
        {"resolution": (7, 6)},
    ),
    *in_every_rank("srm", channel.SRM),
    *in_every_rank("gct", channel.GCT),
    Case("fca", channel.Fca),
    Case("fca", channel.Fca, shape=SQUARE),
    Case("fca", partial(channel.Fca, size=14), {"size": 14}, (2, 64, 14, 14)),
    Case("fca", partial(channel.Fca, frequencies=4), {"frequencies": 4}),
    *in_every_rank("gc", channel.GlobalContext),
    Case("gc", partial(channel.GlobalContext, fusion="multiply"), {"fusion": "multiply"}),
]

CBAM_ORDERS = ("channel-spatial", "spatial-channel", "channel+spatial")
POSITION = [
    *(
        case
        for order in CBAM_ORDERS
        for case in in_every_rank(
            "cbam", partial(planes.CBAM, order=order), ranked=True, order=order
        )
    ),
    *in_every_rank("cbam", partial(planes.CBAM, official=True), ranked=True, dialect="official"),
    Case("cbam", CbamModule, {"dialect": "timm"}),
    Case("bam", planes.PaperBAM, {"dialect": "paper"}),
    Case("bam", planes.BAM, {"dialect": "official"}),
    *in_every_rank("sse", spatial.SSE),
    *in_every_rank("scse", spatial.SCSE, join="max"),
    Case("scse", partial(spatial.SCSE, join="sum"), {"join": "sum"}),
    *in_every_rank("simam", spatial.SimAM),
    *in_every_rank("coordinate", spatial.Coordinate, ranked=True),
    *in_every_rank("ela", spatial.ELA),
    Case("triplet", planes.Triplet),
    *in_every_rank("sge", partial(spatial.SGE, groups=4), groups=4),
    Case("sge", spatial.SGE),
    *in_every_rank("shuffle", partial(spatial.Shuffle, groups=4), groups=4),
    Case("shuffle", spatial.Shuffle),
    Case("shuffle", partial(spatial.Shuffle, shuffle=False), {"shuffle": False}),
    Case("lka", spatial.LKA),
    *(
        Case("lska", partial(spatial.LSKA, kernel_size=size), {"kernel_size": size})
        for size in spatial.LSKA.SIZES
    ),
    Case("ema", spatial.EMA),
    Case("ema", partial(spatial.EMA, groups=4), {"groups": 4}),
]

AIA_ORDERS = ("C-ST", "ST-C", "C+ST", "CinST", "STinC", "C", "ST")
CLIPS = [
    Case("ma", partial(clips.MultiDimensional, frames=8, rectify=False), {"frames": 8}, CLIP),
    *(Case("aia", partial(clips.AIA, order=order), {"order": order}, CLIP) for order in AIA_ORDERS),
    Case("group_context", clips.GroupContext, shape=CLIP),
    Case("project_excite", clips.ProjectExcite, shape=CLIP),
    Case("action", clips.Action, shape=CLIP),
    Case("tea", clips.MotionExcitation, shape=CLIP),
    Case("tam", clips.AdaptiveLocal, shape=CLIP),
    Case("tab", partial(clips.TabAttention, frames=8), {"frames": 8}, CLIP),
]

CASES = [*CHANNEL, *POSITION, *CLIPS]
