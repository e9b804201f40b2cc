"""``convert_file``: a checkpoint read, converted and written, as ``whatwhere convert`` does."""

import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from whatwhere.checkpoints.conversion.convert import Conversion, convert
from whatwhere.checkpoints.conversion.dialects import OURS, CodeBase
from whatwhere.checkpoints.conversion.find import joined
from whatwhere.checkpoints.files import describe, header
from whatwhere.checkpoints.weights import are_tensors, read_pickle
from whatwhere.files import whole
from whatwhere.gates import Dialect
from whatwhere.surgery.gated import CHILD
from whatwhere.surgery.life import KEY

SAFETENSORS = ".safetensors"
SUFFIXES = (SAFETENSORS, ".pth", ".pt", ".bin")


def convert_file(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    source: CodeBase | None = None,
    target: CodeBase = OURS,
    dialect: Dialect | None = None,
    spelling: str | None = None,
    sites: Mapping[str, str] | None = None,
    eval_only: bool = False,
) -> Conversion:
    """Convert a file, safetensors or of ``torch.save``, to another: see ``convert``.

    Args:
        path: the file. If it holds more than a state_dict, the one state_dict in it is taken.
        out: the file to write: safetensors or, with another suffix, as ``torch.save`` does.
            For whatwhere both say which gates there are; ``whatwhere.load`` reads them.
        source: as for ``convert``, and so the others.
        target: likewise.
        dialect: likewise.
        spelling: likewise.
        sites: likewise.
        eval_only: likewise.

    Raises:
        ValueError: the file is damaged, holds code or no state_dict, or can't be converted. No
            file is written then.
    """
    path, out = Path(path), Path(out)
    if out.suffix not in SUFFIXES:
        raise ValueError(
            f"convert: expected a file to write that ends in {', '.join(SUFFIXES)}, got {out.name}"
        )
    converted = convert(
        _read(path),
        source=source,
        target=target,
        dialect=dialect,
        spelling=spelling,
        sites=sites,
        eval_only=eval_only,
    )
    with whole(out) as part:
        _write(converted, part, safetensors=out.suffix == SAFETENSORS)
    return converted


def _read(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        start = file.read(9)
    return _read_safetensors(path) if start[8:] == b"{" else _read_torch(path)


def _read_torch(path: Path) -> dict[str, Tensor]:
    held = read_pickle(path)
    if are_tensors(held):
        state_dict: dict[str, Tensor] = held
        return state_dict
    inside = (
        [key for key, each in held.items() if are_tensors(each)] if isinstance(held, dict) else []
    )
    if len(inside) != 1:
        what = list(held) if isinstance(held, dict) else type(held).__name__
        raise ValueError(
            f"convert: expected a state_dict in {path}, or one beside other values, got {what}"
            + (f", of which {inside} are state_dicts; save the one to convert" if inside else "")
        )
    chosen: dict[str, Tensor] = held[inside[0]]
    return chosen


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(str(path), framework="pt") as file:
            state_dict = OrderedDict((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118
            header_keys = file.metadata()
    except SafetensorError as error:
        raise ValueError(f"expected a safetensors file, whole, at {path}, got: {error}") from error
    metadata: dict[str, dict[str, Any]] = {}
    own = header_keys is not None and KEY in header_keys
    for gate in describe(path)["gates"] if own else ():
        alone = gate["site"] == "" and f"{CHILD}.gates.channel.mix.reduce.weight" not in state_dict
        prefix = "" if alone else joined(gate["site"], CHILD)
        metadata[prefix] = {KEY: {key: each for key, each in gate.items() if key != "site"}}
    vars(state_dict)["_metadata"] = metadata
    return state_dict


def _write(converted: Conversion, path: Path, *, safetensors: bool) -> None:
    if not safetensors:
        torch.save(converted.state_dict, path)
        return
    # Cloned, since safetensors takes no views and no tensor twice.
    tensors = {
        key: each.detach().clone().contiguous() for key, each in converted.state_dict.items()
    }
    facts = {"converted": {"source": converted.source, "error": converted.error}}
    described = header(converted.gates, recipe=None, facts=facts)
    save_file(
        tensors, str(path), metadata=described if converted.target == OURS else {"format": "pt"}
    )
