"""The command ``whatwhere convert``."""

from pathlib import Path
from typing import Annotated

import typer


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
