"""Sizes that other papers, and code of theirs and about them, print for their attention."""

from dataclasses import dataclass

from benchmarks.tables.counted import named
from benchmarks.tables.rows import as_printed

MEBI = 2**20  # ECA's millions


@dataclass(frozen=True)
class Figure:
    """One printed number.

    Attributes:
        source: who prints it.
        network: of ``whatwhere.paper``.
        what: parameters, or multiply-accumulates.
        printed: as printed.
        unit: of the printed number.
        value: the same of our network, exact.
    """

    source: str
    network: str
    what: str
    printed: str
    unit: float
    value: int

    def matches(self) -> bool:
        """Whether ours, rounded to as many digits, is what is printed."""
        return as_printed(self.value / self.unit, like=self.printed) == self.printed


def others() -> list[Figure]:
    """Every figure found in print or in the authors' code."""
    figures = []
    insight = "implus/PytorchInsight@2864528, README"
    for network, printed in {"resnet50-bam": "25.92", "resnet101-bam": "44.91"}.items():
        figures.append(_parameters(insight, network, printed))
    eca = "BangguWu/ECANet@b332f6b, README, in 2²⁰"
    for depth, printed in {18: "11.15", 34: "20.79", 50: "24.37", 101: "42.49"}.items():
        figures.append(_parameters(eca, f"resnet{depth}-eca", printed, unit=MEBI))
    figures += [
        _added("BangguWu/ECANet@b332f6b, README", "resnet50-eca", "80", unit=1),
        _added("GCNet, arXiv 1904.11492", "resnet50-gc", "2.52"),
        Figure(
            "GCNet, arXiv 1904.11492",
            "resnet50-gc",
            "multiply-accumulates",
            "3.87",
            1e9,
            named("resnet50-gc").macs,
        ),
        _parameters("Shuffle attention, arXiv 2102.00240", "resnet50-shuffle", "25.56"),
        _parameters("Triplet attention, arXiv 2010.03045", "resnet50-triplet", "25.56"),
    ]
    return figures


def _parameters(source: str, network: str, printed: str, *, unit: float = 1e6) -> Figure:
    return Figure(source, network, "parameters", printed, unit, named(network).parameters)


def _added(source: str, network: str, printed: str, *, unit: float = 1e6) -> Figure:
    plain = named(network.partition("-")[0])
    added = (named(network) - plain).parameters
    return Figure(source, network, "parameters added", printed, unit, added)
