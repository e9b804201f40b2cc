"""``python -m benchmarks.gpu``: check the kernels on the GPU that is here, then time, then write.

A check that fails ends the program before anything is timed.
"""

import subprocess
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Annotated

import torch
import triton
import typer

from benchmarks.gpu import correct, gates, training
from benchmarks.gpu.clock import EventClock
from whatwhere import implementation
from whatwhere.bench.machine import commit, versions
from whatwhere.files import write_text
from whatwhere.ops import cuda
from whatwhere.ops.cuda import tiles

RESULTS = Path(__file__).parents[1] / "results"


def page(setup: gates.Setup, count: int) -> Iterator[str]:
    """Line by line, as it is measured."""
    name = torch.cuda.get_device_name(setup.device)
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()[0]
    told = {"driver": driver, "triton": triton.__version__, "cuda": torch.version.cuda}
    told |= versions()
    cache = (tiles.cache_bytes(setup.device) or 0) / 2**20
    yield "# CBAM on a GPU"
    yield ""
    yield f"{name}, {cache:.0f} MiB of last cache; commit {commit()}; " + ", ".join(
        f"{package} {version}" for package, version in told.items()
    )
    yield f"{count} cases right in every output and gradient; the same bits again, and in a graph."
    yield ""
    yield "## A training step"
    yield ""
    yield from training.rows(setup)
    yield ""
    yield "## One CBAM"
    yield ""
    yield "In copies of x, median (quartiles) of the ratio in the same round. A cold cache was"
    yield "overwritten before each call, in a warm one lies what the same call left there."
    yield "`at once` is without chunks of samples, where there are any."
    yield ""
    yield from gates.rows(setup)


def main(
    out: Annotated[Path, typer.Option(help="The folder of the page.")] = RESULTS,
    smallest: Annotated[int, typer.Option(help="The smallest batch that is timed.")] = 1,
    every_kind: Annotated[bool, typer.Option(help="Both dtypes in both layouts.")] = False,
) -> None:
    """Check, time, and write gpu.md."""
    device = torch.device("cuda:0")
    reason = cuda.trouble(device)
    if reason is not None:
        raise typer.BadParameter(reason)
    clock = EventClock()
    count = correct.check_all(device, clock.graphed)
    typer.echo(f"{count} cases right and repeatable")
    setup = gates.Setup(
        device,
        clock,
        batches=[batch for batch in gates.BATCHES if batch >= smallest],
        kinds=(
            list(product((torch.float32, torch.bfloat16), gates.LAYOUTS))
            if every_kind
            else gates.Setup.kinds
        ),
    )
    lines: list[str] = []
    with implementation("cuda"):
        for line in page(setup, count):
            typer.echo(line)
            lines.append(line)
            write_text(out / "gpu.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    typer.run(main)
