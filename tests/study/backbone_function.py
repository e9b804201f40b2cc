"""A backbone of a user's own, for ``--backbone tests.study.backbone_function:make``."""

import torch
from torch import nn


def make(classes, *, in_channels, ndim, width=1.0):
    assert ndim == 2
    hidden = round(8 * width)
    head = nn.Linear(hidden, classes)
    return nn.Sequential(
        nn.Conv2d(in_channels, hidden, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head
    )


def fixed(classes, *, in_channels, ndim):
    return make(classes, in_channels=in_channels, ndim=ndim)


class _Scattered(nn.Module):
    def forward(self, x):
        index = torch.arange(x.numel())
        return torch.zeros_like(x).put_(index, x)  # torch calls it not deterministic, on any device


def scattered(classes, *, in_channels, ndim):
    return nn.Sequential(_Scattered(), make(classes, in_channels=in_channels, ndim=ndim))
