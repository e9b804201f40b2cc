"""Inputs that gates must be right on: shapes, layouts and values."""

import torch

SHAPES = {
    1: [(2, 8, 13), (1, 3, 1), (0, 8, 5)],
    2: [(2, 8, 7, 5), (1, 3, 1, 1), (0, 8, 4, 4), (3, 17, 1, 11)],
    3: [(2, 8, 3, 5, 4), (1, 3, 1, 1, 1), (0, 8, 2, 3, 3)],
}
ALL_SHAPES = [shape for shapes in SHAPES.values() for shape in shapes]


def layouts(x):
    """The same values in every memory layout that x can have."""
    yield "contiguous", x
    if x.ndim == 4:
        yield "channels_last", x.contiguous(memory_format=torch.channels_last)
    if x.ndim == 5:
        yield "channels_last", x.contiguous(memory_format=torch.channels_last_3d)
    wider = torch.full((*x.shape[:-1], 2 * x.shape[-1]), 1e9, dtype=x.dtype)
    wider[..., ::2] = x
    yield "slice", wider[..., ::2]


def randomise(module):
    """Random parameters and norm statistics: with zeros and ones, wrong indices go unseen."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    return module
