"""A trained network gets gates, learns with them, and keeps those that earn their place.

``python examples/trained_network.py [FOLDER]`` takes some minutes on two cores. It trains a small
residual net on the embedded digits, puts CBAM into it, shows that its outputs are the same, trains
on, diagnoses the gates, folds those that are constant, prunes those that do nothing, saves the
network, and loads it in another process.
"""

import subprocess
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

import whatwhere
from whatwhere.study.data import DataSettings, load
from whatwhere.study.networks import SmallResNet

ELSEWHERE = """
import sys, torch, whatwhere
model = whatwhere.load(sys.argv[1] + "/network.safetensors").eval()
inputs, outputs = torch.load(sys.argv[1] + "/outputs.pt", weights_only=True)
with torch.no_grad():
    print("in another process, outputs equal:", torch.equal(model(inputs), outputs))
"""


def train(model, loader, groups, *, epochs):
    """AdamW with a one-cycle schedule; each group has its own rate."""
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in groups], epochs * len(loader)
    )
    model.train()
    for _ in range(epochs):
        for x, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(x), labels).backward()
            optimizer.step()
            schedule.step()
    model.eval()


@torch.no_grad()
def accuracy(model, batches):
    """Share of right answers."""
    right = [(model(x).argmax(1) == labels).float() for x, labels in batches]
    return torch.cat(right).mean().item()


def main(folder):
    """Each step in turn, with what it printed."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    data = load(DataSettings())
    loader = DataLoader(data.train, batch_size=64, shuffle=True, drop_last=True)
    validation = list(DataLoader(data.val, batch_size=250))
    test = list(DataLoader(data.test, batch_size=250))

    model = SmallResNet(10, in_channels=1)
    train(model, loader, [{"params": list(model.parameters()), "lr": 3e-3}], epochs=6)
    inputs = test[0][0]
    with torch.no_grad():
        before = model(inputs)
    print(f"plain network: {accuracy(model, test):.3f} of {len(data.test)} test samples right")

    print(whatwhere.attend(model, "cbam", example=inputs[:1]))
    with torch.no_grad():
        print("outputs unchanged:", torch.equal(model(inputs), before))

    train(model, loader, whatwhere.parameter_groups(model, 1e-3, gate_lr=3e-2), epochs=4)
    print(f"trained on with gates: {accuracy(model, test):.3f}")

    print(whatwhere.diagnose(model, validation, tolerance=0.02))
    print(whatwhere.fold(model, validation, tolerance=0.2))
    print(f"folded: {accuracy(model, test):.3f}")
    print(whatwhere.prune(model, whatwhere.diagnose(model, validation, tolerance=0.02)))
    print(f"pruned: {accuracy(model, test):.3f}")

    whatwhere.save(
        model,
        folder / "network.safetensors",
        network="whatwhere.study.networks.SmallResNet",
        arguments={"classes": 10, "in_channels": 1},
    )
    with torch.no_grad():
        torch.save((inputs, model(inputs)), folder / "outputs.pt")
    subprocess.run([sys.executable, "-c", ELSEWHERE, str(folder)], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/trained_network"))
