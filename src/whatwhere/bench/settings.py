"""What is measured: the matrix of shapes, dtypes and layouts, and how long each part takes."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from whatwhere.checks import check_distinct, check_positive

Layout = Literal["contiguous", "channels_last"]
DtypeName = Literal["float32", "bfloat16"]
Peer = Literal["seed", "amax", "timm"]
CompileConfig = Literal["default", "no-layout"]
Section = Literal["rows", "networks", "growth"]
Pass = Literal["forward", "both"]

PEERS: tuple[Peer, ...] = get_args(Peer)
COMPILE_CONFIGS: tuple[CompileConfig, ...] = get_args(CompileConfig)
SECTIONS: tuple[Section, ...] = get_args(Section)
PASSES: tuple[Pass, ...] = get_args(Pass)
DTYPES: tuple[DtypeName, ...] = get_args(DtypeName)

# Cores that other processes may keep busy while a round counts.
QUIET = 0.2

SHAPES: tuple[tuple[int, ...], ...] = (
    (1, 256, 56, 56),
    (8, 256, 56, 56),
    (8, 512, 28, 28),
    (8, 1024, 14, 14),
    (8, 2048, 7, 7),
    (32, 64, 112, 112),
    (2, 64, 16, 56, 56),
    (32, 128, 2048),
)
QUICK_SHAPES: tuple[tuple[int, ...], ...] = ((2, 32, 8, 8), (2, 16, 3, 5, 5), (2, 16, 12))

GROWTH: dict[str, tuple[tuple[int, ...], ...]] = {
    "N": tuple((n, 256, 28, 28) for n in (1, 2, 4, 8, 16, 32, 64)),
    "C": tuple((8, c, 28, 28) for c in (32, 64, 128, 256, 512, 1024, 2048)),
    "side": tuple((8, 64, side, side) for side in (7, 14, 28, 56, 112, 224)),
}
QUICK_GROWTH: dict[str, tuple[tuple[int, ...], ...]] = {
    "N": ((1, 16, 6, 6), (4, 16, 6, 6)),
}


@dataclass(frozen=True)
class Settings:
    """How to measure; part of every record, since numbers under other settings don't compare.

    Attributes:
        peers: which modules of others.
        compiled: under which configurations of torch.compile they are measured besides eager.
        compiled_networks: whether whole networks are measured under torch.compile as well.
        seconds: time for the rounds of one pass of one row; slow rows take longer, since there
            are at least ``least_rounds``.
        least_rounds: rounds of a pass at least.
        most_rounds: rounds of a pass at most.
        threads: of torch; None leaves torch's own number.
    """

    peers: tuple[Peer, ...] = PEERS
    compiled: tuple[CompileConfig, ...] = COMPILE_CONFIGS
    compiled_networks: bool = False
    seconds: float = 10.0
    least_rounds: int = 9
    most_rounds: int = 300
    threads: int | None = None

    def __post_init__(self) -> None:
        for names, values, choices in (
            ("peers", self.peers, PEERS),
            ("compiled", self.compiled, COMPILE_CONFIGS),
        ):
            if values:
                check_distinct("bench", names, values, choices)
        check_positive("bench", "least_rounds", self.least_rounds)
        check_positive("bench", "most_rounds", self.most_rounds)
        if self.threads is not None:
            check_positive("bench", "threads", self.threads)
        if not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise ValueError(f"bench: expected seconds to be 0 or more, got {self.seconds}")
        if self.least_rounds > self.most_rounds:
            raise ValueError(
                f"bench: expected at most as many least_rounds as most_rounds, got "
                f"{self.least_rounds} and {self.most_rounds}"
            )

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-able values."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }


@dataclass(frozen=True)
class Row:
    """One x: its shape, dtype and memory layout.

    >>> Row((2, 64, 7, 7), "float32", "channels_last").name
    '2x64x7x7-float32-channels_last'
    """

    shape: tuple[int, ...]
    dtype: DtypeName
    layout: Layout

    @property
    def name(self) -> str:
        """Of its record."""
        return f"{'x'.join(map(str, self.shape))}-{self.dtype}-{self.layout}"


@dataclass(frozen=True)
class NetworkCase:
    """A network of torchvision with a batch of square images."""

    network: str
    batch: int
    side: int

    @property
    def name(self) -> str:
        """Of its record."""
        return f"{self.network}-batch{self.batch}-side{self.side}"


@dataclass(frozen=True)
class GrowthCase:
    """Shapes that differ along one axis alone."""

    axis: str
    shapes: tuple[tuple[int, ...], ...]
    layout: Layout = "contiguous"

    @property
    def name(self) -> str:
        """Of its record."""
        return f"growth-{self.axis}-{self.layout}"


Case = Row | NetworkCase | GrowthCase


@dataclass(frozen=True)
class Plan:
    """The cases to measure, in order, and how."""

    settings: Settings
    cases: tuple[Case, ...] = field(default=())


def make_plan(
    settings: Settings,
    *,
    sections: Sequence[Section] = SECTIONS,
    dtypes: Sequence[DtypeName] = DTYPES,
    shapes: Sequence[tuple[int, ...]] | None = None,
    quick: bool = False,
) -> Plan:
    """The whole matrix, or a small one of the same kinds of rows.

    Args:
        settings: how to measure.
        sections: "rows" (ops), "networks" (end to end), "growth" (time per byte).
        dtypes: of the rows.
        shapes: of the rows, (N, C, L), (N, C, H, W) or (N, C, T, H, W); SHAPES if not given.
        quick: tiny tensors and networks, to see that everything works.

    Raises:
        ValueError: an unknown name, a repeated one, or a shape of another rank.
    """
    check_distinct("bench", "sections", sections, SECTIONS)
    check_distinct("bench", "dtypes", dtypes, DTYPES)
    chosen = (QUICK_SHAPES if quick else SHAPES) if shapes is None else tuple(shapes)
    for shape in chosen:
        if not 3 <= len(shape) <= 5 or min(shape) < 1:
            raise ValueError(f"bench: expected shapes N x C x positions, got {shape}")
    cases: list[Case] = []
    if "rows" in sections:
        cases += [
            Row(shape, dtype, layout)
            for dtype in dtypes
            for shape in chosen
            for layout in get_args(Layout)
            if layout == "contiguous" or len(shape) > 3  # 1-D has no channels_last in torch
        ]
    if "networks" in sections:
        network, side = ("resnet18", 64) if quick else ("resnet50", 224)
        cases += [NetworkCase(network, batch, side) for batch in ((2,) if quick else (1, 8))]
    if "growth" in sections:
        axes = QUICK_GROWTH if quick else GROWTH
        cases += [GrowthCase(axis, grown) for axis, grown in axes.items()]
    return Plan(settings, tuple(cases))


def parse_plan(
    *,
    sections: str,
    shapes: str | None,
    dtypes: str,
    peers: str,
    compiled: str | None,
    compiled_networks: bool,
    seconds: float | None,
    rounds: int | None,
    threads: int | None,
    quick: bool,
) -> Plan:
    """The plan of a command line, whose lists are joined by ",".

    Raises:
        ValueError: as ``make_plan`` and ``Settings``; both seconds and rounds are given.
    """
    if seconds is not None and rounds is not None:
        raise ValueError(
            f"bench: expected seconds or rounds, not both, got {seconds=} and {rounds=}"
        )
    configs: Any = () if quick else COMPILE_CONFIGS
    own = Settings()
    settings = Settings(
        peers=_parts(peers),
        compiled=configs if compiled is None else _parts(compiled),
        compiled_networks=compiled_networks,
        seconds=(0.2 if quick else own.seconds) if seconds is None else seconds,
        least_rounds=own.least_rounds if rounds is None else rounds,
        most_rounds=own.most_rounds if rounds is None else rounds,
        threads=threads,
    )
    return make_plan(
        settings,
        sections=_parts(sections),
        dtypes=_parts(dtypes),
        shapes=None if shapes is None else [parse_shape(part) for part in shapes.split(",")],
        quick=quick,
    )


def parse_shape(text: str) -> tuple[int, ...]:
    """Sizes joined by "x".

    >>> parse_shape("8x256x56x56")
    (8, 256, 56, 56)
    """
    try:
        return tuple(int(part) for part in text.split("x"))
    except ValueError as error:
        raise ValueError(f"bench: expected a shape as in 8x256x56x56, got {text!r}") from error


def _parts(text: str) -> Any:
    # The names are checked where they are used.
    return () if text == "none" else tuple(text.split(","))
