"""Networks as people write them, for the tests of places."""

import torch
from torch import nn


class UNet(nn.Module):
    """As people write them: functional joins in the network itself."""

    def __init__(self, ndim=2):
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[ndim - 1]
        up = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[ndim - 1]
        self.down1 = nn.Sequential(conv(2, 4, 3, padding=1), nn.ReLU(), conv(4, 4, 3, padding=1))
        self.down2 = nn.Sequential(conv(4, 8, 3, padding=1), nn.ReLU(), conv(8, 8, 3, padding=1))
        self.pool = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[ndim - 1](2)
        self.bottom = nn.Sequential(conv(8, 16, 3, padding=1), nn.ReLU())
        self.up2, self.up1 = up(16, 8, 2, stride=2), up(8, 4, 2, stride=2)
        self.back2, self.back1 = conv(16, 8, 3, padding=1), conv(8, 4, 3, padding=1)
        self.join = Join()
        self.head = conv(4, 3, 1)

    def forward(self, x):
        a = self.down1(x)
        b = self.down2(self.pool(a))
        c = self.bottom(self.pool(b))
        c = self.back2(self.join(self.up2(c), skip=b))
        return self.head(self.back1(torch.cat([self.up1(c), a], 1)))


class Join(nn.Module):
    def forward(self, x, skip):
        return torch.cat([x, skip], 1)


class ChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, stride=2)
        self.mix = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.LayerNorm(8)
        self.wide, self.narrow = nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x).permute(0, 2, 3, 1)
        y = self.norm(self.mix(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        x = x + self.narrow(self.wide(y).relu())
        return self.head(x.mean((1, 2)))
