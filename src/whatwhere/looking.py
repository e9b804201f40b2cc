"""The pictures of one input, written to a folder: an overview, one of each gate, and the film."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor, nn

from whatwhere.evaluation import evaluating
from whatwhere.files import write_bytes
from whatwhere.inputs import Input
from whatwhere.look import maps
from whatwhere.look.film import film, gif, mp4
from whatwhere.look.pictures import figure
from whatwhere.look.spread import evenly

ANSWERS = 3  # likeliest classes that are told
ROWS = 4  # frames of a video that an overview of a network of images shows
DPI = 110


def write_pictures(
    model: nn.Module,
    given: Input,
    folder: Path,
    *,
    plain: nn.Module | None = None,
    classes: Sequence[str] | None = None,
) -> str:
    """Write all there is to see of one input, each file whole or not at all.

    ``overview.png``; ``gate-NN-NAME.png`` for each gate, on a scale of its own; of a video also
    ``film.gif`` and ``film.mp4``.

    Returns:
        Lines for the user: the answer, and what was written.
    """
    with evaluating(model):
        output = model(given.x)
    classifies = isinstance(output, Tensor) and output.ndim == 2
    answer = answer_text(output, classes) if classifies else f"{given.name}: no classes"
    title = f"{given.name}: {answer}"
    folder.mkdir(parents=True, exist_ok=True)
    x, looks = _looks(given, title)
    overview = figure(model, x, grad_cam=classifies, plain=plain if classifies else None, **looks)
    _write(overview, folder / "overview.png")
    names = list(maps(model, x))
    for number, name in enumerate(names, start=1):
        drawn = figure(model, x, grad_cam=False, only=[name], **looks)
        _write(drawn, folder / f"gate-{number:02d}-{name.replace('/', '_')}.png")
    written = f"{folder}/: overview.png, {len(names)} of single gates"
    if given.kind == "video":
        pictures = film(model, given.x, given.display, title=title, box=given.box)
        write_bytes(folder / "film.gif", gif(pictures))
        write_bytes(folder / "film.mp4", mp4(pictures))
        written += ", film.gif, film.mp4"
    return f"{title}\n  {written}"


def answer_text(logits: Tensor, classes: Sequence[str] | None) -> str:
    """The likeliest classes, of several frames by their mean probability.

    >>> import torch
    >>> answer_text(torch.tensor([[0.0, 2.0]]), ["cat", "dog"])
    'dog 88%, cat 12%'
    """
    chances = logits.float().softmax(1).mean(0)
    best = chances.argsort(descending=True)[:ANSWERS].tolist()
    named = classes if classes is not None and len(classes) == len(chances) else None
    words = [
        f"{f'class {place}' if named is None else named[place]} {chances[place].item():.0%}"
        for place in best
    ]
    return ", ".join(words)


def _looks(given: Input, title: str) -> tuple[Tensor, dict[str, Any]]:
    """What ``figure`` is to draw, and how."""
    if given.kind == "video" and given.x.ndim == 4:
        places = evenly(len(given.x), ROWS)
        display = given.display[:, places].transpose(0, 1)
        titles = [f"frame {place + 1}" for place in places]
        return given.x[places], {"display": display, "titles": titles, "box": given.box}
    looks: dict[str, Any] = {"display": given.display[None], "titles": [title], "box": given.box}
    return given.x, {**looks, "volume": given.kind == "volume"}


def _write(drawn: Figure, path: Path) -> None:
    content = BytesIO()
    drawn.savefig(content, format="png", dpi=DPI)
    write_bytes(path, content.getvalue())
