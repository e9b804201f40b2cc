"""Eval mode for the length of a block, with every module's training flag put back after it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run a block in eval mode without gradients; leave each training flag as it was found.

    >>> model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    >>> with evaluating(model):
    ...     inside = [module.training for module in model]
    >>> inside, [module.training for module in model]
    ([False, False], [True, False])
    """
    flags = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, flag in flags.items():
            module.training = flag
