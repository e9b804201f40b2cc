"""Places inside blocks: after depthwise-separable convolutions, and existing channel gates."""

from math import prod

from torch import nn

from whatwhere.surgery.graph import Node, Trace
from whatwhere.surgery.places.residual import ADDITIONS, fork_of
from whatwhere.surgery.places.site import Skipped, Wanted

MULTIPLICATIONS = ("mul", "mul_")
# They take one tensor and return one of its shape, and are no activation all the same.
NOT_ACTIVATIONS = ("convolution", "mm", "bmm", "_softmax", "_log_softmax", "cumsum")


def separable_ends(_model: nn.Module, run: Trace) -> tuple[list[Wanted], list[Skipped]]:
    """After each depthwise-separable convolution, with its norm and activation.

    That is a convolution of one filter per channel, then the next 1×1 convolution at the same
    resolution, then what follows it and nothing else.
    """
    wanted = []
    for node in run.nodes:
        if not node.kernel or node.groups == 1 or node.kernel[1] != 1 or prod(node.kernel[2:]) == 1:
            continue
        pointwise = _next_convolution(run, node)
        if pointwise is None or pointwise.groups != 1 or prod(pointwise.kernel[2:]) != 1:
            continue
        wanted.append(Wanted(_end_of_chain(run, pointwise), f"{node.module}, depthwise"))
    return wanted, []


def _next_convolution(run: Trace, start: Node) -> Node | None:
    seen = {start}
    for node in run.nodes[run.nodes.index(start) + 1 :]:
        if seen.intersection(node.inputs) and node.depth <= start.depth + 4:
            at_once = node.resolution == start.resolution
            if node.kernel and at_once:
                return node
            seen.add(node)
    return None


def _end_of_chain(run: Trace, node: Node) -> Node:
    """The last of what happens to a tensor alone, or summed with convolutions parallel to it."""
    while len(run.users[node]) == 1:
        user = run.users[node][0]
        if (
            user.shape != node.shape
            or user.operation in NOT_ACTIVATIONS
            or "pool" in user.operation
        ):
            break
        if len(user.inputs) > 1 and not (user.operation in ADDITIONS and _parallel(*user.inputs)):
            break
        node = user
    return node


def _parallel(first: Node, second: Node) -> bool:
    """Whether both are one convolution at most from where they parted, and neither a shortcut."""
    fork = fork_of(first, second)
    if fork is None or fork in (first, second):
        return False
    return max(first.depth, second.depth) - fork.depth <= 1


def channel_gates(_model: nn.Module, run: Trace) -> tuple[list[Wanted], list[Skipped]]:
    """Modules that multiply what they are given by one number per channel: squeeze-and-excitation.

    Told by what they do, so ECA and other channel gates are among them.
    """
    wanted = []
    for call in run.calls:
        if call.output is None or call.parent is None or len(call.arguments) != 1:
            continue
        (x,) = call.arguments.values()
        y = call.output
        factors = [each for each in y.inputs if each is not x]
        if (
            y.operation in MULTIPLICATIONS
            and x in y.inputs
            and x.shape == y.shape
            and len(factors) == 1
            and _is_descriptor(factors[0], x)
            and call.holds(factors[0])
            and run.returning[y][0] is call
        ):
            wanted.append(Wanted(y, call.name))
    return wanted, []


def _is_descriptor(node: Node, x: Node) -> bool:
    while node.operation in ("expand", "sigmoid", "hardsigmoid", "alias") and len(node.inputs) == 1:
        node = node.inputs[0]
    return node.shape[1:2] == x.shape[1:2] and prod(node.shape[2:]) == 1 < prod(x.shape[2:])
