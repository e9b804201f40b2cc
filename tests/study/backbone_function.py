"""A backbone of a user's own, for ``--backbone tests.study.backbone_function:make``."""

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
