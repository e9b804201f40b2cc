"""The command ``whatwhere look``."""

from pathlib import Path
from typing import Annotated

import typer


def look(
    checkpoint: Annotated[Path, typer.Argument(help="a file of whatwhere.save")],
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="images, folders of them, videos, .npz or .npy; digits or clips: embedded"
        ),
    ],
    out: Annotated[Path, typer.Option(help="folder to write to, one below it per input")] = Path(
        "runs/look"
    ),
    plain: Annotated[
        Path | None,
        typer.Option(help="another checkpoint for its Grad-CAM; a study's plain one by itself"),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="of an .npz, evenly chosen")] = 4,
    frames: Annotated[
        int | None, typer.Option(min=1, help="of a video, for a network of images; 24")
    ] = None,
    volumes: Annotated[
        bool, typer.Option("--volumes", help="arrays (D, H, W) are volumes, not frames")
    ] = False,
    shape: Annotated[
        str | None, typer.Option(help="of one input, as in 3x224x224, if the file doesn't say")
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help="by channel, as in 0.5,0.5,0.5, if the file doesn't say")
    ] = None,
    std: Annotated[str | None, typer.Option(help="likewise")] = None,
    trust: Annotated[
        list[str] | None, typer.Option(help="a package of yours that builds the network")
    ] = None,
) -> None:
    """Draw what the gates of a network do to images, videos and arrays, beside Grad-CAM."""
    from whatwhere.checkpoints import load
    from whatwhere.inputs import preparation_of, read
    from whatwhere.study.costs import parse_shape

    preparation = preparation_of(
        checkpoint,
        shape=None if shape is None else parse_shape(shape),
        mean=None if mean is None else numbers("mean", mean),
        std=None if std is None else numbers("std", std),
    )
    if preparation.assumed:
        typer.echo(preparation.assumed)
    trusted = () if trust is None else trust
    model = load(checkpoint, trust=trusted).eval()
    beside = plain_of(checkpoint) if plain is None else plain
    other = None if beside is None else load(beside, trust=trusted).eval()
    found, skipped = read(inputs, preparation, frames=frames, volumes=volumes, most=samples)
    for bad in skipped:
        typer.echo(f"skipped {bad.path}: {bad.reason}", err=True)
    if beside is not None:
        typer.echo(f"Grad-CAM of {beside} beside it")

    from whatwhere.looking import write_pictures

    folders: set[str] = set()
    for each in found:
        folder = out / _folder(each.name, folders)
        typer.echo(write_pictures(model, each, folder, plain=other, classes=preparation.classes))


def plain_of(checkpoint: Path) -> Path | None:
    """The checkpoint of the plain network with the same seed, where a study has one.

    >>> plain_of(Path("nowhere/trials/se-seed0/model.safetensors")) is None
    True
    """
    trial = checkpoint.resolve().parent
    variant, _, seed = trial.name.rpartition("-seed")
    if trial.parent.name != "trials" or variant in ("", "none"):
        return None
    plain = trial.parent / f"none-seed{seed}" / checkpoint.name
    return plain if plain.exists() else None


def numbers(name: str, text: str) -> list[float]:
    """The numbers that an option was given, separated by commas.

    >>> numbers("mean", "0.5,0.25")
    [0.5, 0.25]
    """
    try:
        return [float(each) for each in text.split(",")]
    except ValueError as error:
        raise ValueError(f"expected --{name} as in 0.5,0.5,0.5, got {text!r}") from error


def _folder(name: str, taken: set[str]) -> str:
    """A folder's name that no other input has."""
    kept = "".join(each if each.isalnum() or each in "-_." else "_" for each in name).strip("._")
    kept = "input" if kept == "" else kept
    number, folder = 1, kept
    while folder in taken:
        number += 1
        folder = f"{kept}-{number}"
    taken.add(folder)
    return folder
