"""Shared by all tests: seeded weights and inputs, so that failures repeat; counted kernels."""

import os
from collections import Counter
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch

from whatwhere.ops import implementations, raw

# These are for processes in which Triton interprets: see test_cuda_interpreted.
collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["ops/interpreted/*"]


class CountingKernels:
    """A module of kernels, or the raw reference in its place, whose calls are counted.

    Without counting, falling back to the reference would pass every other test.
    """

    def __init__(self, module):
        self.module = module
        self.calls = Counter()
        self.reason = None

    def unsupported(self, op, x, statistics):
        if self.reason is not None or self.module is raw:
            return self.reason
        return self.module.unsupported(op, x, statistics)

    def __getattr__(self, name):
        function = getattr(self.module, name)

        def counted(*arguments):
            self.calls[name] += 1
            return function(*arguments)

        return counted


def _modules():
    if os.environ.get("TRITON_INTERPRET") == "1":  # then Triton's kernels take tensors on the CPU
        return ["cuda"]
    return ["raw", "cpu"] if find_spec("whatwhere.ops.cpu") else ["raw"]


@pytest.fixture(params=_modules())
def kernels(request, monkeypatch):
    module = raw if request.param == "raw" else import_module(f"whatwhere.ops.{request.param}")
    counting = CountingKernels(module)
    monkeypatch.setattr(implementations, "kernels", lambda: (counting, None))
    return counting


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
