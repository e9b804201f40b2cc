"""docs/tables.md from what was counted."""

from collections.abc import Iterable, Sequence

from torch import nn

from benchmarks.tables.cbam import table_1, table_2, table_4, table_5
from benchmarks.tables.conventions import conventions, without_biases
from benchmarks.tables.counted import after_blocks, named
from benchmarks.tables.others import others
from benchmarks.tables.rows import Row, matching

HEAD = """\
# The papers' tables

Sizes that papers print, beside those of this library's networks. `python -m benchmarks.tables`
writes this page; every number of ours is counted when it does, on the networks that
`whatwhere compare --backbone paper/resnet50-cbam` trains, and a test compares the page with what is
counted. A row matches if ours, rounded to as many digits as are printed, is what is printed.

Parameters are all that can be learnt. "GFLOPs" are multiply-accumulates of convolutions and linear
layers, in billions, of one image of 224×224 pixels: norms, activations, pooling and the gates'
multiplications count nothing.

Errors (top-1, top-5) are results of training on ImageNet; nothing here claims them.
"""
TABLE_2 = """
Two figures can't be of the network that their row names. The maximum passes the same two layers as
the mean, and Table 4's 3.864 counts both passes; the second row's 3.860 counts one. A 1×1
convolution to one map takes a multiply-accumulate for every value of its input, {reduced:.1f}
million in all; what is printed for k = 7 has room for that, what is printed for k = 3 has not.
"""
TABLE_1 = """
The last three rows can't be: **the paper's sizes are those of another network.** The same networks
with the same errors are in its Tables 2 and 4, with 28.09 and 3.860. The figures here, 25.92 and
3.94, are exactly ResNet-50's with *BAM* ({bam_parameters:,} and {bam_macs:,}), another module
of the same authors; 4.02 is ResNet-50's with what BAM adds, twice ({twice:,}).
"""
FORCED = """
Each of these is a choice that the paper leaves open, or that its authors' code makes otherwise, and
a printed figure that only one of the two gives. Without biases, {matching} of the {all} rows of
Table 4 with attention would match in parameters. Whether the convolution of the spatial gate has a
norm, as in the authors' code, or a bias, or neither, no digit tells.
"""
OTHERS = """
ECA's kernels are those that its code gives each stage, not those of its formula. The GFLOPs of ECA
(in 2³⁰) and of triplet attention (norms counted) follow other conventions, and are not compared.
"""
USE = """\
## Using these networks

`paper/NAME` is a backbone of `whatwhere compare` and `whatwhere cost`, with any number of classes
and input channels; `paper/NAME-ATTENTION` has the attention as published.

    whatwhere compare path/to/images --backbone paper/resnet50 --variants none,se,cbam
    whatwhere cost paper/resnet50 paper/resnet50-se paper/resnet50-cbam --attention none

```python
>>> from whatwhere import paper
>>> paper.network_names()
('resnet18', 'resnet34', 'resnet50', 'resnet101', 'wrn18_1.5', 'wrn18_2.0', 'resnext50_32x4d',
 'resnext101_32x4d', 'mobilenet_0.7', 'mobilenet_1.0')
>>> paper.attentions("resnet50")
('se', 'cbam', 'bam', 'eca', 'gc', 'shuffle', 'triplet')
>>> network = paper.build("mobilenet_0.7-cbam", classes=10, in_channels=1)

```

They are timm's classes with other strides, stems and widths, and `whatwhere.attend` puts the gates
in. They have no pretrained weights.
"""


def page() -> str:
    """The whole page."""
    first, second, fourth, fifth = table_1(), table_2(), table_4(), table_5()
    reduced = after_blocks("resnet50", lambda channels: nn.Conv2d(channels, 1, 1)).macs
    bam, plain = named("resnet50-bam"), named("resnet50")
    good, every = without_biases()
    parts = [
        HEAD,
        _section("CBAM, Table 4: ImageNet classification", ("network", "attention"), fourth),
        _section("CBAM, Table 5: MobileNetV1", ("network", "attention"), fifth),
        _section("CBAM, Table 2: spatial attention, in ResNet-50", ("descriptors",), second),
        TABLE_2.format(reduced=reduced / 1e6),
        _section("CBAM, Table 1: what the channel gate pools, in ResNet-50", ("pooled",), first),
        TABLE_1.format(
            bam_parameters=bam.parameters,
            bam_macs=bam.macs,
            twice=plain.macs + 2 * (bam - plain).macs,
        ),
        _conventions(),
        FORCED.format(matching=good, all=every),
        _others(),
        USE,
    ]
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def _section(title: str, heads: Sequence[str], rows: Sequence[Row]) -> str:
    counts = [f"{matching(rows, key)} of {len(rows)}" for key in ("parameters", "macs")]
    table = _table(
        (*heads, "M printed", "ours", "matches", "GFLOPs printed", "ours", "matches"),
        "l" * len(heads) + "rrlrrl",
        ((*row.cells, *_cells(row, "parameters"), *_cells(row, "macs")) for row in rows),
    )
    return (
        f"## {title}\n\n{counts[0]} rows match in parameters, {counts[1]} in "
        f"multiply-accumulates.\n\n{table}"
    )


def _cells(row: Row, key: str) -> tuple[str, str, str]:
    printed = row.printed(key)
    assert printed is not None
    return printed, f"{row.ours(key):,}", _yes(row.matches(key))


def _conventions() -> str:
    rows = []
    for each in conventions():
        otherwise = Row(each.row.cells, each.row.parameters, each.row.macs, each.count)
        key = "macs" if otherwise.matches("parameters") else "parameters"
        assert each.row.matches(key)
        assert not otherwise.matches(key)
        rows.append(
            (
                each.made,
                each.otherwise,
                " + ".join(cell for cell in each.row.cells if cell != "none"),
                f"{each.row.printed(key)} {'M' if key == 'parameters' else 'G'}",
                f"{each.row.ours(key):,}",
                f"{otherwise.ours(key):,}",
            )
        )
    heads = ("made so", "not so", "decided by", "printed", "made so", "not so")
    return f"## What the digits decide\n\n{_table(heads, 'lllrrr', rows)}"


def _others() -> str:
    rows = [
        (
            each.source,
            each.network,
            each.what,
            each.printed,
            f"{each.value:,}",
            _yes(each.matches()),
        )
        for each in others()
    ]
    heads = ("source", "network", "what", "printed", "ours", "matches")
    return f"## Other attention in ResNets\n\n{_table(heads, 'lllrrl', rows)}\n{OTHERS}"


def _yes(good: bool) -> str:
    return "yes" if good else "**no**"


def _table(heads: Sequence[str], aligned: str, rows: Iterable[Sequence[str]]) -> str:
    rules = ["---:" if each == "r" else "---" for each in aligned]
    lines = [heads, rules, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
