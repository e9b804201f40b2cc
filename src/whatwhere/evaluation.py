"""Eval mode for the length of a block, with every module's training flag put back after it."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run a block with the model in eval mode; leave each training flag as it was found.

    >>> model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    >>> with evaluating(model):
    ...     inside = [module.training for module in model]
    >>> inside, [module.training for module in model]
    ([False, False], [True, False])
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
