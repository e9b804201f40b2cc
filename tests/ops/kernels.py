"""The fast kernels, run while what lies around a case is watched."""

import pytest
import torch

from tests.ops.checker import check, run
from tests.ops.examples import borders_are_whole

cpu = pytest.importorskip("whatwhere.ops.cpu")


def statistics_of(case):
    """All the statistics of a case, as ``unsupported`` is asked about them."""
    if case.op == "cbam":
        return (*case.options["channel"], *case.options["spatial"])
    return case.options.get("statistics", ())


def served(case):
    """Skip the test where there are no kernels for a case; fail where there should be."""
    reason = cpu.unsupported(case.op, case.tensors["x"], statistics_of(case))
    if reason is not None and (
        "not installed" in reason or reason.startswith("there is no kernel")
    ):
        pytest.skip(reason)
    assert reason is None


def run_kernels(case):
    """The kernels' results; they read and write nothing but what is theirs."""
    served(case)
    given = {name: t for name, t in case.tensors.items() if t is not None}
    before = {name: t.clone() for name, t in given.items()}
    results = run(cpu, case)
    for name, tensor in given.items():
        assert torch.equal(tensor.nan_to_num(7.5), before[name].nan_to_num(7.5)), name
        assert borders_are_whole(tensor), name
    return results


def assert_right(case):
    """The kernels serve the case and are right on it."""
    check(case, run_kernels(case))


def assert_same_bits(results, expected, select=lambda tensor: tensor):
    """Two runs, or what ``select`` picks of them, agree in every bit."""
    for name, tensor in results.items():
        bits, others = (select(t).contiguous().view(torch.uint8) for t in (tensor, expected[name]))
        assert torch.equal(bits, others), name
