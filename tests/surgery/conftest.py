"""Shared by the tests of fused gates: what a gate that waited did in its last pass."""

import pytest

from whatwhere.surgery import deferred


@pytest.fixture
def passes(kernels, monkeypatch):
    """What every pass of a gate that waited did at its end."""
    seen = []
    cbam = deferred.cbam

    def spy(x, *, residual, activation, inplace, **options):
        seen.append((residual is not None, activation, inplace))
        return cbam(x, residual=residual, activation=activation, inplace=inplace, **options)

    monkeypatch.setattr(deferred, "cbam", spy)
    return seen
