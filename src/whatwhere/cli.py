"""The command line: ``whatwhere compare``, ``train``, ``bench``, ``cost`` and the others."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from whatwhere import train_command
from whatwhere.export_command import export

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="What, where and when attention for convolutional networks: does it help your data?",
)


app.command()(train_command.train)

app.command()(export)


@app.callback()
def whatwhere() -> None:
    """What, where and when attention for convolutional networks."""


@app.command()
def compare(
    data: Annotated[
        str,
        typer.Argument(
            help="digits or clips (embedded), a folder of images, a .npz file, torchvision:NAME"
        ),
    ] = "digits",
    out: Annotated[
        Path | None, typer.Option(help="folder of the study; by default runs/NAME of the data")
    ] = None,
    variants: Annotated[
        str | None,
        typer.Option(
            help="comma-separated: none, and gates with options, as in "
            "none,se,cbam:kernel_size=3:order=spatial-channel"
        ),
    ] = None,
    backbone: Annotated[
        str,
        typer.Option(help="small, a model of timm or torchvision, or package.module:function"),
    ] = "small",
    control: Annotated[
        str, typer.Option(help="widen the plain network to equal: parameters, latency, none")
    ] = "parameters",
    seeds: Annotated[int | None, typer.Option(help="how many; 3 if not given")] = None,
    epochs: Annotated[int | None, typer.Option(help="6 if not given")] = None,
    batch_size: Annotated[int, typer.Option()] = 64,
    learning_rate: Annotated[float, typer.Option()] = 3e-3,
    weight_decay: Annotated[float, typer.Option()] = 0.05,
    where: Annotated[
        str,
        typer.Option(help="auto, blocks, stages, ..., or names of modules, as in layer?,encoder.3"),
    ] = "auto",
    start: Annotated[str, typer.Option(help="how gates start: identity or paper")] = "identity",
    precision: Annotated[str, typer.Option(help="auto, 32-true, bf16-mixed or 16-mixed")] = "auto",
    pretrained: Annotated[bool, typer.Option(help="the library's pretrained weights")] = False,
    deterministic: train_command.DeterministicOption = False,
    size: Annotated[int | None, typer.Option(help="side of the images in pixels")] = None,
    max_unreadable: Annotated[
        int, typer.Option(help="skip up to so many files that can't be read")
    ] = 20,
    max_train: Annotated[int | None, typer.Option(help="at most so many samples")] = None,
    root: Annotated[str | None, typer.Option(help="where torchvision's set lies")] = None,
    download: Annotated[bool, typer.Option(help="let torchvision download its set")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="worker processes; as many as pay if not given")
    ] = None,
    devices: train_command.DevicesOption = 1,
    num_nodes: train_command.NodesOption = 1,
    strategy: train_command.StrategyOption = "auto",
    sync_batchnorm: train_command.SyncOption = False,
    checkpoint_every: train_command.CheckpointOption = "5m",
    fast: Annotated[
        bool, typer.Option(help="a first look in about a minute: 1500 samples, 2 seeds, 4 epochs")
    ] = False,
) -> None:
    """Train with and without attention, and report whether it helps and what it costs.

    The same command again resumes: finished trials are kept, a killed one goes on.
    """
    from whatwhere.study.data import DataSettings
    from whatwhere.study.devices import Devices
    from whatwhere.study.settings import StudySettings, default_variants

    small: dict[str, Any] = {"seeds": 2, "epochs": 4, "max_train": 1500} if fast else {}
    chosen = default_variants(data) if variants is None else tuple(variants.split(","))
    settings = StudySettings(
        data=DataSettings(
            source=data,
            size=size,
            max_unreadable=max_unreadable,
            max_train=small.get("max_train") if max_train is None else max_train,
            root=root,
            download=download,
        ),
        backbone=backbone,
        variants=chosen,
        control=control,  # type: ignore[arg-type]  # checked by StudySettings
        seeds=small.get("seeds", 3) if seeds is None else seeds,
        epochs=small.get("epochs", 6) if epochs is None else epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        where=where,
        start=start,  # type: ignore[arg-type]
        precision=precision,  # type: ignore[arg-type]
        pretrained=pretrained,
        deterministic=deterministic,
        fast=fast,
        devices=Devices(devices, num_nodes, strategy, sync_batchnorm),  # type: ignore[arg-type]
        checkpoint_every=checkpoint_every,
    )
    from whatwhere.study.compare import compare as run_study  # heavy: only when all is well

    name = Path(data).resolve().stem.replace(":", "-") + ("-fast" if fast else "")
    results = run_study(
        settings,
        Path("runs") / name if out is None else out,
        workers=workers,
        command=shlex.join(["whatwhere", *sys.argv[1:]]),
    )
    if not any(trial["status"] == "finished" for trial in results["trials"]):
        raise typer.Exit(1)


@app.command()
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


@app.command()
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


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="safetensors, or of torch.save")],
    out: Annotated[Path, typer.Argument(help="to write: .safetensors, .pth, .pt or .bin")],
    source: Annotated[str | None, typer.Option("--from", help="told by the keys if not given")] = (
        None
    ),
    target: Annotated[
        str,
        typer.Option("--to", help="whatwhere, paper, official, timm, pytorchcv, mmyolo, external"),
    ] = "whatwhere",
    dialect: Annotated[str | None, typer.Option(help="of whatwhere.CBAM; by default its own")] = (
        None
    ),
    spelling: Annotated[str | None, typer.Option(help="as in 'ca.sharedMLP.0 sa.conv1'")] = None,
    site: Annotated[
        list[str] | None,
        typer.Option(help="a pattern of CBAMs' names and what they become: '(.+)[.]cbam=\\1.bn3'"),
    ] = None,
    eval_only: Annotated[
        bool, typer.Option("--eval-only", help="allow what is equal in eval mode alone")
    ] = False,
) -> None:
    """Convert a checkpoint with CBAMs between code bases, and prove that they compute the same."""
    from whatwhere.checkpoints import convert_file

    pairs = [each.partition("=") for each in site] if site is not None else []
    converted = convert_file(
        file,
        out,
        source=source,  # type: ignore[arg-type]  # checked there, and so the others
        target=target,  # type: ignore[arg-type]
        dialect=dialect,  # type: ignore[arg-type]
        spelling=spelling,
        sites={pattern: replacement for pattern, _, replacement in pairs},
        eval_only=eval_only,
    )
    typer.echo(converted)


def main() -> None:
    """Run the command line; what is wrong with the input is one line, not a trace."""
    sys.path.insert(0, str(Path.cwd()))  # where a backbone of the user's own is
    try:
        app()
    except (ValueError, OSError) as error:
        typer.echo(f"whatwhere: {error}", err=True)
        raise SystemExit(2) from error
