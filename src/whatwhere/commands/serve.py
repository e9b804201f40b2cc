"""The command ``whatwhere serve``."""

import signal
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer


def serve(
    path: Annotated[Path, typer.Argument(help="a file of whatwhere.save, or a study's folder")],
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="exactly this; if not given, the first free from 7860"),
    ] = None,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in")] = "127.0.0.1",
    shape: Annotated[
        str | None, typer.Option(help="of one input, as in 3x224x224, where the file says none")
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help="by channel, as in 0.5,0.5,0.5, where the file says none")
    ] = None,
    std: Annotated[str | None, typer.Option(help="likewise")] = None,
    volumes: Annotated[
        bool, typer.Option("--volumes", help="arrays (D, H, W) are volumes, not clips")
    ] = False,
    examples: Annotated[
        bool, typer.Option(help="read a study's data, for test samples to try")
    ] = True,
    trust: Annotated[
        list[str] | None, typer.Option(help="a package of yours that builds the network")
    ] = None,
) -> None:
    """Serve a page: drop an image or clip, see the gates, switch them off, compare variants.

    It runs on this machine alone, asks no other for anything, and ends with Ctrl-C.
    """
    for package in ("gradio", "av", "captum"):
        if find_spec(package) is None:
            raise ValueError(
                f'serve: expected {package}, which is not installed: pip install "whatwhere[serve]"'
            )
    from whatwhere.commands.look import numbers
    from whatwhere.serve.opening import opened
    from whatwhere.serve.server import free_port, own_folder, serving
    from whatwhere.study.costs import parse_shape

    chosen = free_port(host, port)
    site = opened(
        path,
        shape=None if shape is None else parse_shape(shape),
        mean=None if mean is None else numbers("mean", mean),
        std=None if std is None else numbers("std", std),
        volumes=volumes,
        with_examples=examples,
        trust=() if trust is None else trust,
        tell=typer.echo,
    )
    ended = threading.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda _signal, _frame: ended.set())
    with own_folder():
        from whatwhere.serve.page import build

        with serving(build(site), host=host, port=chosen) as address:
            typer.echo(f"{address}  (Ctrl-C ends it)")
            ended.wait()
