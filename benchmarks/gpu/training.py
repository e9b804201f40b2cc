"""The rows of a training step: a network plain, with our gates, and with timm's compiled."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.cbam import CbamModule
from torch import nn
from torchvision import models

from benchmarks.gpu import marks
from benchmarks.gpu.clock import Call
from benchmarks.gpu.gates import Setup
from whatwhere import attend
from whatwhere.bench.measure.networks import CLASSES, with_gates
from whatwhere.bench.measure.timing import quartiles

NETWORK, SIDE = "resnet50", 224
BATCHES = (64, 256)


def networks(setup: Setup, name: str) -> dict[str, nn.Module]:
    """All with the plain network's weights, and gates after the same residual branches."""
    plain = models.get_model(name, num_classes=CLASSES)

    def ours(fuse: bool) -> nn.Module:
        network = copy.deepcopy(plain)
        attend(network, "cbam", start="paper", fuse=fuse)
        return network

    def timm(channels: int, _weights: object) -> Any:
        return setup.compiled(CbamModule(channels))

    return {
        "plain": plain,
        "ours": ours(False),
        "ours fused": ours(True),
        "timm compiled": with_gates(plain, timm, norm=True),
    }


def step_of(setup: Setup, network: nn.Module, batch: int, side: int) -> Call:
    """Forward, backward and SGD in bfloat16 by autocast, channels_last."""
    network = network.to(setup.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
    images = torch.randn(batch, 3, side, side, device=setup.device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (batch,), device=setup.device)

    def step() -> object:
        optimizer.zero_grad()
        with torch.autocast(setup.device.type, torch.bfloat16):
            loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def rows(
    setup: Setup, *, name: str = NETWORK, side: int = SIDE, batches: tuple[int, ...] = BATCHES
) -> Iterator[str]:
    """The table, line by line: milliseconds of a step."""
    columns = ("plain", "ours", "ours fused", "timm compiled")
    yield f"| network | batch | {' | '.join(f'{column}, ms' for column in columns)} | mark |"
    yield "|---|---:|" + "---:|" * len(columns) + "---|"
    for batch in batches:
        calls = {
            column: step_of(setup, network, batch, side)
            for column, network in networks(setup, name).items()
        }
        times = setup.clock.timed(calls, cold=False)
        middle = {column: quartiles(every)[1] for column, every in times.items()}
        cells = ["{1:.2f} ({0:.2f}-{2:.2f})".format(*quartiles(times[each])) for each in columns]
        yield f"| {name} | {batch} | {' | '.join(cells)} | {marks.of_training(middle)} |"
