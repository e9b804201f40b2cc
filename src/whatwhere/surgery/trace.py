"""What a network does, seen from outside: one run, as a graph of tensor operations and modules.

What runs is a copy, whose caches and counters may change as they like. Its weights are on the meta
device where the network allows it, so that the run costs no arithmetic and no memory; code that
needs values runs on real zeros, with the weights shared.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from whatwhere.evaluation import evaluating
from whatwhere.surgery.axes import channel_span
from whatwhere.surgery.graph import Call, Node, Trace
from whatwhere.surgery.inputs import Example, called_with, guesses, moved

REAL_GUESSES = 2  # sizes tried with arithmetic, after all were tried without


def trace(model: nn.Module, example: Example | None = None) -> Trace:
    """Run the model once in eval mode and record what happened.

    Args:
        model: any network.
        example: what to call it with, as of ``whatwhere.attend``; without it, sizes are tried
            until one works. Its dtype becomes that of the model's weights.

    Raises:
        ValueError: no example was given and none could be worked out, or the run failed.
    """
    weights = next((p for p in model.parameters() if p.is_floating_point()), None)
    dtype = None if weights is None else weights.dtype
    device = torch.device("cpu") if weights is None else weights.device
    tried = [example] if example is not None else list(guesses(model))
    for each in tried:
        called_with(each)
    first: Exception | None = None
    without_values = _on_meta(model)
    for each in tried:
        try:
            return _run(without_values, moved(each, "meta", dtype))
        except Exception:  # anything a data-dependent forward may raise on tensors without values
            continue
    for each in tried[:REAL_GUESSES]:
        try:
            return _run(_with_shared_weights(model), _valued(each, device, dtype))
        except Exception as error:
            first = error if first is None else first
    source = "example" if example is not None else "an input of its first convolution's channels,"
    shapes = [tuple(leaf.shape) for leaf in tree_leaves(tried[0]) if isinstance(leaf, Tensor)]
    raise ValueError(
        f"expected {type(model).__name__} to run on {source} of shape "
        f"{', '.join(map(str, shapes))}, got {type(first).__name__}: {first}; "
        "pass example=, what the model is called with"
    ) from first


def _valued(example: Example, device: torch.device, dtype: torch.dtype | None) -> Example:
    if isinstance(example, Tensor) and example.is_meta and device.type != "meta":
        return torch.zeros(example.shape, device=device, dtype=dtype)
    return moved(example, device, dtype)


def _on_meta(model: nn.Module) -> nn.Module:
    tensors = [*model.parameters(), *model.buffers()]
    try:
        return copy.deepcopy(model, {id(tensor): _meta(tensor) for tensor in tensors})
    except Exception:  # some hold tensors that can't be copied, as of an old weight norm
        return model


def _meta(tensor: Tensor) -> Tensor:
    empty = tensor.detach().to("meta")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(empty, requires_grad=tensor.requires_grad)
    return empty


def _with_shared_weights(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model, {id(tensor): tensor for tensor in model.parameters()})
    except Exception:  # as above
        return model


def _run(model: nn.Module, example: Example) -> Trace:
    args, kwargs = called_with(example)
    recorder = _Recorder()
    with evaluating(model), _watching(model, recorder), recorder:
        model(*args, **kwargs)
    return recorder.trace


class _Recorder(TorchDispatchMode):
    """Builds the graph: every operation on tensors becomes a node."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace = Trace()
        self.root = Call("", None, (), {})
        self.stack: list[Call] = []
        self._node_of: Any = WeakTensorKeyDictionary()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        results = func(*args, **({} if kwargs is None else kwargs))
        inputs = self._nodes((args, kwargs))
        name = func.overloadpacket.__name__
        convolution = "convolution" in name
        depth = convolution + max((node.depth for node in inputs), default=0)
        known = [(node.shape, node.span) for node in inputs]
        fresh = all(each.alias_info is None for each in func._schema.returns)
        call = self.stack[-1] if self.stack else self.root
        for index, result in enumerate(tree_leaves(results)):
            if isinstance(result, Tensor):
                shape = tuple(result.shape)
                span = channel_span(name, args, known, shape)
                node = Node(name, inputs, shape, call, depth, span, fresh, spare=index > 0)
                if convolution:
                    node.kernel = tuple(args[1].shape) if len(args) > 1 else ()
                    node.groups = args[8] if len(args) > 8 else 1
                self._known(result, node)
        return results

    def entered(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note which nodes a module's call took; the root's are the first of all."""
        parent = self.stack[-1] if self.stack else None
        call = self.root if parent is None else Call(name, parent, (), {})
        self.trace.calls.append(call)
        self.stack.append(call)
        if parent is None:
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, Tensor):
                    span = (1, 2) if leaf.ndim > 2 else None
                    node = Node("input", (), tuple(leaf.shape), call, 0, span, fresh=False)
                    self._known(leaf, node)
        call.given = self._nodes((args, kwargs))
        keyed: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
        for key, value in keyed:
            if isinstance(value, Tensor) and value in self._node_of:
                call.arguments[key] = self._node_of[value]

    def returned(self, output: object) -> None:
        """Note which nodes a module's call returned."""
        call = self.stack.pop()
        call.returned = self._nodes(output)
        if isinstance(output, Tensor):
            call.output = self._node_of.get(output)

    def _known(self, tensor: Tensor, node: Node) -> None:
        self.trace.nodes.append(node)
        self._node_of[tensor] = node

    def _nodes(self, tensors: object) -> tuple[Node, ...]:
        leaves = [leaf for leaf in tree_leaves(tensors) if isinstance(leaf, Tensor)]
        return tuple(self._node_of[leaf] for leaf in leaves if leaf in self._node_of)


@contextmanager
def _watching(model: nn.Module, recorder: _Recorder) -> Iterator[None]:
    handles = []
    for name, module in model.named_modules():

        def enter(_module: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
            recorder.entered(name, args, kwargs)

        def leave(_module: nn.Module, _inputs: Any, output: Any) -> None:
            recorder.returned(output)

        # What other hooks make of inputs and outputs is part of what the network does.
        handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
