"""The command ``whatwhere bench``."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer


def bench(
    out: Annotated[
        Path | None,
        typer.Option(
            help="folder of the records; benchmarks/results in a checkout, else runs/bench"
        ),
    ] = None,
    sections: Annotated[
        str, typer.Option(help="comma-separated: rows, networks, growth")
    ] = "rows,networks,growth",
    shapes: Annotated[
        str | None, typer.Option(help="of the rows, as in 8x256x56x56,32x128x2048")
    ] = None,
    dtypes: Annotated[str, typer.Option(help="of the rows: float32, bfloat16")] = (
        "float32,bfloat16"
    ),
    peers: Annotated[str, typer.Option(help="seed, amax, timm; or none")] = "seed,amax,timm",
    compiled: Annotated[
        str | None,
        typer.Option(
            help="configurations of torch.compile: default,no-layout if not given; or none"
        ),
    ] = None,
    compiled_networks: Annotated[
        bool, typer.Option(help="whole networks under torch.compile too: minutes each")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(help="of the rounds of one pass of one row; 10 if not given")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="exactly so many, in place of a time")] = None,
    threads: Annotated[int | None, typer.Option(help="torch's own number if not given")] = None,
    quick: Annotated[
        bool, typer.Option(help="tiny tensors, and nothing compiled, to see that all works")
    ] = False,
    fresh: Annotated[bool, typer.Option(help="measure again what is measured")] = False,
) -> None:
    """Measure what a CBAM costs: ours, a plain copy of the tensor, and peers, interleaved.

    The same command again resumes. The exit code is 1 where a variant does not compute CBAM: then
    no speed-up is printed.
    """
    from whatwhere.bench.settings import parse_plan

    plan = parse_plan(
        sections=sections,
        shapes=shapes,
        dtypes=dtypes,
        peers=peers,
        compiled=compiled,
        compiled_networks=compiled_networks,
        seconds=seconds,
        rounds=rounds,
        threads=threads,
        quick=quick,
    )
    from whatwhere.bench.run import run as run_benchmark  # heavy: only when all is well

    if out is None:
        in_checkout = Path("benchmarks/__main__.py").exists() and not quick
        out = Path("benchmarks/results" if in_checkout else "runs/bench")
    command = shlex.join(["whatwhere", *sys.argv[1:]])
    results = run_benchmark(plan, out, command=command, fresh=fresh)
    typer.echo(out / "results.md")
    if results["refused"]:
        raise typer.Exit(1)
