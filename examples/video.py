"""When and where does a video network look? Clips whose decisive frames are known.

``python examples/video.py [--out FOLDER] [--epochs N]`` trains a small 3-D residual net with gates
over channels, positions and frames on the embedded clips (a digit shows in 3 of 12 cluttered
frames), plays the pointing game (does the largest weight fall on what matters?), and writes a
picture of the gates over four test clips.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Subset

import whatwhere
from whatwhere import look
from whatwhere.study.data import DataSettings, load
from whatwhere.study.networks import SmallResNet


def train(model, loader, *, epochs):
    """AdamW under a one-cycle schedule; the gates learn faster."""
    optimizer = torch.optim.AdamW(whatwhere.parameter_groups(model, 3e-3, gate_lr=1e-2))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [3e-3, 1e-2], epochs * len(loader))
    model.train()
    for _ in range(epochs):
        for x, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(x), labels).backward()
            optimizer.step()
            schedule.step()
    model.eval()


def main():
    """Train, ask where the weights lie, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("runs/video"))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--clips", type=int, help="training clips; by default all")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    data = load(DataSettings(source="clips", max_train=given.clips))
    model = SmallResNet(10, in_channels=1, ndim=3)
    report = whatwhere.attend(
        model,
        "cbam",
        order="channel-spatial-temporal",
        kernel_size=(1, 7, 7),
        example=data.test[0][0][None],
    )
    print(report)
    loader = DataLoader(data.train, batch_size=32, shuffle=True, drop_last=True)
    train(model, loader, epochs=given.epochs)

    test = Subset(data.test, range(min(256, len(data.test))))
    diagnosis = whatwhere.diagnose(model, DataLoader(test, batch_size=32), truth=data.truth)
    print(f"{diagnosis.score:.3f} of {len(test)} test clips right")
    for gate in diagnosis:
        if gate.hits is not None:
            print(f"{gate.site} ({gate.kind}): {gate.hits}")
    samples = torch.stack([test[index][0] for index in range(2)])
    figure = look.figure(model, samples, display=data.unnormalise(samples), grad_cam=False)
    figure.savefig(given.out / "gates.png", dpi=110, bbox_inches="tight")
    print(f"picture: {given.out / 'gates.png'}")


if __name__ == "__main__":
    main()
