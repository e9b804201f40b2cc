"""Checkpoints that say what they are: safetensors with the gates' description in the header."""

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model
from torch import nn

from whatwhere.surgery import AttachedGate, attached, reattach

FORMAT = "1"


def save(model: nn.Module, path: str | os.PathLike[str], **facts: Any) -> None:
    """Write a network's weights, its gates' description and JSON-able facts, all or nothing.

    >>> import tempfile
    >>> from whatwhere import attend
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> report = attend(network, "se", where="0")
    >>> plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(network, f"{folder}/network.safetensors", note="trained elsewhere")
    ...     load(plain, f"{folder}/network.safetensors")
    {'note': 'trained elsewhere'}
    """
    description = {
        "format": FORMAT,
        "gates": [each.as_dict() for each in attached(model)],
        "facts": facts,
    }
    target = Path(path)
    part = target.with_name(f".{target.name}.part")
    save_model(model, str(part), metadata={"whatwhere": json.dumps(description)})
    part.replace(target)


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a checkpoint says of itself: ``{"format", "gates", "facts"}``.

    Raises:
        ValueError: the file is no checkpoint written by ``save``.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata()
    except SafetensorError as error:
        raise ValueError(f"expected a safetensors file at {path}, got: {error}") from error
    if header is None or "whatwhere" not in header:
        raise ValueError(f"expected a checkpoint of whatwhere at {path}, got one of other origin")
    description: dict[str, Any] = json.loads(header["whatwhere"])
    return description


def load(model: nn.Module, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Give a plain network the checkpoint's gates and weights; returns the facts saved with it.

    Raises:
        ValueError: the file is no checkpoint of ``save``, or the network has gates already or is
            not of the shape the checkpoint was made from.
    """
    description = describe(path)
    reattach(model, [AttachedGate(**each) for each in description["gates"]])
    try:
        load_model(model, str(path), strict=True)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit {type(model).__name__}: {error}") from error
    facts: dict[str, Any] = description["facts"]
    return facts
