"""Shared by all tests: seeded weights and inputs, so that a failure can be seen again."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
