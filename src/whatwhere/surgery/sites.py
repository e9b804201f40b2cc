"""Where a gate can go: the ends of residual branches, and modules named by the caller.

A site is a module whose output the gate multiplies. Everything is read off one run of the network
(``trace``), not off class names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn

from whatwhere.surgery.trace import Node, Trace, trace

# Containers run every child they have, so a gate can't be added to them as a child.
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
# Between the branch's last module and its addition: scaling and dropping paths.
ELEMENTWISE = {"mul", "mul_", "div", "div_", "native_dropout", "clone", "alias", "detach"}


@dataclass(frozen=True)
class Site:
    """A place for a gate: after the module ``name``, whose output is (N, channels, *resolution)."""

    name: str
    channels: int
    resolution: tuple[int, ...]

    @property
    def ndim(self) -> int:
        """Position axes of the feature map."""
        return len(self.resolution)


@dataclass(frozen=True)
class Skipped:
    """A place that was looked at and can't take a gate."""

    name: str
    reason: str


@dataclass(frozen=True)
class Survey:
    """The sites found, and the places looked at in vain."""

    sites: tuple[Site, ...]
    skipped: tuple[Skipped, ...]


def block_sites(model: nn.Module, example: Tensor | None = None) -> Survey:
    """The end of every residual branch, just before its addition: CBAM's place.

    An addition of two feature maps of one shape ends a residual block when one operand has more
    convolutions behind it than the other; the gate goes after the module that returned the deeper
    one. Additions nested in the branch of another addition of the same module are part of that
    branch (the splits of a Res2Net block).
    """
    run = trace(model, example)
    additions = [a for a in map(_residual_addition, run.nodes) if a is not None]
    additions = [a for a in additions if not any(_nested(a, other) for other in additions)]
    sites: dict[str, Site] = {}
    skipped = []
    for addition, branch, _ in additions:
        found: Site | str = (
            _module_behind(model, run, branch)
            if branch.shape[1] == branch.channels
            else f"axis 1 of {branch.shape} is not the {branch.channels} channels convolved before"
        )
        if isinstance(found, Site):
            sites.setdefault(found.name, found)
        else:
            where = addition.module if addition.module != "" else type(model).__name__
            skipped.append(Skipped(where, found))
    return Survey(tuple(sites.values()), tuple(skipped))


def named_sites(model: nn.Module, patterns: Sequence[str], example: Tensor | None = None) -> Survey:
    """After the modules whose qualified names match the patterns (``layer?``, ``encoder.*.conv``).

    Raises:
        ValueError: a pattern is not a name, or matches no module.
    """
    if not patterns or not all(isinstance(pattern, str) for pattern in patterns):
        raise ValueError(f"expected where to be names of modules, got {patterns!r}")
    own = {id(module): name for name, module in model.named_modules()}
    names = {
        name: own[id(module)]
        for name, module in model.named_modules(remove_duplicate=False)
        if name != ""
    }
    wanted: dict[str, None] = {}
    for pattern in patterns:
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            top = ", ".join(name for name, _ in model.named_children())
            raise ValueError(
                f"expected where={pattern!r} to match the name of a module, got no match; "
                f"the modules at the top are: {top}"
            )
        wanted.update(dict.fromkeys(names[name] for name in matches))
    run = trace(model, example)
    returned = dict(run.outputs)
    sites: dict[str, Site] = {}
    skipped = []
    for name in wanted:
        if name not in returned:
            skipped.append(Skipped(name, "it did not run, or its output is not one tensor"))
            continue
        found = _module_behind(model, run, returned[name])
        if isinstance(found, Site):
            sites.setdefault(found.name, found)
        else:
            skipped.append(Skipped(name, found))
    return Survey(tuple(sites.values()), tuple(skipped))


Addition = tuple[Node, Node, Node]


def _residual_addition(node: Node) -> Addition | None:
    # (the addition, its branch, its shortcut)
    if node.operation not in ("add", "add_") or len(node.inputs) != 2:
        return None
    first, second = node.inputs
    if first.shape != second.shape or not 3 <= len(node.shape) <= 5:
        return None
    if first.depth == second.depth:
        return None
    branch, shortcut = (first, second) if first.depth > second.depth else (second, first)
    return node, branch, shortcut


def _nested(inner: Addition, outer: Addition) -> bool:
    node, _, _ = inner
    addition, branch, shortcut = outer
    return (
        node is not addition
        and node.module == addition.module
        and _reaches(branch, node)
        and not _reaches(shortcut, node)
    )


def _reaches(start: Node, target: Node) -> bool:
    seen: set[int] = set()
    open_nodes = [start]
    while open_nodes:
        node = open_nodes.pop()
        if node is target:
            return True
        if id(node) not in seen:
            seen.add(id(node))
            open_nodes.extend(node.inputs)
    return False


def _module_behind(model: nn.Module, run: Trace, node: Node) -> Site | str:
    """The innermost module, called once, that returned the node; or why there is none."""
    reasons = []
    while True:
        if not 3 <= len(node.shape) <= 5:
            reasons.append(f"its output of shape {node.shape} is no feature map")
            return "; ".join(reasons)
        for name, output in run.outputs:
            if output is node:
                refusal = _refusal(model, run, name)
                if refusal is None:
                    return Site(name, node.shape[1], node.shape[2:])
                reasons.append(refusal)
        same = [each for each in node.inputs if each.shape == node.shape]
        if node.operation not in ELEMENTWISE or not same:
            reasons.append(f"no module returns the tensor that {node.operation} made")
            return "; ".join(reasons)
        node = same[0]


def _refusal(model: nn.Module, run: Trace, name: str) -> str | None:
    if name == "":
        return "the network itself has no module after it"
    module = model.get_submodule(name)
    if isinstance(module, CONTAINERS):
        return f"{name} is a container that runs every child it has"
    if run.calls[name] > 1:
        return f"{name} runs {run.calls[name]} times"
    return None
