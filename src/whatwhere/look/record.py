"""Seeing the gates of a network while it runs, by forward hooks that are always taken away."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from whatwhere.gates import LOGIT_JOINS, Activation, Gate, Par, Watcher


def gates_in(model: nn.Module) -> dict[str, Gate | Par]:
    """The gates of a network by qualified name, in the order in which they were registered.

    Gates that a ``Par`` joins by their logits are no gates of their own: the ``Par`` is.

    >>> from whatwhere import CBAM
    >>> list(gates_in(CBAM(8))), list(gates_in(CBAM(8, order="channel+spatial")))
    (['gates.channel', 'gates.spatial'], ['gates'])
    """
    found: dict[str, Gate | Par] = {}
    joined: set[nn.Module] = set()
    for name, module in model.named_modules():
        if isinstance(module, Par) and module.join in LOGIT_JOINS:
            joined.update(module.parts)
        has_gate = isinstance(getattr(module, "activation", None), Activation)
        if isinstance(module, Gate | Par) and has_gate and module not in joined:
            found[name] = module
    return found


@contextmanager
def record(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Keep the gates of every call inside the block: qualified name -> one tensor per call.

    The names come in the order in which the gates first ran; a gate that did not run has no entry.
    Tensors are detached. On leaving, also by an exception, the hooks are gone and the model is as
    it was; inside, outputs and gradients have the bits they have outside, but for compiled networks
    and fused gates, which run as if they were not.

    >>> import torch
    >>> from whatwhere import CBAM
    >>> cbam = CBAM(8, start="identity")
    >>> with record(cbam) as recorded:
    ...     y = cbam(torch.randn(2, 8, 5, 5))
    >>> {name: tuple(gate.shape) for name, [gate] in recorded.items()}
    {'gates.channel': (2, 8, 1, 1), 'gates.spatial': (2, 1, 5, 5)}
    """
    recorded: dict[str, list[Tensor]] = {}
    handles = []
    inside = True
    try:
        for name, gate in gates_in(model).items():

            def keep(seen: Tensor, name: str = name) -> None:
                if inside:  # the hooks of a copy made inside stay
                    recorded.setdefault(name, []).append(seen)

            handles.append(gate.activation.register_forward_hook(Watcher(keep)))
        # Code that was compiled before the hooks came would not run them.
        with torch.compiler.set_stance("force_eager"):
            yield recorded
    finally:
        for handle in handles:
            handle.remove()
        inside = False
