"""The command ``whatwhere export``."""

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer


def export(
    checkpoint: Annotated[Path, typer.Argument(help="a file of whatwhere.save")],
    to: Annotated[str, typer.Option(help="onnx, torch-export or aoti")] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="the file to write; by default beside the checkpoint")
    ] = None,
    shape: Annotated[
        str | None, typer.Option(help="of one sample, as in 3x224x224; tried out if not given")
    ] = None,
    dynamic: Annotated[str, typer.Option(help="sizes left free: all, batch or none")] = "all",
    trust: Annotated[
        list[str] | None, typer.Option(help="a package of yours that builds the network")
    ] = None,
    int8: Annotated[
        str | None,
        typer.Option(help="data as of compare: an int8 file too, calibrated and tested on it"),
    ] = None,
    lost: Annotated[float, typer.Option(help="accuracy that int8 may lose")] = 0.02,
) -> None:
    """Write a network as a file that runs elsewhere, compared with it at sizes not traced."""
    import torch

    from whatwhere.checkpoints import load
    from whatwhere.export import export as run_export

    if int8 is not None and to != "onnx":
        raise ValueError(f"expected --to onnx with --int8, got {to}")
    example = None
    if shape is not None:
        from whatwhere.study.costs import parse_shape

        example = torch.zeros(1, *parse_shape(shape))
    path = checkpoint.with_suffix(".onnx" if to == "onnx" else ".pt2") if out is None else out
    model = load(checkpoint, trust=() if trust is None else trust)
    done = run_export(
        model,
        path,
        to=to,  # type: ignore[arg-type]  # checked by export, as is the next
        example=example,
        dynamic=dynamic,  # type: ignore[arg-type]
    )
    typer.echo(done)
    if int8 is not None:
        from torch.utils.data import DataLoader

        from whatwhere.export import quantize
        from whatwhere.study.data import DataSettings
        from whatwhere.study.data import load as load_data

        data = load_data(DataSettings(source=int8))
        torch.manual_seed(0)
        calibration = islice(DataLoader(data.train, batch_size=32, shuffle=True), 8)
        typer.echo(
            quantize(
                path,
                path.with_suffix(".int8.onnx"),
                [x for x, _ in calibration],
                DataLoader(data.test, batch_size=32),
                lost=lost,
            )
        )
