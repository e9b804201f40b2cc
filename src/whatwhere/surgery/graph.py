"""One run of a network as a graph: tensor operations, and the module calls they ran in."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cached_property

from whatwhere.surgery.axes import Span


@dataclass(eq=False)
class Call:
    """One call of a module: what it was given and what it returned.

    ``arguments`` are those that were one tensor each, by position or keyword; ``output`` is the
    one tensor returned, if it was one.
    """

    name: str
    parent: "Call | None"
    given: tuple["Node", ...]
    arguments: dict[int | str, "Node"]
    returned: tuple["Node", ...] = ()
    output: "Node | None" = None

    def holds(self, node: "Node") -> bool:
        """Whether an operation ran inside this call."""
        call: Call | None = node.call
        while call is not None and call is not self:
            call = call.parent
        return call is self


@dataclass(eq=False)
class Node:
    """One operation's result: its inputs, its shape, and the module call that ran it.

    ``depth`` counts the convolutions before it; ``span`` are the axes of its channels, if known;
    ``fresh`` says that its memory is its own; ``kernel`` is a convolution's weight shape and
    ``groups`` its groups; ``spare`` marks a second result of an operation, such as indices.
    """

    operation: str
    inputs: tuple["Node", ...]
    shape: tuple[int, ...]
    call: Call
    depth: int
    span: Span | None
    fresh: bool
    kernel: tuple[int, ...] = ()
    groups: int = 1
    spare: bool = False

    @property
    def axis(self) -> int | None:
        """The channel axis, None where it is not known or not one."""
        return self.span[0] if self.span is not None and self.span[1] == self.span[0] + 1 else None

    @property
    def module(self) -> str:
        """The name of the innermost module that ran it."""
        return self.call.name

    @property
    def channels(self) -> int:
        """The length of the channel axis; 0 for what is no feature map."""
        return self.shape[self.axis] if self.axis is not None and self.resolution else 0

    @property
    def resolution(self) -> tuple[int, ...]:
        """The lengths of the position axes; empty for what is no feature map.

        Where the channels come last, two axes at least: (N, L, C) are tokens.
        """
        if self.axis == 1 and 3 <= len(self.shape) <= 5:
            return self.shape[2:]
        if self.axis == len(self.shape) - 1 and 4 <= len(self.shape) <= 5:
            return self.shape[1:-1]
        return ()


@dataclass
class Trace:
    """The operations and the module calls of one run, both in order; calls begin with the root."""

    nodes: list[Node] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    @cached_property
    def runs(self) -> Counter[str]:
        """How often each module ran."""
        return Counter(call.name for call in self.calls)

    @cached_property
    def users(self) -> dict[Node, list[Node]]:
        """Which operations used a node, in order; of several results only those used count."""
        found: dict[Node, list[Node]] = defaultdict(list)
        used = {each for node in self.nodes for each in node.inputs}
        for node in self.nodes:
            if node.spare and node not in used:
                continue
            for each in set(node.inputs):
                found[each].append(node)
        return found

    @cached_property
    def returning(self) -> dict[Node, list[Call]]:
        """The calls that returned a node as their one tensor, the innermost first."""
        found: dict[Node, list[Call]] = defaultdict(list)
        for call in self.calls:
            if call.output is not None:
                found[call.output].insert(0, call)
        return found

    @cached_property
    def taking(self) -> dict[Node, list[Call]]:
        """The calls with a node among their arguments, in order: the outermost first."""
        found: dict[Node, list[Call]] = defaultdict(list)
        for call in self.calls:
            for node in dict.fromkeys(call.arguments.values()):
                found[node].append(call)
        return found
