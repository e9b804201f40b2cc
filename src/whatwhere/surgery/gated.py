"""What a network with gates looks like: each gate is a child of its site, and says what it is."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.fx import Proxy

from whatwhere.gates import Start

CHILD = "attention"


@dataclass(frozen=True)
class AttachedGate:
    """What was put where: enough to build the same gate again.

    ``argument`` is which of the site's arguments the gate multiplies, None for its output;
    ``replaces`` says that the site stands for a module that was there before, ``channels_last``
    that what it multiplies has its channels on the last axis.
    """

    site: str
    gate: str
    channels: int
    ndim: int
    start: Start
    options: dict[str, Any]
    argument: int | str | None = None
    replaces: bool = False
    channels_last: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-able values."""
        return asdict(self)


class Replacement(nn.Module):
    """Stands where a module was, hands on what it is given, and keeps that module for later."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.original = (original,)  # in a tuple it is no child: not trained, not saved

    def forward(self, x: Tensor) -> Tensor:
        """The input; the gate is applied to it by the hook of the site."""
        return x

    def restored(self, model: nn.Module) -> nn.Module:
        """The module that was here, on the network's device and in its mode."""
        (module,) = self.original
        own = next(module.parameters(), None)
        if own is not None:
            like = next((p for p in model.parameters() if p.is_floating_point()), own)
            module.to(device=like.device, dtype=like.dtype)
        return module.train(self.training)


def swap(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the one with this qualified name."""
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, module)


def apply_to_argument(
    site: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The hook of sites whose argument is gated."""
    gate = gate_at(site)
    key: int | str = gate.attachment.argument
    if isinstance(key, str):
        return args, {**kwargs, key: gated(gate, kwargs[key])}
    return (*args[:key], gated(gate, args[key]), *args[key + 1 :]), kwargs


def gate_at(site: nn.Module) -> Any:
    """The gate of a site.

    Raises:
        RuntimeError: it has none, and hooks that were to apply one.
    """
    gate = site._modules.get(CHILD)
    if gate is None:  # fusing and quantising move a module's hooks to the one in its place
        raise RuntimeError(
            f"a {type(site).__name__} took the place and the hooks of a module with a gate, and "
            "not the gate: prepare, fuse or convert the network first, then attend"
        )
    return gate


def gated(gate: Any, x: Any) -> Any:
    """The gate's output for a feature map in the network's own layout."""
    if gate.attachment.channels_last:
        # In memory this is torch's channels_last, which gates take as it is.
        return _called(gate, x.movedim(-1, 1)).movedim(1, -1)
    return _called(gate, x)


def _called(gate: Any, x: Any) -> Any:
    if isinstance(x, Proxy):  # of torch.fx, whose graph has a gate as one node
        tracer: Any = x.tracer
        return tracer.create_proxy("call_module", tracer.path_of_module(gate), (x,), {})
    return gate(x)


def gated_sites(model: nn.Module) -> list[tuple[nn.Module, AttachedGate]]:
    """The sites that have gates, by their names in this model.

    It may be a part of the one attended, or hold it.
    """
    found = []
    for name, site in model.named_modules():
        description = getattr(getattr(site, CHILD, None), "attachment", None)
        if isinstance(description, AttachedGate):
            found.append((site, replace(description, site=name)))
    return found
