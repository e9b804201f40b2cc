"""CBAM as other code bases define it, in this project's own words: names, layers and equations.

Each was written after the definition that its docstring names, and uses nothing of whatwhere.
"""

import torch
from torch import nn


def pooled(x):
    return nn.functional.adaptive_avg_pool2d(x, 1), nn.functional.adaptive_max_pool2d(x, 1)


def over_channels(x):
    return torch.mean(x, 1, keepdim=True), torch.max(x, 1, keepdim=True).values


class Named(nn.Module):
    """A module that only holds others, by dotted names."""

    def __init__(self, **modules):
        super().__init__()
        for name, module in modules.items():
            first, _, others = name.partition("__")
            self.add_module(first, Named(**{others: module}) if others else module)


class TutorialChannel(nn.Module):
    """luuuyi/CBAM.PyTorch@1851f2a: 1×1 convolutions without biases, on the mean and the maximum."""

    def __init__(self, channels, hidden, network="fc", bias=False, linear=False):
        super().__init__()
        first = (
            nn.Linear(channels, hidden, bias)
            if linear
            else nn.Conv2d(channels, hidden, 1, bias=bias)
        )
        second = (
            nn.Linear(hidden, channels, bias)
            if linear
            else nn.Conv2d(hidden, channels, 1, bias=bias)
        )
        self.linear, self.network = linear, network
        if network in ("fc1", "f1"):
            self.add_module(network, first)
            self.add_module(network.replace("1", "2"), second)
        else:
            self.add_module(network, nn.Sequential(first, nn.ReLU(), second))

    def shared(self, v):
        if self.network in ("fc1", "f1"):
            first, second = self.children()
        else:
            first, _, second = getattr(self, self.network)
        if self.linear:
            return second(first(v.flatten(1)).relu())[..., None, None]
        return second(first(v).relu())

    def forward(self, x):
        mean, maximum = pooled(x)
        return torch.sigmoid(self.shared(mean) + self.shared(maximum))


class TutorialSpatial(nn.Module):
    """luuuyi/CBAM.PyTorch@1851f2a: a convolution without bias of [mean; max]."""

    def __init__(self, kernel, conv="conv1", bias=False):
        super().__init__()
        self.add_module(conv, nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=bias))

    def forward(self, x):
        (conv,) = self.children()
        return torch.sigmoid(conv(torch.cat(over_channels(x), 1)))


class Tutorial(nn.Module):
    """The two, one after the other; bubbliiiing's and others' names for them in ``parts``."""

    def __init__(self, channels=32, hidden=2, kernel=7, parts=("ca", "sa"), **options):
        super().__init__()
        spatial = {key[8:]: options.pop(key) for key in list(options) if key.startswith("spatial_")}
        self.parts = parts
        self.add_module(parts[0], TutorialChannel(channels, hidden, **options))
        self.add_module(parts[1], TutorialSpatial(kernel, **spatial))

    def forward(self, x):
        x = getattr(self, self.parts[0])(x) * x
        return getattr(self, self.parts[1])(x) * x


class Official(nn.Module):
    """Jongchan/attention-module@459efad: biases, [max; mean], a batch norm of momentum 0.01."""

    def __init__(self, channels=32, hidden=2):
        super().__init__()
        layers = nn.Flatten(), nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        self.ChannelGate = Named(mlp=nn.Sequential(*layers))
        conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        norm = nn.BatchNorm2d(1, momentum=0.01)
        self.SpatialGate = Named(spatial=Named(conv=conv, bn=norm))

    def forward(self, x):
        logits = sum(map(self.ChannelGate.mlp, pooled(x)))
        x = x * torch.sigmoid(logits)[:, :, None, None]
        mean, maximum = over_channels(x)
        spatial = self.SpatialGate.spatial
        return x * torch.sigmoid(spatial.bn(spatial.conv(torch.cat([maximum, mean], 1))))


class Pytorchcv(nn.Module):
    """osmr/pytorchcv@08805dd: as the official one, with the default momentum."""

    def __init__(self, channels=32, hidden=2):
        super().__init__()
        mlp = Named(fc1=nn.Linear(channels, hidden), fc2=nn.Linear(hidden, channels))
        self.ch_gate = Named(mlp=mlp)
        conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.sp_gate = Named(conv=Named(conv=conv, bn=nn.BatchNorm2d(1)))

    def forward(self, x):
        mlp = self.ch_gate.mlp
        logits = sum(mlp.fc2(mlp.fc1(v.flatten(1)).relu()) for v in pooled(x))
        x = x * torch.sigmoid(logits)[:, :, None, None]
        mean, maximum = over_channels(x)
        block = self.sp_gate.conv
        return x * torch.sigmoid(block.bn(block.conv(torch.cat([maximum, mean], 1))))


