"""From a tensor to the module that hands it over, so that a gate can meet it there."""

from collections.abc import Collection

from torch import nn

from whatwhere.surgery.graph import Call, Node, Trace
from whatwhere.surgery.places.site import Kind, Site, Skipped, Survey, Wanted

# They run every child they have, so a gate can't be added to them as a child.
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
QUANTISING = ("torch.ao.quantization", "torchao")
# Between the branch's last module and its addition: scaling, dropping paths, casting, and what
# a gate may as well act before: scaling each channel by a positive number commutes with a ReLU.
PASSED = {
    *("mul", "mul_", "div", "div_", "native_dropout", "clone", "alias", "detach", "_to_copy"),
    *("relu", "relu_", "leaky_relu", "leaky_relu_", "bernoulli_"),
}
POOLS = {"max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool2d", "avg_pool3d"}


def placed(model: nn.Module, run: Trace, wanted: Collection[Wanted], *, kind: Kind) -> Survey:
    """A site for each wanted tensor, or the reason why there is none."""
    nodes = {each.node for each in wanted}
    sites: dict[tuple[str, int | str | None], Site] = {}
    skipped: dict[str, Skipped] = {}
    for each in wanted:
        found = _place(model, run, each, nodes, kind)
        if isinstance(found, Site):
            sites.setdefault((found.name, found.argument), found)
        else:
            skipped.setdefault(each.label, Skipped(each.label, found))
    return Survey(tuple(sites.values()), tuple(skipped.values()))


def _place(
    model: nn.Module, run: Trace, wanted: Wanted, nodes: Collection[Node], kind: Kind
) -> Site | str:
    node, reasons = wanted.node, []
    if wanted.users is not None:
        taker = _taker(model, run, node, wanted.users)
        if taker is not None:
            return _site(run, taker[0], node, kind, argument=taker[1])
        if set(run.users[node]) != set(wanted.users) and not wanted.note:
            return "no module takes the tensor for this use alone"
    while True:
        if not node.resolution:
            known = "" if node.axis is None else f" with channels on axis {node.axis}"
            reasons.append(f"its output of shape {node.shape}{known} is no feature map")
            return "; ".join(reasons)
        for call in sorted(run.returning[node], key=_hands_on):
            refusal = _refusal(model, run, call, {*nodes, node})
            if refusal is None:
                return _site(run, call, node, kind, note=wanted.note)
            reasons.append(refusal)
        same = [each for each in node.inputs if each.shape == node.shape]
        if node.operation not in PASSED or not same or len(run.users[same[0]]) > 1:
            reasons.append(f"no module returns the tensor that {node.operation} made")
            break
        node = same[0]
    taker = _taker(model, run, wanted.node, run.users[wanted.node])
    if taker is not None:
        return _site(run, taker[0], wanted.node, kind, argument=taker[1])
    return "; ".join(reasons)


def _site(
    run: Trace,
    call: Call,
    node: Node,
    kind: Kind,
    *,
    argument: int | str | None = None,
    note: str = "",
) -> Site:
    return Site(
        call.name,
        kind,
        node.channels,
        node.resolution,
        run.runs[call.name],
        argument,
        node.axis != 1,
        note,
    )


def _hands_on(call: Call) -> bool:
    """Whether a call returned what it was given, as an Identity does: worse than what made it."""
    return call.output in call.given


def _refusal(model: nn.Module, run: Trace, call: Call, nodes: Collection[Node]) -> str | None:
    """Why the output of this call can't be gated; None if it can."""
    name = call.name
    if name == "":
        return "the network itself has no module after it"
    module = model.get_submodule(name)
    if isinstance(module, CONTAINERS):
        return f"{name} is a container that runs every child it has"
    if type(module).__module__.startswith(QUANTISING):
        return f"{name} is there for quantisation, which takes it out again"
    if run.runs[name] > 1:
        outputs = [each.output for each in run.calls if each.name == name]
        if not all(each in nodes for each in outputs):
            return f"{name} runs {run.runs[name]} times"
        if len({each.channels for each in outputs if each is not None}) > 1:
            return f"{name} runs {run.runs[name]} times, with different numbers of channels"
    return None


def _taker(
    model: nn.Module, run: Trace, node: Node, users: Collection[Node]
) -> tuple[Call, int | str] | None:
    """The innermost module that takes the tensor as an argument, for exactly these uses."""
    if node in run.calls[0].returned or not node.resolution:
        return None
    for call in reversed(run.taking[node]):
        inside = {each for each in run.users[node] if call.holds(each)}
        keys = [key for key, value in call.arguments.items() if value is node]
        if (
            inside == set(users)
            and len(keys) == 1
            and call.name != ""
            and run.runs[call.name] == 1
            and node not in call.returned
            and not isinstance(model.get_submodule(call.name), CONTAINERS)
        ):
            return call, keys[0]
    return None
