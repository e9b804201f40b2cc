"""Gates whose last pass is also the addition and the ReLU of their block, and the sites for it.

Where one run of the network shows that a gate's output is added to a shortcut and to nothing else,
the gate may wait for that (``deferred``). Whether it does is decided in every call.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from whatwhere.gates import CBAM, Activation, DenseMix, PositionConv, Seq
from whatwhere.gates.mixes import BATCH_NORMS, CONVOLUTIONS
from whatwhere.gates.shortcuts import global_hooks, is_plain_gate, quiet
from whatwhere.ops.routing import route
from whatwhere.surgery.deferred import Deferred, Last
from whatwhere.surgery.gated import CHILD, gate_at, gated, gated_sites
from whatwhere.surgery.graph import Node, Trace
from whatwhere.surgery.trace import trace

# What gates are made of, beside the gates themselves. A ``Par`` has no last pass to give away: its
# gate is as large as x, and multiplied by plain PyTorch.
_PARTS = frozenset(
    {CBAM, Seq, DenseMix, PositionConv, Activation, nn.Linear}
    | {*CONVOLUTIONS.values(), *BATCH_NORMS.values()}
)


@dataclass(frozen=True)
class Fusion:
    """How a gate's last pass goes on.

    Args:
        last: "add", or "relu" for a ReLU after it.
        inplace: whether the site, in eval mode, makes a tensor that nobody but the gate reads:
            one of its own, and it is a module of torch's, which keep none for later.
        passed: the modules, beside the site and its gate, that are given what waits or return
            it; their hooks would see it.
    """

    last: Last
    inplace: bool
    passed: tuple[nn.Module, ...]


def apply_attention(site: nn.Module, _inputs: Any, output: Any) -> Any:
    """The hook of every site: its output times the gate, or what stands for that."""
    attention = gate_at(site)
    fusion: Fusion | None = attention.fusion
    if fusion is None or torch.compiler.is_compiling() or not _may_wait(site, fusion, output):
        return gated(attention, output)
    inplace = fusion.inplace and not site.training and not torch.is_grad_enabled()
    gates = attention._modules.get("gates", attention)  # those of a CBAM
    x, finish = gates.last_pass(output)
    return Deferred(x, finish, last=fusion.last, inplace=inplace and not output.requires_grad)


def _may_wait(site: nn.Module, fusion: Fusion, x: Tensor) -> bool:
    return (
        type(x) is Tensor
        and len(site._forward_hooks) == 1
        and not (site._backward_hooks or site._backward_pre_hooks or global_hooks())
        and all(map(quiet, fusion.passed))
        and _is_plain(cast(nn.Module, site._modules[CHILD]))
        and route("apply_gates", x, ()) is not None
    )


def _is_plain(module: Any) -> bool:
    """Whether a gate ends in its ``last_pass``, and nobody sees what happens inside."""
    known = quiet(module) if type(module) in _PARTS else is_plain_gate(module)
    return known and all(map(_is_plain, module._modules.values()))


def fuse(model: nn.Module, *, example: Tensor | None = None) -> dict[str, Last]:
    """Let gates of an attended network add the shortcut and apply the ReLU in their last pass.

    Equal up to rounding, and so are gradients. ``attend(..., fuse=True)`` does this; a network
    whose gates came from a checkpoint needs it anew.

    Args:
        model: a network that ``attend`` or ``whatwhere.checkpoints.load`` gave gates.
        example: an input, where the model's first convolution does not show it.

    Returns:
        The names of the sites that fuse, with what ends the pass: "add" or "relu".

    Raises:
        ValueError: none does; the network is unchanged.

    >>> import whatwhere
    >>> from whatwhere.study.networks import SmallResNet
    >>> model = SmallResNet(10, channels=(8, 16), blocks=(1, 1))
    >>> report = whatwhere.attend(model, "cbam")
    >>> fuse(model)
    {'stages.0.0.bn2': 'relu', 'stages.1.0.bn2': 'relu'}
    """
    run = trace(model, example)
    found: dict[str, Fusion] = {}
    for site, description in gated_sites(model):
        plain = description.argument is None and not description.channels_last
        fusion = _fusion(model, run, description.site) if plain else None
        if fusion is not None:
            found[description.site] = fusion
            cast(Any, site._modules[CHILD]).fusion = fusion
    if not found:
        raise ValueError(
            f"fuse: expected {type(model).__name__} to have a gate, of this library and no Par, "
            "whose output is added to a tensor of its shape and used nowhere else, found none"
        )
    return {name: fusion.last for name, fusion in found.items()}


def _fusion(model: nn.Module, run: Trace, site: str) -> Fusion | None:
    gate = f"{site}.{CHILD}"
    own = [call for call in run.calls if call.name == gate]
    if len(own) != 1 or own[0].output is None or not _is_plain(model.get_submodule(gate)):
        return None
    (x,), gated = own[0].given, own[0].output
    outer = {*run.calls[0].given, *run.calls[0].returned}
    total = _only_sum(run.users, gated)
    if total is None or gated in outer:
        return None
    after = run.nodes[run.nodes.index(total) + 1 :]
    relu = (
        total not in outer
        and run.users[total] == after[:1]
        and after[0].operation in ("relu", "relu_")
    )
    held = {gated, total} if relu else {gated}
    passed = dict.fromkeys(
        call.name
        for call in run.calls
        if held.intersection((*call.given, *call.returned))
        and call.name != site
        and not f"{call.name}.".startswith(f"{gate}.")
    )
    return Fusion(
        last="relu" if relu else "add",
        inplace=x.module == site
        and x.fresh
        and type(model.get_submodule(site)).__module__.startswith("torch.nn.")
        and all(f"{node.module}.".startswith(f"{gate}.") for node in run.users[x]),
        passed=tuple(map(model.get_submodule, passed)),
    )


def _only_sum(users: dict[Node, list[Node]], gated: Node) -> Node | None:
    """The addition to a tensor of the same shape that is all that happens to a node."""
    if len(users[gated]) != 1:
        return None
    total = users[gated][0]
    fits = [each.shape for each in total.inputs] == [gated.shape] * 2
    if fits and total.inputs.count(gated) == 1 and total.operation == "add":
        return total
    return total if fits and total.operation == "add_" and total.inputs[0] is gated else None
