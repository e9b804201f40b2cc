"""Where a gate can go in a network: places by kind, and modules named by the caller."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import cast

from torch import nn

from whatwhere.checks import check_choice
from whatwhere.surgery.graph import Trace
from whatwhere.surgery.inputs import Example
from whatwhere.surgery.places import FINDERS, KINDS, Kind, Site, Skipped, Survey, placed
from whatwhere.surgery.places.site import Wanted
from whatwhere.surgery.trace import trace

# Whether the module of this qualified name is to get a gate.
Predicate = Callable[[str, nn.Module], bool]
Where = str | Sequence[str] | Sequence[Site] | Predicate
# What "auto" looks for, in this order.
AUTO: tuple[Kind, ...] = ("blocks", "depthwise", "stages")
WORDS: tuple[str, ...] = ("auto", *FINDERS)
SOUGHT: dict[Kind, str] = {
    "blocks": "additions of a branch with convolutions to a shortcut",
    "stages": "feature maps whose resolution changes next",
    "bridge": "the deepest feature map below a skip connection",
    "skips": "joins of a feature map with one that comes up from a lower resolution",
    "depthwise": "convolutions of one filter per channel, then 1×1",
    "se": "modules that multiply their input by one number per channel",
    "named": "modules with these names",
}


def sites(
    model: nn.Module, example: Example | None = None, *, kind: Kind | None = None
) -> tuple[Site, ...]:
    """Where a gate can go: every place of every kind, or of one.

    Found from one run on tensors without values, or on zeros where the network's code needs
    values; no table of class names is involved, and the network stays as it is.

    Args:
        model: any network.
        example: what it is called with, where the first convolution does not show it: a tensor,
            a tuple of arguments, a dict of keyword arguments, or another only argument.
        kind: "blocks", the ends of residual branches before their addition; "stages", the last
            feature map at each resolution; "bridge", the deepest map of a U-Net; "skips", its
            skip connections; "depthwise", after depthwise-separable convolutions; "se", existing
            channel gates; "named" for the output of any module. Without it, all but "named".

    Returns:
        Sites for ``attend(model, gate, where=...)``; one place may be of several kinds.

    Raises:
        ValueError: the network did not run, or the kind is unknown.

    >>> from torchvision.models import resnet18
    >>> for site in sites(resnet18(), kind="stages"):
    ...     print(site)
    layer1.1  stages  64 channels  56×56
    layer2.1  stages  128 channels  28×28
    layer3.1  stages  256 channels  14×14
    layer4.1  stages  512 channels  7×7
    """
    if kind is not None:
        check_choice("sites", "kind", kind, KINDS)
    run = trace(model, example)
    kinds = tuple(FINDERS) if kind is None else (kind,)
    return tuple(site for each in kinds for site in survey_of(model, run, each).sites)


def survey_of(model: nn.Module, run: Trace, kind: Kind) -> Survey:
    """The sites of one kind, and the places looked at in vain."""
    if kind == "named":
        every = [name for name, _ in model.named_modules() if name != ""]
        return _named(model, run, every)
    wanted, skipped = FINDERS[kind](model, run)
    found = placed(model, run, wanted, kind=kind)
    return Survey(found.sites, (*skipped, *found.skipped))


def survey(model: nn.Module, where: Where, example: Example | None = None) -> tuple[Survey, str]:
    """What ``attend(where=...)`` means in a network, and what was looked for in words.

    Raises:
        ValueError: where is none of what it can be, or names match no module.
    """
    if where == "auto":
        return _automatic(model, trace(model, example))
    if isinstance(where, str) and where in FINDERS:
        return survey_of(model, trace(model, example), where), SOUGHT[where]
    if callable(where):
        names = [name for name, module in model.named_modules() if name and where(name, module)]
        if not names:
            raise ValueError("attend: expected where to choose a module, it chose none")
        return _named(model, trace(model, example), names), "the modules that where chose"
    listed = [where] if isinstance(where, str) else where
    if isinstance(listed, Sequence) and listed:
        if all(isinstance(each, Site) for each in listed):
            return _given(model, cast(Sequence[Site], listed)), "the sites given"
        if all(isinstance(each, str) for each in listed):
            names = _matches(model, cast(Sequence[str], listed))
            return _named(model, trace(model, example), names), f"modules named {where!r}"
    words = ", ".join(map(repr, WORDS))
    raise ValueError(
        f"attend: expected where to be {words}, names of modules, sites, or a function of "
        f"a module's name and the module, got {where!r}"
    )


def _automatic(model: nn.Module, run: Trace) -> tuple[Survey, str]:
    """The first kind with at least half as many places as there are stages."""
    found = {kind: survey_of(model, run, kind) for kind in AUTO}
    stages = len(found["stages"].sites)
    kind = next((each for each in AUTO if 2 * len(found[each].sites) >= max(1, stages)), AUTO[0])
    if found[kind].sites:
        return found[kind], SOUGHT[kind]
    skipped = tuple(each for survey in found.values() for each in survey.skipped)
    return Survey((), skipped), "; ".join(SOUGHT[each] for each in AUTO)


def _given(model: nn.Module, chosen: Sequence[Site]) -> Survey:
    modules = {name for name, _ in model.named_modules()}
    absent = [site.name for site in chosen if site.name not in modules]
    if absent:
        raise ValueError(
            f"attend: expected sites of {type(model).__name__}, which has no modules {absent}"
        )
    return Survey(tuple(dict.fromkeys(chosen)), ())


def _matches(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """The modules whose qualified names match the patterns, each under its first name."""
    own = {id(module): name for name, module in model.named_modules()}
    names = {
        name: own[id(module)]
        for name, module in model.named_modules(remove_duplicate=False)
        if name != ""
    }
    found: dict[str, None] = {}
    for pattern in patterns:
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            top = ", ".join(name for name, _ in model.named_children())
            raise ValueError(
                f"expected where={pattern!r} to match the name of a module, got no match; "
                f"the modules at the top are: {top}"
            )
        found.update(dict.fromkeys(names[name] for name in matches))
    return list(found)


def _named(model: nn.Module, run: Trace, names: Sequence[str]) -> Survey:
    wanted, skipped = [], []
    for name in names:
        calls = [call for call in run.calls if call.name == name]
        outputs = [call.output for call in calls if call.output is not None]
        if not calls or len(outputs) < len(calls):
            skipped.append(Skipped(name, "it did not run, or its output is not one tensor"))
        wanted += [Wanted(node, name) for node in outputs if len(outputs) == len(calls)]
    found = placed(model, run, wanted, kind="named")
    return Survey(found.sites, (*skipped, *found.skipped))
