"""What a gate is worth: the score of the network with a constant in its place, sample by sample."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from whatwhere.gates import Gate, Par
from whatwhere.look.records import Cost

# Of outputs and targets: one number per sample, higher is better.
Score = Callable[[Any, Any], Tensor]

CONFIDENCE = 0.95


def top1(outputs: Any, targets: Any) -> Tensor:
    """1 where the largest of outputs (N, K) is the target (N,), else 0.

    >>> top1(torch.eye(3), torch.tensor([0, 2, 2]))
    tensor([1., 0., 1.])
    """
    fits = (
        isinstance(outputs, Tensor)
        and isinstance(targets, Tensor)
        and outputs.ndim == 2
        and targets.shape == outputs.shape[:1]
        and not targets.is_floating_point()
    )
    if not fits:
        raise ValueError(
            f"diagnose: expected outputs (N, K) and integer targets (N,), got {_shown(outputs)} "
            f"and {_shown(targets)}; pass score=, a function of both that gives (N,)"
        )
    right: Tensor = outputs.argmax(1) == targets
    return right.to(torch.float32)


def scored(score: Score, outputs: Any, targets: Any, count: int) -> Tensor:
    """The scores of one batch (N,), in float64 on the CPU.

    Raises:
        ValueError: it is not one finite number per sample.
    """
    found = score(outputs, targets)
    if not isinstance(found, Tensor) or found.shape != (count,):
        raise ValueError(
            f"diagnose: expected score to give one number per sample, a tensor ({count},), got "
            f"{_shown(found)}"
        )
    found = found.detach().to("cpu", torch.float64)
    if not found.isfinite().all():
        raise ValueError("diagnose: expected finite scores, got NaN or infinite ones")
    return found


@contextmanager
def replaced(gate: Gate | Par, value: Tensor) -> Iterator[None]:
    """Have a gate give the same to every input: ``value``, the shape of the gate of one input.

    Code that was compiled before does not see it: use ``torch.compiler.set_stance``.

    >>> from whatwhere import ChannelAttention
    >>> attention = ChannelAttention(4)
    >>> with replaced(attention, torch.full((4, 1, 1), 0.5)):
    ...     attention(torch.ones(1, 4, 2, 2)).unique()
    tensor([0.5000])
    """

    def constant(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return value.to(output).expand_as(output).contiguous()

    handle = gate.activation.register_forward_hook(constant)
    try:
        yield
    finally:
        handle.remove()


class Drops:
    """Running sums of the differences of paired scores."""

    def __init__(self) -> None:
        self.samples = 0
        self.sum = 0.0
        self.squares = 0.0
        self.smallest = math.inf
        self.largest = -math.inf

    def add(self, before: Tensor, after: Tensor) -> None:
        """Take in the scores of the same samples, untouched and replaced."""
        drops = before - after
        self.samples += len(drops)
        self.sum += drops.sum().item()
        self.squares += drops.square().sum().item()
        scores = torch.cat([before, after])
        self.smallest = min(self.smallest, scores.min().item())
        self.largest = max(self.largest, scores.max().item())

    def cost(self) -> Cost:
        """The mean with its interval, see ``Cost``."""
        from scipy import stats

        span = max(self.largest, 0.0) - min(self.smallest, 0.0)
        if span == 0:  # as of a network that is always wrong
            span = 1.0
        count = self.samples + 2
        mean = self.sum / count
        variance = (self.squares + 2 * span**2 - count * mean**2) / (count - 1)
        error = math.sqrt(variance / count)
        low, high = stats.t.interval(CONFIDENCE, count - 1, loc=mean, scale=error)
        return Cost(self.sum / self.samples, float(low), float(high))


def measure_costs(
    model: nn.Module,
    batches: Iterator[tuple[Tensor, Any]],
    gates: Mapping[str, Gate | Par],
    means: Mapping[str, Tensor],
    score: Score,
) -> tuple[float, dict[str, tuple[Cost, Cost]]]:
    """The mean score of the network, and of each gate the cost of its mean and of one.

    Every batch runs untouched and then with one gate replaced at a time, so that samples are
    compared with themselves whatever the order in which they come.
    """
    drops = {site: (Drops(), Drops()) for site in means}
    total, samples = 0.0, 0
    for inputs, targets in batches:
        before = scored(score, model(inputs), targets, len(inputs))
        total += before.sum().item()
        samples += len(inputs)
        for site, pair in drops.items():
            neutral = torch.tensor(gates[site].neutral)
            for value, each in zip((means[site], neutral), pair, strict=True):
                with replaced(gates[site], value):
                    after = scored(score, model(inputs), targets, len(inputs))
                each.add(before, after)
    costs = {site: (mean.cost(), one.cost()) for site, (mean, one) in drops.items()}
    return total / samples, costs


def check_scipy() -> None:
    """Refuse to begin what could not be finished."""
    try:
        import scipy.stats  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "diagnose: expected scipy for the intervals of costs, which is not installed: "
            'pip install "whatwhere[study]", or pass data without targets'
        ) from error


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)}"
    return type(value).__name__
