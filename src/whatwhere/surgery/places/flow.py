"""How feature maps flow from one operation to the next, and which resolutions they come through."""

from collections.abc import Sequence
from math import prod

from whatwhere.surgery.graph import Node, Trace

REDUCTIONS = ("mean", "sum", "amax", "max", "var", "std", "var_mean")


def carrying(node: Node) -> Sequence[Node]:
    """The inputs that an operation's feature map comes from; broadcast gates are none of them."""
    if node.operation in ("squeeze", "unsqueeze"):  # as torch does to pool sequences
        return node.inputs
    maps = [each for each in node.inputs if len(each.resolution) == len(node.resolution)]
    same = [each for each in maps if each.resolution == node.resolution]
    return same if same else maps


def lowest_resolutions(run: Trace) -> dict[Node, tuple[int, ...]]:
    """The smallest resolution that each feature map has come through."""
    lowest: dict[Node, tuple[int, ...]] = {}
    for node in run.nodes:
        before = [lowest[each] for each in carrying(node) if not pooled(each)]
        lowest[node] = min([node.resolution, *before], key=prod)
    return lowest


def pooled(node: Node) -> bool:
    """Whether a map of one position comes from a global mean or maximum."""
    while node.resolution and prod(node.resolution) == 1 and node.operation != "input":
        before = carrying(node)
        if "adaptive" in node.operation or node.operation in REDUCTIONS or not before:
            return True
        node = before[0]
    return False
