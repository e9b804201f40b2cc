"""Checkpoints that say what they are: safetensors with the gates' description in the header."""

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model
from torch import nn

from whatwhere.surgery import AttachedGate, attached, detach, reattach

FORMAT = "1"
# What torch wraps networks in, and where the network is: its keys are what a file should hold.
WRAPPERS = {"DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}


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
    while type(model).__name__ in WRAPPERS:
        model = getattr(model, WRAPPERS[type(model).__name__])
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
        ValueError: the file is no checkpoint written by ``save``, or by a later version of it.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata()
    except SafetensorError as error:
        raise ValueError(f"expected a safetensors file at {path}, got: {error}") from error
    if header is None or "whatwhere" not in header:
        raise ValueError(f"expected a checkpoint of whatwhere at {path}, got one of other origin")
    description: dict[str, Any] = json.loads(header["whatwhere"])
    if description["format"] != FORMAT:
        raise ValueError(
            f"expected a checkpoint of format {FORMAT} at {path}, got {description['format']!r}"
        )
    return description


def load(model: nn.Module, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Give a plain network the checkpoint's gates and weights; returns the facts saved with it.

    Raises:
        ValueError: the file is no checkpoint of ``save``, or the network has gates already or is
            not of the shape the checkpoint was made from. The network is then unchanged.
    """
    description = describe(path)
    reattach(model, [_gate(each) for each in description["gates"]])
    differences = _differences(model, path)
    if differences:
        detach(model)
        raise ValueError(f"{path} does not fit {type(model).__name__}: {'; '.join(differences)}")
    load_model(model, str(path), strict=True)
    facts: dict[str, Any] = description["facts"]
    return facts


def _gate(described: dict[str, Any]) -> AttachedGate:
    options = {
        name: tuple(value) if isinstance(value, list) else value  # JSON has no tuples
        for name, value in described["options"].items()
    }
    return AttachedGate(**{**described, "options": options})


def _differences(model: nn.Module, path: str | os.PathLike[str]) -> list[str]:
    own = model.state_dict()
    with safe_open(str(path), framework="pt") as file:
        saved = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    # Of tensors under several names a file holds one.
    held = {own[name].data_ptr() for name in saved if name in own}
    missing = [n for n in own if n not in saved and own[n].data_ptr() not in held]
    shapes = [
        f"{name} is {shape} in the file and {tuple(own[name].shape)} in the network"
        for name, shape in saved.items()
        if name in own and tuple(own[name].shape) != shape
    ]
    unknown = [name for name in saved if name not in own]
    return (
        ([f"not in the file: {', '.join(missing[:5])}"] if missing else [])
        + ([f"not in the network: {', '.join(unknown[:5])}"] if unknown else [])
        + shapes[:5]
    )
