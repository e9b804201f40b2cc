"""A backbone of a user's own, for ``--backbone tests.study.backbone_function:make``."""

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


def grouped(classes, *, in_channels, ndim):
    """A residual network whose norms see one sample at a time, not the batch."""
    network = SmallResNet(classes, in_channels=in_channels, ndim=ndim, channels=(8, 16, 16))
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.GroupNorm(4, child.num_features))
    return network
