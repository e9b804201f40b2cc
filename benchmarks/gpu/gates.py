"""The rows of one CBAM: in copies of x, beside timm's module, eager and compiled."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers.cbam import CbamModule
from torch import Tensor, nn

from benchmarks.gpu import marks
from benchmarks.gpu.clock import Call, Clock
from whatwhere import CBAM
from whatwhere.bench.measure.timing import quartiles
from whatwhere.ops.cuda import tiles

MAPS = ((64, 112), (256, 56), (512, 28), (1024, 14), (2048, 7))
BATCHES = (1, 2, 4, 8, 64, 256)
COLUMNS = ("ours", "ours at once", "timm", "timm compiled")
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
# Whether a call is a CUDA graph, and whether it finds a cold cache.
WAYS = ((False, True), (True, True), (True, False))


def max_autotuned(module: nn.Module) -> Any:
    """The peer as compiled by its best user; graphs are taken of all alike."""
    torch._dynamo.reset()
    return torch.compile(module, mode="max-autotune-no-cudagraphs")


@dataclass(frozen=True)
class Setup:
    """Where and with what is measured."""

    device: torch.device
    clock: Clock
    compiled: Callable[[nn.Module], Any] = max_autotuned
    maps: Sequence[tuple[int, int]] = MAPS
    batches: Sequence[int] = BATCHES
    kinds: Sequence[tuple[torch.dtype, str]] = (
        (torch.float32, "contiguous"),
        (torch.bfloat16, "channels_last"),
    )


@contextmanager
def at_once() -> Iterator[None]:
    """In the block samples are not computed in chunks."""
    share, tiles.SHARE_OF_CACHE = tiles.SHARE_OF_CACHE, 1e6
    try:
        yield
    finally:
        tiles.SHARE_OF_CACHE = share


def calls_of(setup: Setup, x: Tensor, both: bool) -> dict[str, Call]:
    """A copy of x, our module, and timm's eager and compiled."""
    channels = x.shape[1]
    ours, timm = (module.to(x.device, x.dtype) for module in (CBAM(channels), CbamModule(channels)))
    modules = {"ours": ours.eval(), "timm": timm.eval()}
    modules["timm compiled"] = setup.compiled(timm)
    dy, y = torch.randn_like(x), torch.empty_like(x)

    def one(module: nn.Module) -> Call:
        def forward() -> object:
            with torch.no_grad():
                return module(x)

        leaves = [x.requires_grad_(), *module.parameters()]
        return (lambda: torch.autograd.grad(module(x), leaves, dy)) if both else forward

    calls = {name: one(module) for name, module in modules.items()}
    if tiles.chunk_of(x, 1) < x.shape[0]:
        chunked = calls["ours"]

        def whole() -> object:
            with at_once():
                return chunked()

        calls["ours at once"] = whole
    return {"copy": lambda: y.copy_(x.detach()), **calls}


def rows(setup: Setup) -> Iterator[str]:
    """The table, line by line."""
    head = ("x", "dtype", "layout", "pass", "graph", "cache", "copy, µs", *COLUMNS, "marks")
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * 6 + "---:|" * (1 + len(COLUMNS)) + "---|"
    for channels, size in setup.maps:
        for batch in setup.batches:
            for dtype, layout in setup.kinds:
                shape = batch, channels, size, size
                x = torch.randn(shape, device=setup.device, dtype=dtype)
                x = x.contiguous(memory_format=LAYOUTS[layout])
                for both in (False, True):
                    yield from _lines(setup, x, both, f"{shape} | {str(dtype)[6:]} | {layout}")


def _lines(setup: Setup, x: Tensor, both: bool, head: str) -> Iterator[str]:
    calls = calls_of(setup, x, both)
    graphs = {name: setup.clock.graphed(call) for name, call in calls.items()}
    for graph, cold in WAYS:
        times = setup.clock.timed(graphs if graph else calls, cold=cold)
        copy = times.pop("copy")
        ratios = {
            name: quartiles([own / other for own, other in zip(every, copy, strict=True)])
            for name, every in times.items()
        }
        cells = [
            "{1:.2f} ({0:.2f}-{2:.2f})".format(*ratios[name]) if name in ratios else ""
            for name in COLUMNS
        ]
        held = marks.of_gate(x.shape[0], both, {name: each[1] for name, each in ratios.items()})
        line = [head, "both" if both else "forward", "yes" if graph else "no"]
        line += ["cold" if cold else "warm", f"{1000 * quartiles(copy)[1]:.1f}", *cells]
        yield f"| {' | '.join([*line, '; '.join(held)])} |"
