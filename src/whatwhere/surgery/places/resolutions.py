"""Places told by resolution: ends of stages, the bridge of a U-Net, and its skip connections."""

from collections.abc import Sequence
from math import prod

from torch import nn

from whatwhere.surgery.graph import Call, Node, Trace
from whatwhere.surgery.places.flow import carrying, lowest_resolutions, pooled
from whatwhere.surgery.places.site import Skipped, Wanted

# A change of resolution by less is padding, not sampling.
FACTOR = 1.5
# Convolutions that a block may have between its input and the one that changes the resolution.
LEADING = 2
# The way down and up again has at least these more convolutions than the skip connection; the
# pooled branch of a pyramid has one.
DETOUR = 2
JOINS = ("cat", "add", "add_")
# They change a resolution by broadcasting, or join.
UNSAMPLED = (*JOINS, "mul", "mul_", "expand", "constant_pad_nd")
SHARED = "what comes after on the way down sees the gate too"


def stage_ends(model: nn.Module, run: Trace) -> tuple[list[Wanted], list[Skipped]]:
    """The last feature map at each resolution on the way down, before the next stage samples it.

    Where a block does more before it samples, the end is the block's input. The stem's single
    convolution is no stage; the map that is pooled globally, or goes up again, ends the last one.
    """
    lowest = lowest_resolutions(run)
    last = max((node.depth for node in run.nodes), default=0)
    rank = next((len(node.resolution) for node in run.nodes if node.kernel), 0)
    found: dict[tuple[int, ...], Node] = {}
    for node in run.nodes:
        for source in node.inputs:
            users, after = run.users[source], node.resolution
            if source.operation == "unsqueeze" and source.inputs:  # a sequence, pooled as an image
                source, after = source.inputs[0], after[1:]
            if len(source.resolution) != rank or lowest[source] != source.resolution:
                continue
            if node.operation in UNSAMPLED or not _leaves(source.resolution, after, users):
                continue
            end = _input_of_block(source, node)
            if end.depth == last and prod(node.resolution) > prod(source.resolution):
                end = _input_of_head(end)
            known = found.get(end.resolution)
            if not pooled(end) and (known is None or end.depth >= known.depth):
                found[end.resolution] = end
    ends, depth = [], 1
    for end in sorted(found.values(), key=run.nodes.index):
        if end.depth > depth:
            ends.append(Wanted(end, f"the end of a stage in {_owner(model, end)}"))
            depth = end.depth
    return ends, []


def bridges(model: nn.Module, run: Trace) -> tuple[list[Wanted], list[Skipped]]:
    """The deepest feature map between the way down and the way up, with its skip connections."""
    lowest = lowest_resolutions(run)
    bottom: Node | None = None
    for _, _, up in _joins(run, lowest):
        # Up from the join's deep operand to where it was smallest.
        node = riser = up
        while lowest[node] != node.resolution:
            riser = node
            node = next(each for each in carrying(node) if lowest[each] == lowest[node])
        node = _input_of_block(node, riser)
        if bottom is None or prod(node.resolution) < prod(bottom.resolution):
            bottom = node
    if bottom is None:
        return [], []
    return [Wanted(bottom, f"the bridge in {_owner(model, bottom)}")], []


def skips(model: nn.Module, run: Trace) -> tuple[list[Wanted], list[Skipped]]:
    """What skip connections hand from the way down to where the way up joins them.

    If a module takes that tensor for the join alone, the gate goes before it, on that argument;
    else after the module that made it, where the way down sees the gate too.
    """
    wanted = []
    for join, skip, _ in _joins(run, lowest_resolutions(run)):
        users = _leading_to(run, skip, join)
        note = "" if set(users) == set(run.users[skip]) else SHARED
        wanted.append(Wanted(skip, f"a skip into {_owner(model, join)}", tuple(users), note))
    return wanted, []


def _leading_to(run: Trace, start: Node, join: Node) -> list[Node]:
    """The uses of a tensor that bring it to the join as it is: the join, crops and pads."""
    leading = []
    for user in run.users[start]:
        node = user
        while node is not join and len(run.users[node]) == 1 and node.depth == start.depth:
            node = run.users[node][0]
        if node is join and (user is join or user.depth == start.depth):
            leading.append(user)
    return leading


def _owner(model: nn.Module, node: Node) -> str:
    return node.module if node.module != "" else type(model).__name__


def _leaves(before: Sequence[int], after: Sequence[int], users: Sequence[Node]) -> bool:
    """Whether an operation from one resolution to another ends the stage of its input."""
    if not after or (prod(after) == 1 and prod(before) > 1):
        # Pooled globally or flattened: the end, unless the map goes on beside its descriptor.
        return all(prod(user.resolution) <= 1 for user in users)
    if len(after) != len(before):
        return False
    if _ratio(before, after) >= FACTOR:
        return all(a >= b for a, b in zip(before, after, strict=True))
    return _ratio(after, before) >= FACTOR


def _ratio(large: Sequence[int], small: Sequence[int]) -> float:
    return max(a / b for a, b in zip(large, small, strict=True))


def _input_of_block(source: Node, node: Node) -> Node:
    """The input of the outermost module that samples the source as one of its first steps."""
    end = source
    call: Call | None = node.call
    while call is not None and call.parent is not None:
        if not call.holds(source):
            call = call.parent
            continue
        inputs = [
            each
            for each in call.given
            if each.resolution == source.resolution and source.depth - each.depth <= LEADING
        ]
        if not inputs:
            break
        end = inputs[0]
        call = call.parent
    return end


def _input_of_head(source: Node) -> Node:
    """What the module was given that made the answer, which is only scaled up from here on."""
    end = source
    call: Call | None = source.call
    while call is not None and call.parent is not None:
        end = next((each for each in call.given if each.resolution == end.resolution), end)
        call = call.parent
    return end


def _joins(run: Trace, lowest: dict[Node, tuple[int, ...]]) -> list[tuple[Node, Node, Node]]:
    """Joins of a map from the way down with one that comes up again: (join, skip, up)."""
    found = []
    for node in run.nodes:
        if node.operation not in JOINS or not node.resolution:
            continue
        maps = [each for each in node.inputs if each.resolution == node.resolution]
        across = [each for each in maps if lowest[each] == each.resolution]
        up = [each for each in maps if prod(lowest[each]) < prod(each.resolution)]
        for skip in across:
            deep = [each for each in up if each.depth >= skip.depth + DETOUR]
            if deep:
                found.append((node, _before_crop(skip), deep[0]))
    return found


def _before_crop(node: Node) -> Node:
    while node.operation in ("slice", "constant_pad_nd", "clone", "alias") and node.inputs:
        node = node.inputs[0]
    return node
