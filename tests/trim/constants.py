"""Networks with a gate that is the same for every input."""

import torch
from torch import nn

from whatwhere import attached, attend

CONSTANTS = torch.tensor([0.3, 0.9, 1.4, 0.6])


def attend_constant(model, where, x, constants=CONSTANTS):
    """Put a what gate of 2σ(b) after a module: the same constants for every input."""
    attend(model, "se", where=where, start="identity", example=x)
    site = attached(model)[0].site
    gate = model.get_submodule(f"{site}.attention")
    with torch.no_grad():
        # b enters once for the one descriptor.
        gate.mix.expand.bias.copy_(torch.logit(constants[: len(gate.mix.expand.bias)] / 2))
    return model.eval()


def sequence(*layers):
    model = nn.Sequential(*layers)
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, std=1.0 if name.endswith("bias") else 0.5)
    return model.double()
