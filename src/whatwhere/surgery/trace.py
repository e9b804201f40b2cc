"""What a network does, seen from outside: one run, as a graph of tensor operations and modules.

The run is on the meta device where the network allows it, so that it costs no arithmetic and no
memory; code that needs values runs on real zeros instead. Nothing of the network is changed.
"""

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
    """One operation's result: its inputs, shape, the module running it, convolutions before it."""

    operation: str
    inputs: tuple["Node", ...]
    shape: tuple[int, ...]
    module: str
    depth: int


@dataclass
class Trace:
    """The operations of one run in order, and which node each module call returned."""

    nodes: list[Node] = field(default_factory=list)
    outputs: list[tuple[str, Node]] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)


def trace(model: nn.Module, example: Tensor | None = None) -> Trace:
    """Run the model once in eval mode and record what happened.

    Args:
        model: any network whose forward takes one tensor.
        example: an input; without it, its shape is read off the model.

    Raises:
        ValueError: no example was given and none could be worked out, or the run failed.
    """
    given = example is not None
    inputs = example_input(model) if example is None else example
    with evaluating(model):
        try:
            return _run(model, inputs, meta=True)
        except Exception:  # anything a data-dependent forward may raise on tensors without values
            try:
                return _run(model, inputs, meta=False)
            except Exception as error:
                source = "example" if given else "an input worked out from its first convolution"
                raise ValueError(
                    f"expected {type(model).__name__} to run on {source} of shape "
                    f"{tuple(inputs.shape)}, got {type(error).__name__}: {error}; "
                    "pass example=, a tensor the model takes"
                ) from error


def example_input(model: nn.Module) -> Tensor:
    """A float32 input of zeros for the model, from its own record of it or its first convolution.

    Raises:
        ValueError: the model has no convolution to read it off.
    """
    record = getattr(model, "pretrained_cfg", None)
    if isinstance(record, dict) and record.get("input_size"):
        return torch.zeros(1, *record["input_size"])
    for module in model.modules():
        for kind, ndim in CONVOLUTIONS.items():
            if isinstance(module, kind):
                return torch.zeros(1, module.in_channels, *DEFAULT_SIZES[ndim])
    raise ValueError(
        f"expected {type(model).__name__} to have a convolution that shows its input's channels, "
        "got none; pass example=, a tensor the model takes"
    )


def _run(model: nn.Module, example: Tensor, *, meta: bool) -> Trace:
    device = "meta" if meta else next((p.device for p in model.parameters()), example.device)
    recorder = _Recorder()
    with _watching(model, recorder), recorder:
        if meta:
            state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
            weights = {name: tensor.to("meta") for name, tensor in state.items()}
            torch.func.functional_call(model, weights, (example.to("meta"),))
        else:
            model(example.to(device))
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
        depth = max((node.depth for node in inputs), default=0) + ("convolution" in name)
        for result in tree_leaves(results):
            if isinstance(result, Tensor):
                node = Node(name, inputs, tuple(result.shape), self.stack[-1], depth)
                self.trace.nodes.append(node)
                self._node_of[id(result)] = node
                self._alive.append(result)
        return results

    def returned(self, name: str, output: object) -> None:
        """Note which node a module's call returned."""
        self.trace.calls[name] = self.trace.calls.get(name, 0) + 1
        if isinstance(output, Tensor) and id(output) in self._node_of:
            self.trace.outputs.append((name, self._node_of[id(output)]))


@contextmanager
def _watching(model: nn.Module, recorder: _Recorder) -> Iterator[None]:
    handles = []
    for name, module in model.named_modules():

        def enter(_module: nn.Module, _inputs: Any, name: str = name) -> None:
            recorder.stack.append(name)

        def leave(_module: nn.Module, _inputs: Any, output: Any, name: str = name) -> None:
            recorder.stack.pop()
            recorder.returned(name, output)

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
