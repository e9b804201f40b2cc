"""Where a network's CBAMs go: from a child of a block to the gate after its last norm, and back.

Networks of other code bases call the module in a block and name it there; our gate is a child of
the module whose output it multiplies. Keys alone don't say what a module is called on. In residual
networks with torchvision's names it is the output of the block's last batch norm: that of the
authors, timm's, pytorchcv's and the tutorials'. Elsewhere the caller has to say.
"""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from whatwhere.checkpoints.conversion.dialects import DIALECTS, OURS, CodeBase
from whatwhere.checkpoints.conversion.find import below, joined
from whatwhere.checkpoints.conversion.networks import from_pytorchcv, to_pytorchcv
from whatwhere.checkpoints.conversion.rewrite import Rewritten
from whatwhere.surgery.gated import CHILD

HELP = (
    "; say where with sites=, patterns of the names there and what they become, as in "
    r"sites={r'(.+)\.cbam': r'\1.bn3'}"
)


BLOCK = r"(.+\.)?layer\d+\.\d+"  # of torchvision's residual networks


def translated(name: str, source: CodeBase, target: CodeBase) -> str:
    """What a tensor or module that is in no CBAM is called in the target's network."""
    if source == target:
        return name
    name = from_pytorchcv(name) if source == "pytorchcv" else name
    return to_pytorchcv(name) if target == "pytorchcv" else name


def placed(
    modules: Sequence[Rewritten],
    rest: Mapping[str, Tensor],
    source: CodeBase,
    target: CodeBase,
    sites: Mapping[str, str] | None,
) -> dict[str, str]:
    """The prefix of every CBAM's keys, and what it becomes.

    Args:
        modules: the CBAMs.
        rest: all tensors that are in none, by name.
        source: whose network it is.
        target: whose it becomes.
        sites: patterns of the CBAMs' names, and what these become; told by the keys where no
            pattern matches.

    Raises:
        ValueError: the keys don't tell, a pattern matches nothing, or two CBAMs have one name.
    """
    given = {} if sites is None else dict(sites)
    plain = {translated(name, source, "paper"): tensor for name, tensor in rest.items()}
    result: dict[str, str] = {}
    used: set[str] = set()
    for module in modules:
        prefix = module.found.prefix
        there = _module_name(prefix, source)
        pattern = next((each for each in given if re.fullmatch(each, there)), None)
        if pattern is not None:
            used.add(pattern)
            here = re.sub(pattern, given[pattern], there, count=1)
        elif prefix == "" and not rest:
            result[prefix] = ""
            continue
        else:
            here = _told(module, plain, source, target)
        result[prefix] = joined(here, CHILD) if target == OURS else here
    unused = sorted(set(given) - used)
    if unused:
        raise ValueError(
            f"convert: expected every pattern of sites to match a CBAM, {unused} match none of "
            f"{[_module_name(each.found.prefix, source) for each in modules]}"
        )
    if len(set(result.values())) < len(result):
        raise ValueError(f"convert: expected one CBAM at each place, got {result}{HELP}")
    return result


def _module_name(prefix: str, source: CodeBase) -> str:
    """What a CBAM is called in its network: ours by their sites."""
    return prefix.removesuffix(CHILD).removesuffix(".") if source == OURS else prefix


def _told(module: Rewritten, rest: Mapping[str, Tensor], source: CodeBase, target: CodeBase) -> str:
    """Where a CBAM goes by the names of the network, which are as torchvision's."""
    prefix = translated(module.found.prefix, source, "paper")
    if target == OURS:
        if source == OURS:
            return _module_name(prefix, source)
        return site_of(prefix, module.channels, rest)
    if source == OURS:
        block, holder = home_of(_module_name(prefix, source), rest), ""
    elif re.fullmatch(BLOCK, prefix):
        block, holder = prefix, ""
    else:
        block, _, holder = prefix.rpartition(".")
    if holder == "" or (source != OURS and holder == DIALECTS[source].holder):
        holder = DIALECTS[target].holder
    return translated(joined(block, holder), "paper", target)


