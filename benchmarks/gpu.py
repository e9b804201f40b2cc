"""``python -m benchmarks.gpu``: check the kernels on the GPU that is here, then time, then write.

The checks are those of ``tests/ops``, every output and gradient against float64, on the device; one
that fails ends the program before anything is timed. Times are of whole calls between two events
on the device, Python's part of a launch included, with the cache overwritten before each; and once
more as CUDA graphs, where a call is its kernels alone.
"""

import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import triton
import typer
from timm.layers.cbam import CbamModule

from tests.ops import examples
from tests.ops.checker import Case, check, run
from whatwhere import CBAM, implementation
from whatwhere.bench.machine import commit, versions
from whatwhere.bench.measure.timing import quartiles, rotated
from whatwhere.files import write_text
from whatwhere.ops import cuda

RESULTS = Path(__file__).parent / "results"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MAPS = [(64, 112), (256, 56), (512, 28), (1024, 14), (2048, 7)]
BATCHES = (1, 8, 64, 256)
SHAPES = [(3, 17, 1, 11), (7, 13, 11, 13), (9, 130, 3, 2), (4, 256, 28, 28), (2, 512, 7, 7)]
ROUNDS = 30
# Bytes that are written before each call: more than any cache on a device.
FLUSHED = 2**29
Call = Callable[[], object]


def cases(dtype: torch.dtype, layout: str) -> Iterator[Case]:
    """What is checked: odd and whole sizes, each with everything that can be folded in."""
    common: dict[str, Any] = {"dtype": dtype, "layout": layout}
    for shape in SHAPES:
        for values in ("random", "ties", "zeros after a ReLU"):
            yield examples.cbam(shape, values=values, **common)
        yield examples.cbam(shape, kernel=7, residual=True, relu=True, **common)
        for statistics in (("mean", "max"), ("max",)):
            yield examples.pool_positions(shape, statistics=statistics, **common)
            yield examples.pool_channels(shape, statistics=statistics, **common)
        yield examples.apply_gates(shape, residual=True, relu=True, **common)


def check_all(device: torch.device) -> int:
    """How many cases were right; the first that is wrong raises, as does one that differs again."""
    count = 0
    for dtype in DTYPES.values():
        for layout in ("contiguous", "channels_last"):
            for case in cases(dtype, layout):
                tensors = {k: None if t is None else t.to(device) for k, t in case.tensors.items()}
                there = replace(case, tensors=tensors)
                results, again = run(cuda, there), run(cuda, there)
                check(there, results)
                assert all(
                    torch.equal(one.nan_to_num(7.5), again[name].nan_to_num(7.5))
                    for name, one in results.items()
                ), f"{case.op}: two runs differ"
                count += 1
    return count


def timed(calls: Mapping[str, Call]) -> dict[str, list[float]]:
    """Milliseconds of each call, interleaved, by events on the device."""
    scratch = torch.empty(FLUSHED, dtype=torch.int8, device="cuda")
    times: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(ROUNDS + 3):
        for name in rotated(list(calls), index):
            scratch.zero_()
            torch.cuda.synchronize()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            calls[name]()
            end.record()
            end.synchronize()
            if index >= 3:
                times[name].append(start.elapsed_time(end))
    return times


def graphed(call: Call) -> Call:
    """The same kernels without Python."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def calls_of(x: torch.Tensor, backward: bool) -> dict[str, Call]:
    """A copy of x, our module, and timm's eager and compiled."""
    channels = x.shape[1]
    modules = {"ours": CBAM(channels), "timm": CbamModule(channels)}
    modules = {name: module.to(x.device, x.dtype).eval() for name, module in modules.items()}
    torch._dynamo.reset()
    modules["timm compiled"] = torch.compile(modules["timm"], mode="max-autotune-no-cudagraphs")
    dy, y = torch.randn_like(x), torch.empty_like(x)

    def one(module: Any) -> Call:
        def forward() -> object:
            with torch.no_grad():
                return module(x)

        leaves = [x.requires_grad_(), *module.parameters()]
        return (lambda: torch.autograd.grad(module(x), leaves, dy)) if backward else forward

    return {
        "copy": lambda: y.copy_(x.detach()),
        **{name: one(module) for name, module in modules.items()},
    }


def rows(smallest: int) -> Iterator[str]:
    """The table, line by line; batches below ``smallest`` are left out."""
    names = ("ours", "timm", "timm compiled")
    yield "| x | dtype | layout | pass | graph | copy, µs | " + " | ".join(names) + " |"
    yield "|---|---|---|---|---|---:|" + "---:|" * len(names)
    for channels, size in MAPS:
        for batch in (batch for batch in BATCHES if batch >= smallest):
            for dtype in ("float32", "bfloat16"):
                for layout in (torch.contiguous_format, torch.channels_last):
                    shape = (batch, channels, size, size)
                    x = torch.randn(shape, device="cuda", dtype=DTYPES[dtype])
                    x = x.contiguous(memory_format=layout)
                    for backward in (False, True):
                        yield from _lines(x, backward, f"{shape} | {dtype} | {str(layout)[6:]}")


def _lines(x: torch.Tensor, backward: bool, head: str) -> Iterator[str]:
    calls = calls_of(x, backward)
    for graph in (False, True):
        used = {name: graphed(call) for name, call in calls.items()} if graph else calls
        times = timed(used)
        copy = times.pop("copy")
        cells = []
        for every in times.values():
            ratios = [own / other for own, other in zip(every, copy, strict=True)]
            cells.append("{1:.2f} ({0:.2f}-{2:.2f})".format(*quartiles(ratios)))
        line = [head, "both" if backward else "forward", "yes" if graph else "no"]
        yield f"| {' | '.join([*line, f'{1000 * quartiles(copy)[1]:.1f}', *cells])} |"


def main(
    out: Annotated[Path, typer.Option(help="The folder of the page.")] = RESULTS,
    smallest: Annotated[int, typer.Option(help="The smallest batch that is timed.")] = 1,
) -> None:
    """Check, time, and write gpu.md."""
    device = torch.device("cuda:0")
    reason = cuda.trouble(device)
    if reason is not None:
        raise typer.BadParameter(reason)
    count = check_all(device)
    typer.echo(f"{count} cases right and repeatable")
    told = {"triton": triton.__version__, "cuda": torch.version.cuda, **versions()}
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()[0]
    lines = [
        "# CBAM on a GPU",
        "",
        f"{torch.cuda.get_device_name(device)}, driver {driver}; commit {commit()}; "
        + ", ".join(f"{name} {version}" for name, version in told.items())
        + f". {count} cases right in every output and gradient, and the same bits when repeated.",
        "",
        "Times in copies of x, median (quartiles) of the ratio in the same round; caches are",
        "overwritten before each call.",
        "",
    ]
    with implementation("cuda"):
        for line in rows(smallest):
            typer.echo(line)
            lines.append(line)
            write_text(out / "gpu.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    typer.run(main)
