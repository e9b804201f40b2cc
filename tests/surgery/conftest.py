"""Shared by the tests of fused gates: what a gate that waited did in its last pass."""

import pytest

from whatwhere.surgery.deferred import Deferred


@pytest.fixture
def passes(kernels, monkeypatch):
    """What every pass of a gate that waited did at its end."""
    seen = []
    run = Deferred._run

    def spy(self, *, activation, inplace):
        seen.append((self._residual is not None, activation, inplace))
        return run(self, activation=activation, inplace=inplace)

    monkeypatch.setattr(Deferred, "_run", spy)
    return seen