def site_of(prefix: str, channels: int, rest: Mapping[str, Tensor]) -> str:
    """The norm after which a block's CBAM of another code base is called.

    Args:
        prefix: of the CBAM's keys: a child of the block, or the block that has its two parts.
        channels: that it gates.
        rest: all tensors of the network that are in no CBAM, by name.

    Raises:
        ValueError: the keys don't show it.

    >>> import torch
    >>> names = [f"layer1.0.{kind}{i}.weight" for i in (1, 2) for kind in ("conv", "bn")]
    >>> shapes = [(8, 8, 3, 3), (8,)] * 2
    >>> rest = {name: torch.ones(shape) for name, shape in zip(names, shapes)}
    >>> rest |= {f"layer1.0.bn{i}.running_mean": torch.ones(8) for i in (1, 2)}
    >>> site_of("layer1.0.cbam", 8, rest)
    'layer1.0.bn2'
    """
    block = block_of(prefix, rest)
    norm = last_norm(block, rest)
    size = _norms(block, rest)[norm]
    if size != channels:
        raise ValueError(
            f"convert: expected the last norm of {block} to have the CBAM's {channels} channels, "
            f"got {size} in {norm}{HELP}"
        )
    return joined(block, norm)


def block_of(prefix: str, rest: Mapping[str, Tensor]) -> str:
    """The block that a CBAM of another code base is in: it has norms of its own.

    Raises:
        ValueError: neither the holder of its keys nor what holds that is one.
    """
    for block in (prefix, prefix.rpartition(".")[0]):
        if re.fullmatch(BLOCK, block) and _norms(block, rest):
            return block
    raise ValueError(
        f"convert: expected the CBAM {prefix!r} in a residual block with norms, named as in "
        f"layer1.0, got another place{HELP}"
    )


def last_norm(block: str, rest: Mapping[str, Tensor]) -> str:
    """The last of a block's numbered norms, each after the convolution of its number.

    Raises:
        ValueError: the keys don't show which is the last.
    """
    norms = _norms(block, rest)
    numbered = {norm: re.fullmatch(r"(\D+)(\d+)", norm) for norm in norms}
    numbers = {norm: match for norm, match in numbered.items() if match is not None}
    if len(numbers) < len(norms) or len({match[1] for match in numbers.values()}) > 1:
        raise ValueError(f"convert: can't tell which norm of {block} is last: {[*norms]}{HELP}")
    tensors = below(rest, block)
    for norm, match in numbers.items():
        conv = tensors.get(f"conv{match[2]}.weight")
        if conv is None or conv.shape[0] != norms[norm]:
            given = "none" if conv is None else f"one that gives {conv.shape[0]}"
            raise ValueError(
                f"convert: expected {norm} of {block}, of {norms[norm]} channels, after a "
                f"convolution conv{match[2]} that gives as many, got {given}{HELP}"
            )
    return max(numbers, key=lambda norm: int(numbers[norm][2]))


def home_of(site: str, rest: Mapping[str, Tensor]) -> str:
    """The block whose CBAM of another code base a gate of ours stands for.

    Raises:
        ValueError: the site is not the last norm of a block.
    """
    block, _, name = site.rpartition(".")
    if (
        not re.fullmatch(BLOCK, block)
        or name not in _norms(block, rest)
        or last_norm(block, rest) != name
    ):
        raise ValueError(
            f"convert: expected the gate at {site}.{CHILD} after the last norm of a residual block "
            f"named as in layer1.0, where other code bases call their CBAM{HELP}"
        )
    return block


def _norms(block: str, rest: Mapping[str, Tensor]) -> dict[str, int]:
    """The batch norms that are children of a block, and their channels."""
    means = {
        name.removesuffix(".running_mean"): tensor.numel()
        for name, tensor in below(rest, block).items()
        if name.endswith(".running_mean")
    }
    return {name: channels for name, channels in means.items() if "." not in name}
