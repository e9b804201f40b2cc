"""Running networks of any kind: weights that hide nothing, arguments, comparing outputs."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from benchmarks.reach.catalog.entry import Arguments


def randomise(model: nn.Module) -> None:
    """Replace what starts as a constant, so that no branch is scaled by nothing and no norm idle.

    Scales become random numbers from 0.5 to 1.5, whatever they were; zeros become small random
    numbers; a norm's running mean and variance too. Weights that are random already stay.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point() and bool((parameter == parameter.flatten()[0]).all()):
                if bool((parameter == 0).all()):
                    parameter.normal_(0, 0.1)
                else:
                    parameter.uniform_(0.5, 1.5)
        for module in model.modules():
            mean, var = getattr(module, "running_mean", None), getattr(module, "running_var", None)
            if isinstance(mean, Tensor) and isinstance(var, Tensor):
                mean.normal_(0, 0.1)
                var.uniform_(0.5, 1.5)


def call(model: nn.Module, arguments: Arguments, *, seed: int = 0) -> Any:
    """What the model returns for positional or keyword arguments, with dropout and noise seeded."""
    torch.manual_seed(seed)
    arguments = tree_map(lambda leaf: leaf, arguments)  # some write into the list they are given
    return model(**arguments) if isinstance(arguments, dict) else model(*arguments)


def evaluate(model: nn.Module, arguments: Arguments) -> list[Tensor]:
    """The tensors a network returns in eval mode, without gradients.

    Raises:
        RuntimeError: there are no numbers in them, or some are not finite: nothing to compare.
    """
    with torch.no_grad():
        tensors = outputs(call(model.eval(), arguments))
    floating = [tensor for tensor in tensors if tensor.is_floating_point()]
    if not any(tensor.numel() for tensor in floating):
        raise RuntimeError("the network returned no floating-point numbers")
    if not all(bool(tensor.isfinite().all()) for tensor in floating):
        raise RuntimeError("the network's own output is not finite")
    return tensors


def outputs(value: Any) -> list[Tensor]:
    """The tensors in what a network returned."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def difference(before: list[Tensor], after: list[Tensor]) -> float:
    """The largest absolute difference over all tensors; infinite where shapes differ."""
    shapes = [[tuple(tensor.shape) for tensor in each] for each in (before, after)]
    if shapes[0] != shapes[1]:
        return float("inf")
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if a.numel() > 0]
    return max((float((a.double() - b.double()).abs().max()) for a, b in pairs), default=0.0)


def size(tensors: list[Tensor]) -> float:
    """The largest absolute value over all tensors."""
    return max(float(tensor.double().abs().max()) for tensor in tensors if tensor.numel())


def channels_last(model: nn.Module, arguments: Arguments) -> Arguments | None:
    """The arguments in channels_last, with the model's weights in it too; None without images."""
    leaves = [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)]
    axes = {leaf.ndim for leaf in leaves} & {4, 5}
    if len(axes) != 1:
        return None
    ndim = axes.pop()
    layout = torch.channels_last if ndim == 4 else torch.channels_last_3d
    model.to(memory_format=layout)

    def laid_out(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.ndim == ndim:
            return leaf.contiguous(memory_format=layout)
        return leaf

    return tree_map(laid_out, arguments)
