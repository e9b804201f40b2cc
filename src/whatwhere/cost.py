"""What a network costs: parameters, multiply-accumulates, measured latency, training memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from whatwhere.evaluation import evaluating

LEAST_ROUNDS = 7
MOST_ROUNDS = 200


@dataclass(frozen=True)
class Latency:
    """Of each round: milliseconds of a forward pass, and their ratio to the first network's."""

    milliseconds: tuple[float, ...]
    ratios: tuple[float, ...]


def parameters(model: nn.Module) -> int:
    """Number of learnable values.

    >>> parameters(nn.Conv2d(3, 8, 3))
    224
    """
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def macs(model: nn.Module, x: Tensor) -> int:
    """Multiply-accumulates of convolutions and matrix products in one forward pass of x.

    Normalisation, activations, pooling and the gates' multiplications count nothing: the
    convention of CBAM's tables. Counted by torch's FlopCounterMode.

    >>> macs(nn.Conv2d(3, 8, 3, padding=1), torch.zeros(1, 3, 10, 10))
    21600
    """
    with evaluating(model), FlopCounterMode(display=False) as counter:
        model(x)
    return int(counter.get_total_flops()) // 2


def training_memory(model: nn.Module, x: Tensor) -> int:
    """Bytes that a training step of x keeps for its backward pass, parameters not counted."""
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    training = [module for module in model.modules() if not module.training]
    model.train()
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = model(x)  # alive until the count, so that no storage is counted as another
        total = sum(kept.values())
        del output
    finally:
        for module in training:
            module.training = False
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return total


def latencies(
    models: Mapping[str, nn.Module], x: Tensor, *, seconds: float = 10.0
) -> dict[str, Latency]:
    """Time one forward pass of each network, interleaved round by round, for so many seconds.

    Only ratios to the first network mean much on a machine that does other work: they are taken
    within a round, and every second round runs in the opposite order. There are at least
    ``LEAST_ROUNDS`` rounds and at most ``MOST_ROUNDS``, after two that don't count.
    """
    times: dict[str, list[float]] = {name: [] for name in models}
    started = perf_counter()
    with torch.inference_mode():
        for index in range(2 + MOST_ROUNDS):
            if index >= 2 + LEAST_ROUNDS and perf_counter() - started > seconds:
                break
            order = list(models) if index % 2 == 0 else list(models)[::-1]
            for name in order:
                with evaluating(models[name]):
                    times[name].append(_time(models[name], x))
    counted = {name: every[2:] for name, every in times.items()}
    first = counted[next(iter(models))]
    return {
        name: Latency(
            tuple(1000 * second for second in every),
            tuple(ours / base for ours, base in zip(every, first, strict=True)),
        )
        for name, every in counted.items()
    }


def _time(model: nn.Module, x: Tensor) -> float:
    start = perf_counter()
    model(x)
    if x.device.type != "cpu":
        torch.accelerator.synchronize(x.device)
    return perf_counter() - start
