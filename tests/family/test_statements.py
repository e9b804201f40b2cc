"""Every gate of the library is the function that its paper or its authors' code defines.

Weights are copied by position between two modules that know nothing of each other.
"""

import pytest
import torch

from tests.cases import layouts, randomise
from tests.family.table import CASES
from whatwhere import names

TRACKED = ("running_mean", "running_var", "num_batches_tracked")
# channel, spatial and temporal are the parts of CBAM: tests/gates/test_equations.py.
PARTS = {"channel", "spatial", "temporal"}

every_case = pytest.mark.parametrize("case", CASES, ids=str)


def state(module):
    """Parameters, then what norms track, each in the order of registration."""
    buffers = [b for n, b in module.named_buffers() if n.endswith(TRACKED)]
    return [*module.parameters(), *buffers]


@torch.no_grad()
def copied(ours, theirs):
    """Theirs with the values of ours: as many, in the same order, with as many numbers each."""
    sizes = [[t.numel() for t in state(module)] for module in (ours, theirs)]
    assert sizes[0] == sizes[1]
    for source, target in zip(state(ours), state(theirs), strict=True):
        target.copy_(source.reshape(target.shape))
    return theirs


def pair(case, dtype):
    ours = randomise(case.ours()).to(dtype)
    return ours, copied(ours, case.theirs(case.shape[1]).to(dtype))


def test_no_gate_goes_unproved():
    assert {case.name for case in CASES} | PARTS == set(names())


@every_case
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str
)
def test_outputs_are_the_statements(case, dtype, tolerance):
    ours, theirs = pair(case, dtype)
    x = torch.randn(case.shape, dtype=dtype)
    expected = theirs.eval()(x)
    assert expected.shape == x.shape
    if parameters := list(theirs.parameters()):  # of none is the output free, or nothing is shown
        assert all(g.any() for g in torch.autograd.grad((expected**2).sum(), parameters))
    for _, view in layouts(x):
        torch.testing.assert_close(ours.eval()(view), expected, rtol=tolerance, atol=tolerance)


@every_case
def test_a_training_step_is_the_statements(case):
    ours, theirs = pair(case, torch.float64)
    x = torch.randn(case.shape, dtype=torch.float64)
    weights = torch.randn(case.shape, dtype=torch.float64)
    seen = []
    for module in (ours.train(), theirs.train()):
        leaf = x.clone().requires_grad_()
        output = module(leaf)
        (output * weights).sum().backward()
        seen.append((output, leaf.grad))
        if parameters := list(module.parameters()):
            torch.optim.SGD(parameters, lr=0.1, momentum=0.9).step()
    tight = {"rtol": case.step_tolerance, "atol": case.step_tolerance}
    torch.testing.assert_close(*seen, **tight)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad.reshape(other.shape), other.grad, **tight)
    for mine, other in zip(state(ours), state(theirs), strict=True):
        torch.testing.assert_close(mine.reshape(other.shape), other, **tight)
