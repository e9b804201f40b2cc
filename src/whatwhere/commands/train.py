"""The command ``whatwhere train``."""

from pathlib import Path
from typing import Annotated

import typer

from whatwhere.commands.options import (
    CheckpointOption,
    DeterministicOption,
    DevicesOption,
    NodesOption,
    StrategyOption,
    SyncOption,
)


def train(
    data: Annotated[
        str, typer.Argument(help="as of compare: digits, clips, a folder, a .npz, shards, ...")
    ] = "digits",
    out: Annotated[
        Path | None,
        typer.Option(help="folder of the training; by default runs/NAME-VARIANT of the data"),
    ] = None,
    variant: Annotated[
        str, typer.Option(help="none, or a gate with options, as in cbam:kernel_size=3")
    ] = "cbam",
    backbone: Annotated[str, typer.Option(help="as of compare")] = "small",
    seed: Annotated[int, typer.Option(min=0, help="of weights, order and augmentation")] = 0,
    epochs: Annotated[int, typer.Option()] = 6,
    batch_size: Annotated[int, typer.Option(help="of all devices together")] = 64,
    learning_rate: Annotated[float, typer.Option()] = 3e-3,
    weight_decay: Annotated[float, typer.Option()] = 0.05,
    where: Annotated[str, typer.Option(help="as of compare")] = "auto",
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
    devices: DevicesOption = 1,
    num_nodes: NodesOption = 1,
    strategy: StrategyOption = "auto",
    sync_batchnorm: SyncOption = False,
    checkpoint_every: CheckpointOption = "5m",
) -> None:
    """Train one network with or without attention, on one device or many, and test it.

    The same command again resumes, after the last checkpoint's very sample.
    """
    from whatwhere.study.data import DataSettings, folder_name
    from whatwhere.study.devices import Devices
    from whatwhere.study.settings import StudySettings

    settings = StudySettings(
        data=DataSettings(
            source=data,
            size=size,
            max_unreadable=max_unreadable,
            max_train=max_train,
            root=root,
            download=download,
        ),
        backbone=backbone,
        variants=(variant,),
        control="none",
        seeds=1,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        where=where,
        start=start,  # type: ignore[arg-type]  # checked by StudySettings
        precision=precision,  # type: ignore[arg-type]
        pretrained=pretrained,
        deterministic=deterministic,
        devices=Devices(devices, num_nodes, strategy, sync_batchnorm),  # type: ignore[arg-type]
        checkpoint_every=checkpoint_every,
    )
    from whatwhere.study.train import train as run_training  # heavy: only when all is well

    if out is None:
        out = Path("runs") / f"{folder_name(data)}-{variant}"
    if run_training(settings, out, seed=seed)["status"] != "finished":
        raise typer.Exit(1)
