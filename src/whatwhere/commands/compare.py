"""The command ``whatwhere compare``."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from whatwhere.commands.options import (
    CheckpointOption,
    DeterministicOption,
    DevicesOption,
    NodesOption,
    StrategyOption,
    SyncOption,
)


def compare(
    data: Annotated[
        str,
        typer.Argument(help="digits, clips, a folder, a .npz, shards, hf:NAME or torchvision:NAME"),
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
    until_sure: Annotated[
        float | None,
        typer.Option(
            help="add seeds until every difference is known to so many points, plus/minus"
        ),
    ] = None,
    max_seeds: Annotated[int | None, typer.Option(help="of --until-sure; 20 if not given")] = None,
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
    deterministic: DeterministicOption = False,
    size: Annotated[int | None, typer.Option(help="side of the images in pixels")] = None,
    max_unreadable: Annotated[
        int, typer.Option(help="skip up to so many files that can't be read")
    ] = 20,
    max_train: Annotated[int | None, typer.Option(help="at most so many samples")] = None,
    root: Annotated[str | None, typer.Option(help="where torchvision's set lies")] = None,
    download: Annotated[bool, typer.Option(help="let torchvision download its set")] = False,
    fractions: Annotated[
        str | None,
        typer.Option(help="train on these shares of the training samples as well, as in 0.1,0.3"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="worker processes; as many as pay if not given")
    ] = None,
    devices: DevicesOption = 1,
    num_nodes: NodesOption = 1,
    strategy: StrategyOption = "auto",
    sync_batchnorm: SyncOption = False,
    checkpoint_every: CheckpointOption = "5m",
    cluster: Annotated[
        str | None,
        typer.Option(help="where to run: a Dask scheduler's address or file, ray, ray://HOST:PORT"),
    ] = None,
    fast: Annotated[
        bool, typer.Option(help="a first look in about a minute: 1500 samples, 2 seeds, 4 epochs")
    ] = False,
) -> None:
    """Train with and without attention, and report whether it helps and what it costs.

    The same command again resumes: finished trials are kept, a killed one goes on.
    """
    from whatwhere.study.data import DataSettings, folder_name
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
        until_sure=until_sure,
        max_seeds=max_seeds,
        devices=Devices(devices, num_nodes, strategy, sync_batchnorm),  # type: ignore[arg-type]
        checkpoint_every=checkpoint_every,
        fractions=() if fractions is None else tuple(map(float, fractions.split(","))),
    )
    from whatwhere.study.compare import compare as run_study  # heavy: only when all is well

    name = folder_name(data) + ("-fast" if fast else "")
    results = run_study(
        settings,
        Path("runs") / name if out is None else out,
        workers=workers,
        cluster=cluster,
        command=shlex.join(["whatwhere", *sys.argv[1:]]),
    )
    if not any(trial["status"] == "finished" for trial in results["trials"]):
        raise typer.Exit(1)
