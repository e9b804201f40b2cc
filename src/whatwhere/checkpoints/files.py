"""Checkpoints that say what they are: safetensors with gates and recipe in the header."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model
from torch import nn

from whatwhere.checkpoints.recipes import LIBRARIES, Recipe, infer, trusted
from whatwhere.checkpoints.weights import misfits, read_shapes, read_state_dict, take_dtypes
from whatwhere.files import whole
from whatwhere.surgery import AttachedGate, attached, detach, reattach
from whatwhere.surgery.life import described, gate_of

FORMAT = "1"
# What torch and timm wrap networks in, and where the network is: its keys belong into a file.
WRAPPERS = {
    "DistributedDataParallel": "module",
    "OptimizedModule": "_orig_mod",
    "AveragedModel": "module",
    "ModelEmaV2": "module",
    "ModelEmaV3": "module",
}


def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    network: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write a network's weights, its gates and how it is built, all or nothing.

    Args:
        model: the network; the one inside, if torch or timm wrapped it.
        path: of the file, safetensors.
        network: the dotted name of what builds the network without gates, a class or a function:
            "torchvision.models.resnet18". Networks of timm and transformers note down theirs.
        arguments: its keyword arguments, JSON-able.
        facts: anything JSON-able, for ``describe``.

    Raises:
        ValueError: ``network`` builds another network than this; the arguments or facts are not
            JSON-able; the network is sharded. No file is written then.

    >>> import tempfile, torchvision, whatwhere
    >>> model = torchvision.models.resnet18(num_classes=10)
    >>> report = whatwhere.attend(model, "cbam")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(
    ...         model,
    ...         f"{folder}/network.safetensors",
    ...         network="torchvision.models.resnet18",
    ...         arguments={"num_classes": 10},
    ...     )
    ...     other = load(f"{folder}/network.safetensors")
    >>> len(whatwhere.attached(other))
    8
    """
    while type(model).__name__ in WRAPPERS:
        model = getattr(model, WRAPPERS[type(model).__name__])
    if any(type(parameter).__name__ == "DTensor" for parameter in model.parameters()):
        raise ValueError(
            "expected a whole network, got a sharded one; gather its state_dict "
            "(torch.distributed.checkpoint.state_dict), load it into one with the same gates, and "
            "save that"
        )
    recipe = _recipe(model, network, arguments)
    described = header(attached(model), recipe=recipe, facts=facts)
    with whole(Path(path)) as part:
        save_model(model, str(part), metadata=described)


def header(
    gates: Sequence[AttachedGate], *, recipe: Recipe | None, facts: Mapping[str, Any] | None
) -> dict[str, str]:
    """What a safetensors file's header says of the network in it, as ``describe`` reads it.

    Raises:
        ValueError: the facts or the recipe's arguments are not JSON-able.
    """
    description = {
        "format": FORMAT,
        "gates": [each.as_dict() for each in gates],
        "recipe": None
        if recipe is None
        else {"network": recipe.network, "arguments": recipe.arguments},
        "facts": {} if facts is None else dict(facts),
    }
    return {"whatwhere": _json_text(description)}


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a checkpoint says of itself: ``{"format", "gates", "recipe", "facts"}``.

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
    return {"recipe": None, **description}


def load(
    path: str | os.PathLike[str],
    *,
    into: nn.Module | None = None,
    trust: Sequence[str] = (),
) -> nn.Module:
    """The network of a checkpoint: built, given its gates, and its weights, strictly.

    Args:
        path: a file of ``save`` or, with ``into``, a state_dict that ``torch.save`` wrote.
        into: a network like the saved one, without gates, to be given them and the weights; it
            keeps its dtype and device. Without it the network is built as the file says, on the
            CPU, in the dtype it was saved in and in training mode.
        trust: packages of yours whose functions the file may call to build the network. Known
            libraries' networks it may always name, without weights to fetch.

    Raises:
        ValueError: the file does not say how its network is built, or names what is not trusted;
            it does not fit; or the network has gates at the same sites. ``into`` is then
            unchanged.
    """
    path = Path(path)
    if into is not None and trust:
        raise ValueError("load: trust is for building the network, and into= gives one; pass one")
    with path.open("rb") as file:
        start = file.read(2)
    if start == b"PK":  # a zip file, as torch.save writes
        return _load_state_dict(path, into)
    description = describe(path)
    model = _build(path, description["recipe"], trust) if into is None else into
    gates = [gate_of(each) for each in description["gates"]]
    reattach(model, gates)
    wrong = misfits(model, read_shapes(path))
    if wrong:
        detach(model, sites=[each.site for each in gates])
        raise ValueError(f"{path} does not fit {type(model).__name__}: {'; '.join(wrong)}")
    if into is None:
        take_dtypes(model, path)
    load_model(model, str(path), strict=True)
    return model


def _load_state_dict(path: Path, into: nn.Module | None) -> nn.Module:
    if into is None:
        raise ValueError(f"{path} is a state_dict, which does not say how to build: pass into=")
    state_dict = read_state_dict(path)
    gates = described(state_dict)
    reattach(into, gates)
    wrong = misfits(into, {name: tuple(tensor.shape) for name, tensor in state_dict.items()})
    if wrong:
        detach(into, sites=[each.site for each in gates])
        raise ValueError(f"{path} does not fit {type(into).__name__}: {'; '.join(wrong)}")
    into.load_state_dict(state_dict)
    return into


def _recipe(
    model: nn.Module, network: str | None, arguments: Mapping[str, Any] | None
) -> Recipe | None:
    if network is None:
        if arguments is not None:
            raise ValueError("save: arguments are of network=, the name of what builds it")
        return infer(model)
    package = network.partition(".")[0]
    if package == "__main__" or "." not in network or "<" in network:
        raise ValueError(
            f"save: expected network to be a name that can be imported elsewhere, got {network!r}"
        )
    recipe = Recipe(network, json.loads(_json_text({} if arguments is None else dict(arguments))))
    recipe.check(model, trust=() if trusted(network, LIBRARIES) else [package])
    return recipe


def _build(path: Path, recipe: Mapping[str, Any] | None, trust: Sequence[str]) -> nn.Module:
    if recipe is None:
        raise ValueError(
            f"{path} does not say how its network is built; build one without gates and pass it, "
            "load(path, into=network), or save with network= and arguments="
        )
    return Recipe(recipe["network"], recipe["arguments"]).build(trust=trust)


def _json_text(value: Any) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"save: expected JSON-able values, got: {error}") from error
