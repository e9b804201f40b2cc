"""The Triton kernels, run by Triton's interpreter while what lies around a case is watched."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.runtime import interpreter

from tests.ops.checker import check, run
from tests.ops.examples import borders_are_whole
from tests.ops.kernels import statistics_of
from whatwhere.ops import cuda
from whatwhere.ops.cuda import tiles

assert triton.knobs.runtime.interpret, "TRITON_INTERPRET=1 must be set before Triton is imported"
# The interpreter cuts float32 down to bfloat16, where GPUs round to the nearest: so it does here.
_convert_float = interpreter._convert_float


def _rounded(values, source, target, mode):
    if (source, target) != (tl.float32, tl.bfloat16):
        return _convert_float(values, source, target, mode)
    halves = torch.from_numpy(np.ascontiguousarray(values, np.float32)).bfloat16()
    return halves.view(torch.uint16).numpy().reshape(values.shape)


interpreter._convert_float = _rounded
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# Small tiles, so that small tensors have many, each step of a sum by a program of its own; the same
# with the steps of a sum one after the other, as in large batches.
TILES = {"ELEMENTS": 256, "BLOCK": 32}
CUTS = {
    "shared out": TILES | {"ENOUGH": 512, "NARROWED": 256, "LEAST_TILES": 1},
    "in one": TILES | {"ENOUGH": 1, "NARROWED": 1},
}
# Elsewhere: programs run one after the other here, so a few are enough.
tiles.ENOUGH, tiles.NARROWED = 32, 8


def cut(monkeypatch, name):
    """Cut tensors in another way from here on."""
    for constant, value in CUTS[name].items():
        monkeypatch.setattr(tiles, constant, value)
    monkeypatch.setattr(tiles, "_plan", tiles._plan.__wrapped__)


def run_kernels(case):
    """The kernels' results; they read and write nothing but what is theirs."""
    assert cuda.unsupported(case.op, case.tensors["x"], statistics_of(case)) is None
    given = {name: t for name, t in case.tensors.items() if t is not None}
    before = {name: t.clone() for name, t in given.items()}
    results = run(cuda, case)
    for name, tensor in given.items():
        assert torch.equal(tensor.nan_to_num(7.5), before[name].nan_to_num(7.5)), name
        assert borders_are_whole(tensor), name
    return results


def assert_right(case):
    """The kernels serve the case and are right on it."""
    check(case, run_kernels(case))


alternating = pytest.mark.parametrize(
    ("dtype", "layout"),
    [
        (torch.float32, "contiguous"),
        (torch.bfloat16, "channels_last"),
    ],
    ids=str,
)
cutting = pytest.mark.parametrize("cutting", CUTS)
