"""The command ``whatwhere cost``."""

from pathlib import Path
from typing import Annotated

import typer


def cost(
    networks: Annotated[
        list[str],
        typer.Argument(help="as compare's --backbone: resnet50, paper/resnet50-cbam, small, ..."),
    ],
    attention: Annotated[
        str, typer.Option(help="as compare's --variants, comma-separated; none comes first")
    ] = "none,se,cbam",
    shape: Annotated[str, typer.Option(help="of one sample")] = "3x224x224",
    batch: Annotated[int, typer.Option(help="samples at a time, for latency and memory")] = 8,
    classes: Annotated[int, typer.Option()] = 1000,
    where: Annotated[str, typer.Option(help="as of compare")] = "auto",
    seconds: Annotated[float, typer.Option(help="of timing, all networks together")] = 10.0,
    json: Annotated[Path | None, typer.Option(help="a file to write the rows to as well")] = None,
) -> None:
    """What attention costs: parameters, multiply-accumulates, measured latency and memory.

    Multiply-accumulates are those of one sample. The forward pass is timed interleaved, and
    relative to the first network, with a 95% interval; memory is what a training step keeps.
    """
    from whatwhere.study.settings import parse_variants

    variants = parse_variants(attention.split(","))
    from rich.console import Console  # heavy, and what follows: only when all is well

    from whatwhere.files import write_json
    from whatwhere.study.costs import cost_table, costs, parse_shape

    rows = costs(
        networks,
        variants,
        shape=parse_shape(shape),
        batch=batch,
        classes=classes,
        where=where,
        seconds=seconds,
    )
    Console().print(cost_table(rows, title=f"{batch} samples of {shape}"))
    if json is not None:
        write_json(json, rows)