class Mmyolo(nn.Module):
    """open-mmlab/mmyolo@2021152: convolutions with biases, since they have no norm; [mean; max]."""

    def __init__(self, channels=32, hidden=2, kernel=7):
        super().__init__()
        layers = (
            Named(conv=nn.Conv2d(channels, hidden, 1)),
            Named(conv=nn.Conv2d(hidden, channels, 1)),
        )
        self.channel_attention = Named(fc=nn.Sequential(*layers))
        conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2)
        self.spatial_attention = Named(conv=Named(conv=conv))

    def forward(self, x):
        first, second = (layer.conv for layer in self.channel_attention.fc)
        x = torch.sigmoid(sum(second(first(v).relu()) for v in pooled(x))) * x
        return torch.sigmoid(self.spatial_attention.conv.conv(torch.cat(over_channels(x), 1))) * x


class External(nn.Module):
    """xmu-xiaoma666/External-Attention-pytorch@8f69516: [max; mean], a bias, kernel 49, and + x."""

    def __init__(self, channels=32, hidden=2, kernel=49):
        super().__init__()
        layers = (
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1, bias=False),
        )
        self.ca = Named(se=nn.Sequential(*layers))
        self.sa = Named(conv=nn.Conv2d(2, 1, kernel, padding=kernel // 2))

    def forward(self, x):
        mean, maximum = pooled(x)
        y = x * torch.sigmoid(self.ca.se(maximum) + self.ca.se(mean))
        mean, maximum = over_channels(y)
        y = y * torch.sigmoid(self.sa.conv(torch.cat([maximum, mean], 1)))
        return y + x


class Ultralytics(nn.Module):
    """ultralytics@007216d: one layer on the mean alone, then a spatial part without norm."""

    def __init__(self, channels=32):
        super().__init__()
        self.channel_attention = Named(fc=nn.Conv2d(channels, channels, 1))
        self.spatial_attention = Named(cv1=nn.Conv2d(2, 1, 7, padding=3, bias=False))


class Bottleneck(nn.Module):
    """A residual block of the authors' and of torchvision's names, with a CBAM after bn3."""

    def __init__(self, inputs, width, stride, gates):
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs))
        self.gates = []
        for name, gate in gates(outputs).items():
            self.add_module(name, gate)
            self.gates.append(name)

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn3(self.conv3(self.bn2(self.conv2(x)).relu()))
        if self.gates == ["cbam"]:
            x = self.cbam(x)
        for part in self.gates if self.gates != ["cbam"] else ():  # of tutorials, in the block
            x = getattr(self, part)(x) * x
        return (x + shortcut).relu()


class ResNet(nn.Module):
    """A residual network of Bottlenecks, keys as torchvision's; ``counts`` (3, 4, 6, 3) is 50."""

    def __init__(self, gates, counts=(3, 4, 6, 3), width=64, classes=1000):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        channels = 64
        for i, count in enumerate(counts):
            blocks = []
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(Bottleneck(channels, width * 2**i, stride, gates))
                channels = 4 * width * 2**i
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        for name, layer in self.named_children():
            x = layer(x) if name.startswith("layer") else x
        return self.fc(x.mean((2, 3)))


class CvBlock(nn.Module):
    """osmr/pytorchcv@08805dd's convolution and norm, with or without a ReLU."""

    def __init__(self, inputs, outputs, kernel, stride=1, relu=True):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn, self.relu = nn.BatchNorm2d(outputs), relu

    def forward(self, x):
        x = self.bn(self.conv(x))
        return x.relu() if self.relu else x


class CvUnit(nn.Module):
    """osmr/pytorchcv@08805dd's CBAM unit with a bottleneck."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.body = Named(
            conv1=CvBlock(inputs, width, 1),
            conv2=CvBlock(width, width, 3, stride),
            conv3=CvBlock(width, 4 * width, 1, relu=False),
        )
        self.project = stride != 1 or inputs != 4 * width
        if self.project:
            self.identity_conv = CvBlock(inputs, 4 * width, 1, stride, relu=False)
        self.cbam = Pytorchcv(4 * width, 4 * width // 16)

    def forward(self, x):
        shortcut = self.identity_conv(x) if self.project else x
        for layer in self.body.children():
            x = layer(x)
        return (self.cbam(x) + shortcut).relu()


class CvResNet(nn.Module):
    """osmr/pytorchcv@08805dd's CBAM-ResNet."""

    def __init__(self, counts, width, classes=10):
        super().__init__()
        self.features = Named(init_block=Named(conv=CvBlock(3, 64, 7, 2)))
        channels = 64
        for i, count in enumerate(counts):
            stage = nn.Sequential()
            for j in range(count):
                unit = CvUnit(channels, width * 2**i, 2 if i > 0 and j == 0 else 1)
                stage.add_module(f"unit{j + 1}", unit)
                channels = 4 * width * 2**i
            self.features.add_module(f"stage{i + 1}", stage)
        self.output = nn.Linear(channels, classes)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.features.init_block.conv(x), 3, 2, 1)
        for name, stage in self.features.named_children():
            x = stage(x) if name.startswith("stage") else x
        return self.output(x.mean((2, 3)))
