"""What networks cost: for a study's variants, and for ``whatwhere cost``, which needs no data."""

from collections.abc import Mapping, Sequence
from itertools import product
from statistics import median
from typing import Any

import torch
from rich import box
from rich.table import Table
from scipy.stats import quantile_test
from torch import nn

from whatwhere import cost
from whatwhere.checks import check_positive
from whatwhere.study.backbones import Backbone
from whatwhere.study.build import build_network
from whatwhere.study.settings import BASELINE, StudyError, Variant
from whatwhere.surgery import attached

Row = dict[str, Any]


def measured_costs(
    networks: Mapping[str, nn.Module], x: torch.Tensor, *, seconds: float = 10.0
) -> dict[str, Row]:
    """Parameters, MACs of one sample, memory; latency of x, interleaved, relative to the first.

    Raises:
        StudyError: a network can't train on x.
    """
    times = cost.latencies(networks, x, seconds=seconds)
    return {
        name: {
            "parameters": cost.parameters(network),
            "macs": cost.macs(network, x[:1]),
            "latency_ms": _median(times[name].milliseconds),
            "latency_ratio": _median(times[name].ratios),
            "training_memory_mb": _training_memory(network, x) / 2**20,
        }
        for name, network in networks.items()
    }


def costs(
    backbones: Sequence[str],
    variants: Sequence[Variant],
    *,
    shape: Sequence[int] = (3, 224, 224),
    batch: int = 8,
    classes: int = 1000,
    where: str = "auto",
    seconds: float = 10.0,
) -> list[Row]:
    """Every backbone with every variant: where the gates are, and ``measured_costs``.

    Args:
        backbones: names, as of ``Backbone``.
        variants: of ``parse_variants``.
        shape: of one sample: channels, then positions.
        batch: samples in a forward pass and in a training step.
        classes: number of classes.
        where: places of the gates, as in ``StudySettings``.
        seconds: for timing all networks together.

    Returns:
        Rows in that order; latency is relative to the first.

    Raises:
        ValueError: an argument is bad, or a network can't be built or gated.

    >>> (row,) = costs(["small"], [Variant("none", "baseline")], shape=(1, 20, 20), seconds=0)
    >>> row["network"], row["attention"], row["sites"], row["parameters"]
    ('small', 'none', 0, 142104)
    """
    if not 2 <= len(shape) <= 4:
        raise StudyError(
            f"expected the shape of one sample, channels and 1 to 3 position axes, got {shape}"
        )
    for name, value in {"batch": batch, "classes": classes}.items():
        check_positive("cost", name, value)
    if len(set(backbones)) != len(backbones):
        raise StudyError(f"expected different networks, got {', '.join(backbones)}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, *shape, generator=generator).to(device)
    rows, networks = {}, {}
    for name, variant in product(backbones, variants):
        backbone = Backbone(name, classes=classes, in_channels=shape[0], ndim=len(shape) - 1)
        network = build_network(backbone, variant, where=where, start="paper", shape=shape, seed=0)
        key = f"{name} {variant.name}"
        networks[key] = network.to(device)
        sites = len(attached(network))
        rows[key] = {"network": name, "attention": variant.name, "sites": sites}
    found = measured_costs(networks, x, seconds=seconds)
    return [{**row, **found[key]} for key, row in rows.items()]


def cost_table(rows: Sequence[Row], *, title: str) -> Table:
    """The rows for a terminal; below each amount, how much more than the network without gates."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="",
        box=box.SIMPLE,
        pad_edge=False,
    )
    table.add_column("network", overflow="fold", min_width=20)
    for heading in ("sites", "parameters", "MACs", "forward pass", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    plain: Row = {}
    for row in rows:
        gated = row["attention"] != BASELINE
        plain = plain if gated else row
        table.add_row(
            f"+ {row['attention']}" if gated else row["network"],
            str(row["sites"]),
            f"{row['parameters']:,}{_more(row, plain, 'parameters')}",
            f"{_scaled(row['macs'])}{_more(row, plain, 'macs')}",
            f"{row['latency_ms']['median']:.1f} ms{_ratio(row, rows[0])}",
            f"{row['training_memory_mb']:.1f} MB{_more(row, plain, 'training_memory_mb')}",
        )
    return table


def parse_shape(text: str) -> tuple[int, ...]:
    """Channels and positions of one sample.

    Raises:
        StudyError: it is not sizes with an x between them.

    >>> parse_shape("3x224x224")
    (3, 224, 224)
    """
    sizes = text.split("x")
    if not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise StudyError(f"expected a shape as in 3x224x224, got {text!r}")
    return tuple(int(size) for size in sizes)


def _more(row: Row, plain: Row, key: str) -> str:
    return "" if row is plain else f"\n+{100 * (row[key] / plain[key] - 1):.2f}%"


def _ratio(row: Row, first: Row) -> str:
    ratio = row["latency_ratio"]
    if row is first:
        return ""
    return f"\n×{ratio['median']:.2f}\n{ratio['low']:.2f} to {ratio['high']:.2f}"


def _scaled(macs: int) -> str:
    return f"{macs / 1e9:.3f} G" if macs >= 1e8 else f"{macs / 1e6:.3f} M"


def _training_memory(network: nn.Module, x: torch.Tensor) -> int:
    try:
        return cost.training_memory(network, x)
    except ValueError as error:  # a batch norm that sees one value per channel
        raise StudyError(
            f"the network can't train on batches of {len(x)} samples: {error}; a larger "
            "batch or larger samples may help"
        ) from error


def _median(values: Sequence[float]) -> dict[str, float]:
    """The median with its 95% interval, which more rounds make narrower."""
    interval = quantile_test(values, p=0.5).confidence_interval(confidence_level=0.95)
    return {"median": median(values), "low": float(interval.low), "high": float(interval.high)}
