"""A backbone of a user's own, for ``--backbone tests.study.backbone_function:make``."""

import os
import signal
from pathlib import Path

import torch
from torch import nn

from whatwhere.study.networks import SmallResNet


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


def grouped(classes, *, in_channels, ndim):
    """A residual network whose norms see one sample at a time, not the batch."""
    network = SmallResNet(classes, in_channels=in_channels, ndim=ndim, channels=(8, 16, 16))
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.GroupNorm(4, child.num_features))
    return network


def mortal(classes, *, in_channels, ndim):
    """The same with dropout; its process dies in one step, once: DIES is "RANK STEP FILE"."""
    network = grouped(classes, in_channels=in_channels, ndim=ndim)
    network.head = nn.Sequential(nn.Dropout(0.2), network.head)
    rank, last, file = os.environ["DIES"].split()
    steps = 0

    def count(module, inputs):
        nonlocal steps
        steps += module.training
        mine = os.environ.get("LOCAL_RANK", "0") == rank
        if mine and steps == int(last) and not Path(file).exists():
            Path(file).touch()
            os.kill(os.getpid(), signal.SIGKILL)

    network.register_forward_pre_hook(count)
    return network
