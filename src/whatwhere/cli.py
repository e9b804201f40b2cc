"""The command line: ``whatwhere`` and its commands."""

import sys
from pathlib import Path

import typer

from whatwhere.commands.bench import bench
from whatwhere.commands.compare import compare
from whatwhere.commands.convert import convert
from whatwhere.commands.cost import cost
from whatwhere.commands.export import export
from whatwhere.commands.look import look
from whatwhere.commands.serve import serve
from whatwhere.commands.train import train

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="What, where and when attention for convolutional networks: does it help your data?",
)
for command in (compare, train, look, serve, cost, export, convert, bench):
    app.command()(command)


@app.callback()
def whatwhere() -> None:
    """What, where and when attention for convolutional networks."""


def main() -> None:
    """Run the command line; what is wrong with the input is one line, not a trace."""
    sys.path.insert(0, str(Path.cwd()))  # where a backbone of the user's own is
    try:
        app()
    except (ValueError, OSError) as error:
        typer.echo(f"whatwhere: {error}", err=True)
        raise SystemExit(2) from error
