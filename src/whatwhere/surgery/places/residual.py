"""The end of every residual branch, just before its addition: CBAM's place."""

from torch import nn

from whatwhere.surgery.graph import Node, Trace
from whatwhere.surgery.places.flow import lowest_resolutions, pooled
from whatwhere.surgery.places.site import Skipped, Wanted

ADDITIONS = ("add", "add_")
SLICES = ("slice", "narrow", "split", "split_with_sizes")
SQUASHED = ("sigmoid", "hardsigmoid", "tanh", "_softmax")
Addition = tuple[Node, Node, Node]


def branch_ends(model: nn.Module, run: Trace) -> tuple[list[Wanted], list[Skipped]]:
    """An addition of two feature maps of one shape ends a block when one is deeper.

    One operand, the branch, has more convolutions since the two parted; the other, the shortcut,
    has two at most, of a depthwise-separable pair. The gate goes after the module that returned
    the branch. Not meant are sums of gates, skip connections, and one convolution in parallel
    parts, of which one is a norm. Additions nested in the branch of another addition of the same
    module are part of that branch (the splits of a Res2Net block).
    """
    lowest = lowest_resolutions(run)
    additions = [a for a in (_residual_addition(node, lowest) for node in run.nodes) if a]
    additions = [a for a in additions if not any(_nested(a, other) for other in additions)]
    wanted = []
    for addition, branch, _ in additions:
        while branch.operation in SLICES and branch.inputs:
            branch = branch.inputs[0]
        wanted.append(Wanted(branch, addition.module if addition.module else type(model).__name__))
    return wanted, []


def _residual_addition(node: Node, lowest: dict[Node, tuple[int, ...]]) -> Addition | None:
    # (the addition, its branch, its shortcut)
    if node.operation not in ADDITIONS or len(node.inputs) != 2:
        return None
    first, second = node.inputs
    if first.shape != second.shape or len(node.shape) < 3 or first.depth == second.depth:
        return None
    branch, shortcut = (first, second) if first.depth > second.depth else (second, first)
    if branch.operation in SQUASHED or lowest[branch] != lowest[shortcut] or pooled(branch):
        return None
    fork = fork_of(branch, shortcut)
    if fork is None or shortcut.depth - fork.depth > 2:
        return None
    if shortcut is not fork and branch.depth - fork.depth < 2 and _has_norm(shortcut, fork):
        return None
    return node, branch, shortcut


def fork_of(branch: Node, shortcut: Node) -> Node | None:
    """The deepest tensor that both come from, one of them perhaps itself."""
    behind = _ancestors(shortcut)
    found: Node | None = None
    seen: set[Node] = set()
    open_nodes = [branch]
    while open_nodes:
        node = open_nodes.pop()
        if node in behind:
            found = node if found is None or node.depth > found.depth else found
        elif node not in seen:
            seen.add(node)
            open_nodes.extend(node.inputs)
    return found


def _ancestors(node: Node) -> set[Node]:
    seen: set[Node] = set()
    open_nodes = [node]
    while open_nodes:
        each = open_nodes.pop()
        if each not in seen:
            seen.add(each)
            open_nodes.extend(each.inputs)
    return seen


def _has_norm(shortcut: Node, fork: Node) -> bool:
    node = shortcut
    while node is not fork and node.inputs:
        if "norm" in node.operation:
            return True
        node = node.inputs[0]
    return False


def _nested(inner: Addition, outer: Addition) -> bool:
    node, _, _ = inner
    addition, branch, shortcut = outer
    return (
        node is not addition
        and node.module == addition.module
        and node in _ancestors(branch)
        and node not in _ancestors(shortcut)
    )
