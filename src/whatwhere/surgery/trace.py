"""What a network does, seen from outside: one run, as a graph of tensor operations and modules.

What runs is a copy, whose caches and counters may change as they like. Its weights are on the meta
device where the network allows it, so that the run costs no arithmetic and no memory; code that
needs values runs on real zeros, with the weights shared.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from whatwhere.evaluation import evaluating

DEFAULT_SIZES = {1: (256,), 2: (224, 224), 3: (16, 112, 112)}
CONVOLUTIONS = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}


@dataclass(eq=False)
class Node:
    """One operation's result: its inputs, its shape, and the module that ran it.

    ``depth`` counts the convolutions before it; ``channels`` are those of the last of them;
    ``fresh`` says that its memory is its own.
    """

    operation: str
    inputs: tuple["Node", ...]
    shape: tuple[int, ...]
    module: str
    depth: int
    channels: int | None
    fresh: bool


@dataclass
class Trace:
    """The operations of one run in order, and which node each module call returned.

    ``passed`` holds all nodes that module calls took or returned, ``outputs`` those that were the
    one tensor returned.
    """

    nodes: list[Node] = field(default_factory=list)
    outputs: list[tuple[str, Node]] = field(default_factory=list)
    passed: list[tuple[str, Node]] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)


def trace(model: nn.Module, example: Tensor | None = None) -> Trace:
    """Run the model once in eval mode and record what happened.

    Args:
        model: any network whose forward takes one tensor.
        example: an input; without it, its shape is read off the model. Its dtype becomes that of
            the model's weights.

    Raises:
        ValueError: no example was given and none could be worked out, or the run failed.
    """
    given = example is not None
    inputs = example_input(model) if example is None else example
    if not isinstance(inputs, Tensor):
        raise ValueError(f"expected example to be a tensor, got {type(inputs).__name__}")
    weights = next((p for p in model.parameters() if p.is_floating_point()), None)
    if weights is not None and inputs.is_floating_point():
        inputs = inputs.to(weights.dtype)
    try:
        return _run(_on_meta(model), inputs.to("meta"))
    except Exception:  # anything a data-dependent forward may raise on tensors without values
        try:
            device = inputs.device if weights is None else weights.device
            return _run(_with_shared_weights(model), inputs.to(device))
        except Exception as error:
            source = "example" if given else "an input of its first convolution's channels,"
            raise ValueError(
                f"expected {type(model).__name__} to run on {source} of shape "
                f"{tuple(inputs.shape)}, got {type(error).__name__}: {error}; "
                "pass example=, a tensor the model takes"
            ) from error


def example_input(model: nn.Module) -> Tensor:
    """Zeros for the model: channels of its first convolution, the size it keeps a record of.

    Raises:
        ValueError: the model has no convolution to read the channels off.
    """
    for module in model.modules():
        for kind, ndim in CONVOLUTIONS.items():
            if isinstance(module, kind):
                size = DEFAULT_SIZES[ndim]
                record = getattr(model, "pretrained_cfg", None)  # timm's
                if isinstance(record, dict) and len(record.get("input_size", ())) == ndim + 1:
                    size = tuple(record["input_size"][1:])
                return torch.zeros(1, module.in_channels, *size)
    raise ValueError(
        f"expected {type(model).__name__} to have a convolution that shows its input's channels, "
        "got none; pass example=, a tensor the model takes"
    )


def _on_meta(model: nn.Module) -> nn.Module:
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): _meta(tensor) for tensor in tensors})


def _meta(tensor: Tensor) -> Tensor:
    empty = tensor.detach().to("meta")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(empty, requires_grad=tensor.requires_grad)
    return empty


def _with_shared_weights(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model, {id(tensor): tensor for tensor in model.parameters()})
    except Exception:  # some hold tensors that can't be copied, as of an old weight norm
        return model


def _run(model: nn.Module, inputs: Tensor) -> Trace:
    recorder = _Recorder()
    with evaluating(model), _watching(model, recorder), recorder:
        model(inputs)
    return recorder.trace


class _Recorder(TorchDispatchMode):
    """Builds the graph: every operation on tensors becomes a node."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace = Trace()
        self.stack: list[str] = [""]
        self._node_of: dict[int, Node] = {}
        self._alive: list[Tensor] = []  # an id is unique only while its tensor lives

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        results = func(*args, **({} if kwargs is None else kwargs))
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        inputs = tuple(self._node_of[id(t)] for t in tensors if id(t) in self._node_of)
        name = func.overloadpacket.__name__
        convolution = "convolution" in name
        deepest = max(inputs, key=lambda node: node.depth, default=None)
        depth = convolution + (0 if deepest is None else deepest.depth)
        channels = None if deepest is None else deepest.channels
        fresh = all(each.alias_info is None for each in func._schema.returns)
        for result in tree_leaves(results):
            if isinstance(result, Tensor):
                shape = tuple(result.shape)
                channels = shape[1] if convolution else channels
                node = Node(name, inputs, shape, self.stack[-1], depth, channels, fresh)
                self.trace.nodes.append(node)
                self._node_of[id(result)] = node
                self._alive.append(result)
        return results

    def entered(self, name: str, inputs: object) -> None:
        """Note which nodes a module's call took."""
        self.stack.append(name)
        self._passed(name, inputs)

    def returned(self, name: str, output: object) -> None:
        """Note which nodes a module's call returned."""
        self.stack.pop()
        self._passed(name, output)
        self.trace.calls[name] = self.trace.calls.get(name, 0) + 1
        if isinstance(output, Tensor) and id(output) in self._node_of:
            self.trace.outputs.append((name, self._node_of[id(output)]))

    def _passed(self, name: str, tensors: object) -> None:
        nodes = [self._node_of.get(id(leaf)) for leaf in tree_leaves(tensors)]
        self.trace.passed += [(name, node) for node in nodes if node is not None]


@contextmanager
def _watching(model: nn.Module, recorder: _Recorder) -> Iterator[None]:
    handles = []
    for name, module in model.named_modules():

        def enter(_module: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
            recorder.entered(name, (args, kwargs))

        def leave(_module: nn.Module, _inputs: Any, output: Any, name: str = name) -> None:
            recorder.returned(name, output)

        handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
