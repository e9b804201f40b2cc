"""Whether weights fit a network, and in which dtypes they were saved."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
Shapes = Mapping[str, tuple[int, ...]]


def read_shapes(path: Path) -> Shapes:
    """The shape of every tensor in a safetensors file."""
    with safe_open(str(path), framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def read_pickle(path: Path) -> Any:
    """What is in a file of ``torch.save``, of tensors and plain values; no code in it is run.

    Raises:
        ValueError: the file is damaged, or holds anything else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever unpickling may raise on bytes that are no pickle
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ValueError(f"expected a state_dict, whole, in {path}, got: {reason}") from error


def are_tensors(value: Any) -> bool:
    """Whether a value is tensors by name, at least one."""
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(isinstance(each, Tensor) for each in value.values())
    )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The state_dict in a file of ``torch.save``, by the names of the network itself.

    Raises:
        ValueError: the file is damaged, or holds anything but tensors by name.
    """
    state_dict = read_pickle(path)
    if not are_tensors(state_dict):
        held = list(state_dict) if isinstance(state_dict, dict) else type(state_dict).__name__
        raise ValueError(
            f"expected tensors by name in {path}, got {held}; take the state_dict out of it, then "
            "surgery.reattach(model, surgery.described(state_dict)) and load_state_dict"
        )
    for prefix in ("module.", "_orig_mod."):  # of DistributedDataParallel and torch.compile
        consume_prefix_in_state_dict_if_present(state_dict, prefix)
    return cast(dict[str, Tensor], state_dict)


def misfits(model: nn.Module, saved: Shapes) -> list[str]:
    """What keeps saved tensors from being loaded strictly; empty where nothing does."""
    own = model.state_dict()
    # Of tensors under several names a file may hold one.
    held = {own[name].data_ptr() for name in saved if name in own}
    missing = [n for n in own if n not in saved and own[n].data_ptr() not in held]
    unknown = [name for name in saved if name not in own]
    shapes = [
        f"{name} is {shape} in the file and {tuple(own[name].shape)} in the network"
        for name, shape in saved.items()
        if name in own and tuple(own[name].shape) != shape
    ]
    return (
        ([f"not in the file: {', '.join(missing[:5])}"] if missing else [])
        + ([f"not in the network: {', '.join(unknown[:5])}"] if unknown else [])
        + shapes[:5]
    )


def take_dtypes(model: nn.Module, path: Path) -> None:
    """Give a network, in place, the floating-point dtypes that a safetensors file has."""
    with safe_open(str(path), framework="pt") as file:
        codes = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    dtypes = {name: FLOATS[code] for name, code in codes.items() if code in FLOATS}
    if len(set(dtypes.values())) == 1:
        model.to(next(iter(dtypes.values())))  # buffers that are in no file too
        return
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name in dtypes:
            tensor.data = tensor.data.to(dtypes[name])
