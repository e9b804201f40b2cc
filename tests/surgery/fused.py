"""Networks and blocks with gates, the same with fused gates, and what to compare them by."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from whatwhere import attend
from whatwhere.study.networks import SmallResNet
from whatwhere.surgery import fuse

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
# Of a pass: whether it added, what it applied, whether it overwrote x.
RELU, ADD, WAITED = (True, "relu", False), (True, None, False), (False, None, False)


def gated_and_fused(model, gate="cbam", *, example=None, **options):
    attend(model, gate, start="paper", example=example, **options)
    for name, parameter in model.named_parameters():
        if ".attention." in name:
            nn.init.normal_(parameter, std=0.5)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    fused = copy.deepcopy(model)
    return model, fused, fuse(fused, example=example)


def small():
    return gated_and_fused(SmallResNet(5, channels=(8, 16), blocks=(1, 2)))


def gradients(model, x):
    x = x.clone().requires_grad_()
    y = model(x)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return y, torch.autograd.grad((y * weights).sum(), [x, *model.parameters()])


class Block(nn.Module):
    """x to end(BN(conv x), x)."""

    def __init__(self, end):
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()
        self.end = end

    def forward(self, x):
        # In a network, shortcuts are results of something.
        return self.end(self, self.bn(self.conv(x)), x.clone())


def inplace_relu(_, branch, x):
    branch += x
    return F.relu(branch, inplace=True)
