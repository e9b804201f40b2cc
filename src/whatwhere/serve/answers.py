"""What an input gives: probabilities, with gates as they are or switched off."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whatwhere.checks import check_choice
from whatwhere.evaluation import evaluating
from whatwhere.gates import Kind
from whatwhere.look import gates_in, record
from whatwhere.look.ablation import replaced
from whatwhere.look.maps import root_of
from whatwhere.look.sums import Sums

BATCH = 32


@dataclass(frozen=True)
class Place:
    """The gates at one place of a network, as the channel and the spatial gate of a CBAM."""

    site: str
    gates: Mapping[str, Kind]


def places(model: nn.Module, x: Tensor) -> tuple[Place, ...]:
    """Where a network has gates, in the order in which they run on x.

    >>> from whatwhere import CBAM
    >>> [found] = places(nn.Sequential(CBAM(2)), torch.ones(1, 2, 3, 3))
    >>> found.site, found.gates
    ('0', {'0.gates.channel': 'what', '0.gates.spatial': 'where'})
    """
    known = gates_in(model)
    with evaluating(model), record(model) as recorded:
        model(x)
    found: dict[str, dict[str, Kind]] = {}
    for name in recorded:
        found.setdefault(root_of(model, name), {})[name] = known[name].kind
    return tuple(Place(site, gates) for site, gates in found.items())


@contextmanager
def switched_off(model: nn.Module, off: Mapping[str, Tensor]) -> Iterator[None]:
    """Have gates, by name, give one value to every input, of the shape of the gate of one input.

    Raises:
        ValueError: there is no such gate.
    """
    gates = gates_in(model)
    with ExitStack() as stack:
        # Code that was compiled before would not run the hooks that replace.
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        for name, value in off.items():
            check_choice("switched_off", "gate", name, list(gates))
            stack.enter_context(replaced(gates[name], value))
        yield


def neutral(model: nn.Module, names: Collection[str]) -> dict[str, Tensor]:
    """For each of these gates the value that takes it out."""
    gates = gates_in(model)
    return {name: torch.tensor(gates[name].neutral) for name in names}


def probabilities(model: nn.Module, x: Tensor) -> Tensor:
    """The softmax (K,) of a network's scores on the CPU; of a batch, as frames, the mean.

    Raises:
        ValueError: the network is no classifier.

    >>> from whatwhere import CBAM
    >>> net = nn.Sequential(CBAM(2, start="identity"), nn.Flatten())
    >>> x = torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1)
    >>> probabilities(net, x)
    tensor([0.2689, 0.7311])
    >>> with switched_off(net, {"0.gates.channel": torch.tensor([[[0.0]], [[2.0]]])}):
    ...     probabilities(net, x)
    tensor([0.1192, 0.8808])
    """
    with evaluating(model):
        scores = model(x)
    if not isinstance(scores, Tensor) or scores.ndim != 2 or len(scores) != len(x):
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(f"expected a classifier, with one score per class (N, K), got {got}")
    return scores.cpu().float().softmax(1).mean(0)


def mean_gates(model: nn.Module, samples: Tensor) -> dict[str, Tensor]:
    """The mean of every gate over samples (M, C, *S): the shape of the gate of one input.

    >>> from whatwhere import CBAM
    >>> means = mean_gates(CBAM(4, start="identity"), torch.rand(3, 4, 2, 2))
    >>> {name: (tuple(mean.shape), mean.unique().tolist()) for name, mean in means.items()}
    {'gates.channel': ((4, 1, 1), [1.0]), 'gates.spatial': ((1, 2, 2), [1.0])}
    """
    gates = gates_in(model)
    sums: dict[str, Sums] = {}
    for batch in samples.split(BATCH):
        with evaluating(model), record(model) as recorded:
            model(batch)
        for name, calls in recorded.items():
            for call in calls:
                sums.setdefault(name, Sums(name, gates[name], owner="mean_gates")).add(call)
    return {name: each.mean() for name, each in sums.items()}
