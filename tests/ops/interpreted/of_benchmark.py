"""The checks of ``benchmarks.gpu``, on a shape that is quick to interpret."""

import pytest
import torch

from benchmarks.gpu import correct
from tests.ops.interpreted import kernels  # which repairs the interpreter's rounding
from whatwhere.ops import cuda

assert kernels
CPU, SHAPES = torch.device("cpu"), ((2, 5, 3, 4),)


def test_every_case_is_right_and_the_same_again(monkeypatch):
    monkeypatch.setattr(correct, "DTYPES", (torch.bfloat16,))
    assert correct.check_all(CPU, lambda call: call, SHAPES) == 2 * 13


def test_what_differs_again_is_an_error(monkeypatch):
    applied, more = cuda.apply_gates, iter([0, 1e-6])
    [case] = [
        case
        for case in correct.cases(SHAPES, torch.float32, "contiguous")
        if case.op == "apply_gates"
    ]
    monkeypatch.setattr(correct, "cases", lambda *_arguments: [case])
    monkeypatch.setattr(cuda, "apply_gates", lambda *given: applied(*given) + next(more))
    with pytest.raises(AssertionError, match="apply_gates: y differs again"):
        correct.check_all(CPU, lambda call: call, SHAPES)
