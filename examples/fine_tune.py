"""Gates into a pretrained network, fine-tuned on a new task, beside fine-tuning without them.

``python examples/fine_tune.py [--weights FILE] [--epochs N] [--seeds N]``: the network has learned
to tell the digits 0 to 4 apart and is to learn 5 to 9 from 50 samples each. The steps are those of
any pretrained network:

    model = torchvision.models.resnet18(weights="DEFAULT")
    model.fc = torch.nn.Linear(512, classes)
    whatwhere.attend(model, "cbam")
    optimizer = torch.optim.AdamW(whatwhere.parameter_groups(model, 1e-4, gate_lr=3e-3))

``--weights`` takes a checkpoint that ``whatwhere.save`` wrote, in place of the pretraining.
"""

import argparse
import copy

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Subset

import whatwhere
from whatwhere.study.data import DataSettings, load
from whatwhere.study.networks import SmallResNet

OLD, NEW = range(5), range(5, 10)
SHOTS = 50


def batches(split, digits, *, each=None, shuffle=False):
    """Batches of the samples of some digits, labelled from 0, at most ``each`` of a digit."""
    rows = []
    for digit in digits:
        found = (split.labels == digit).nonzero().flatten().tolist()
        rows += found if each is None else found[:each]
    loader = DataLoader(Subset(split, rows), batch_size=50, shuffle=shuffle)
    first = digits[0]
    return [(x, labels - first) for x, labels in loader]


def train(model, data, groups, *, epochs):
    """AdamW under a one-cycle schedule."""
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    rates = [group["lr"] for group in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, epochs * len(data))
    model.train()
    for _ in range(epochs):
        for at in torch.randperm(len(data)).tolist():
            x, labels = data[at]
            optimizer.zero_grad()
            F.cross_entropy(model(x), labels).backward()
            optimizer.step()
            schedule.step()
    model.eval()


@torch.no_grad()
def accuracy(model, data):
    """Share of right answers."""
    return torch.cat([(model(x).argmax(1) == labels).float() for x, labels in data]).mean().item()


def main():
    """Pretrain or load, then fine-tune with and without gates, over seeds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.manual_seed(0)
    data = load(DataSettings())
    if given.weights is not None:
        pretrained = whatwhere.load(given.weights)
    else:
        pretrained = SmallResNet(len(OLD), in_channels=1)
        plain = [{"params": list(pretrained.parameters()), "lr": 3e-3}]
        train(pretrained, batches(data.train, OLD, shuffle=True), plain, epochs=given.epochs)
    pretrained.eval()
    print(f"pretrained: {accuracy(pretrained, batches(data.test, OLD)):.3f} of its own task")

    test = batches(data.test, NEW)
    for seed in range(given.seeds):
        torch.manual_seed(seed)
        few = batches(data.train, NEW, each=SHOTS, shuffle=True)
        plain = copy.deepcopy(pretrained)
        plain.head = torch.nn.Linear(plain.head.in_features, len(NEW))
        gated = copy.deepcopy(plain)
        x = test[0][0]
        with torch.no_grad():
            before = gated(x)
            whatwhere.attend(gated, "cbam", kernel_size=3, example=x[:1])
            assert torch.equal(gated(x), before)  # nothing of the pretraining is lost
        train(plain, few, [{"params": list(plain.parameters()), "lr": 1e-3}], epochs=given.epochs)
        groups = whatwhere.parameter_groups(gated, 1e-3, gate_lr=1e-2)
        train(gated, few, groups, epochs=given.epochs)
        print(
            f"seed {seed}: fine-tuned {accuracy(plain, test):.3f}, "
            f"with gates {accuracy(gated, test):.3f}"
        )


if __name__ == "__main__":
    main()
