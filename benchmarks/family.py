"""``python -m benchmarks.family``: docs/family.md, written from the gates as they are built."""

import inspect
from pathlib import Path
from typing import Any

from torch import nn

from whatwhere import build, names
from whatwhere.cost import parameters
from whatwhere.files import write_text
from whatwhere.gates import needed_options
from whatwhere.gates.expression import expression
from whatwhere.gates.family import CLIPS, FAMILY

PAGE = Path(__file__).parents[1] / "docs" / "family.md"
CHANNELS = 64
SIZES: dict[str, Any] = {"frames": 8, "resolution": 7}
HEAD = f"""\
# The family

Every gate that `whatwhere.build(name, channels)` knows, and `attend` and `compare` with it, read
off the modules that run with {CHANNELS} channels; `python -m benchmarks.family` writes this page.

    keep: statistics → steps → activation      y = x · that; the statistics pool what is not kept

- **keep**: C channels, S all positions, T frames or the positions of a sequence, H rows, W columns
- **linear**, **dense**: over channels (or frames), two layers shared by the statistics for dense;
  **conv**: over the axes named, its input channels being the statistics, or the channels where
  it says so; **affine**: a weight and a bias for each channel; **BN**, **GN**: norms
- **ranks**: 1 for (N, C, L), 2 for (N, C, H, W), 3 for (N, C, T, H, W)
- **identity**: whether it can start with y = x (`start="identity"`, what `attend` asks for if not
  told otherwise). Then σ is 2σ, 1+σ is ½+σ, a sum of outputs is their mean

"""
LEFT_OUT = """\
## What is not here

- **GSoP** (CVPR 2019): its descriptor is the covariance of channels, 128×128 numbers, mixed row by
  row.
- **TAM's global branch**: a kernel over frames for each clip, a convolution and no gate.
- **TabAttention with multi-head attention** over frames: its MLP form is `tab`.
- **SK, ResNeSt**: a softmax that chooses between branches of the network. **Non-local**: no gate.
- **STAM**: three different works have the name, none with code; **W3**, **STACNet**: no equations
  found.
"""


def page() -> str:
    """The whole page."""
    lines = [
        HEAD + "| name | expression | parameters | ranks | identity |",
        "|---|---|---:|---|---|",
    ]
    for name in names():
        gate = made(name, 3 if name in CLIPS or name in ("temporal", "tam") else 2)
        ranks = [str(ndim) for ndim in (1, 2, 3) if builds(name, ndim, "paper")]
        identity = "yes" if builds(name, int(ranks[-1]), "identity") else "no"
        lines.append(
            f"| [`{name}`](#{name}) | {expression(gate)} | {parameters(gate):,} "
            f"| {', '.join(ranks)} | {identity} |"
        )
    lines.append("")
    for name in names():
        lines += [f"## {name}", "", *about(name), ""]
    return "\n".join(lines) + LEFT_OUT


def made(name: str, ndim: int, start: Any = "paper") -> nn.Module:
    """The gate with 64 channels and, where it needs them, 8 frames or a map of 7×7."""
    sizes = {option: SIZES[option] for option in needed_options(name)}
    return build(name, CHANNELS, ndim=ndim, start=start, **sizes)


def builds(name: str, ndim: int, start: str) -> bool:
    """Whether there is such a gate."""
    try:
        made(name, ndim, start)
    except ValueError:
        return False
    return True


def about(name: str) -> list[str]:
    """Equation, source and deviations, from the docstring; options, from the signature."""
    builder = FAMILY[name]
    text = inspect.getdoc(builder)
    assert text is not None
    if inspect.isclass(builder):
        text = f"{text.partition(chr(10) * 2)[0]}\n\nMore in [gates.md](gates.md)."
    text = text.replace("``", "`").replace("\nElsewhere:", "\n\n**Elsewhere:**")
    text = text.replace("\nSource:", "\n\n**Source:**")
    taken = inspect.signature(builder).parameters.values()
    given = ("channels", "ndim", "start", "activation")
    options = ", ".join(
        f"`{each.name}`" if each.default is each.empty else f"`{each.name}={each.default!r}`"
        for each in taken
        if each.name not in given
    )
    return [text, "", f"Options: {options or 'none'}."]


if __name__ == "__main__":
    write_text(PAGE, page())
