"""Worlds that differ in how test accuracies vary, and studies drawn from them.

A world takes a generator, the true gain of every network in points and a number of seeds, and
draws (studies, networks, seeds) accuracies in points. Whatever its noise, a network's expectation
is its gain plus the same for all; every seed moves all networks together.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator

Draw = Callable[[Generator, np.ndarray, tuple[int, int, int]], np.ndarray]

BASE = 85.0  # the plain network's expected accuracy
SEED = 1.0  # standard deviation of what a seed does to all networks, in points
NOISE = 1.0  # and of what it does to one


@dataclass(frozen=True)
class World:
    """A way in which accuracies vary, and what to call it."""

    title: str
    draw: Draw


def _additive(noise: Callable[[Generator, tuple[int, int, int]], np.ndarray]) -> Draw:
    def draw(random: Generator, gains: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
        studies, _, seeds = shape
        shared = random.normal(0, SEED, (studies, 1, seeds))
        return BASE + gains[:, None] + shared + noise(random, shape)

    return draw


def _skewed(random: Generator, shape: tuple[int, int, int]) -> np.ndarray:
    return NOISE * (1 - random.exponential(1, shape))  # now and then a bad run


def _unstable(random: Generator, shape: tuple[int, int, int]) -> np.ndarray:
    drawn = _skewed(random, shape)
    plain = slice(0, None, shape[1] - 1)  # the plain network comes first, the control last
    drawn[:, plain] = random.normal(0, NOISE / 4, drawn[:, plain].shape)
    return drawn


def _counted(samples: int) -> Draw:
    def draw(random: Generator, gains: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
        studies, _, seeds = shape
        shared = random.normal(0, SEED, (studies, 1, seeds))
        rate = np.clip((BASE + gains[:, None] + shared) / 100, 0, 1)
        return 100 * random.binomial(samples, rate) / samples

    return draw


WORLDS = {
    "gaussian": World("normal", _additive(lambda random, shape: random.normal(0, NOISE, shape))),
    "counted": World("counts of 500 test samples", _counted(500)),
    "coarse": World("counts of 50 test samples", _counted(50)),
    "heavy": World(
        "heavy tails (t, 3 degrees of freedom)",
        _additive(lambda random, shape: NOISE * random.standard_t(3, shape)),
    ),
    "skewed": World("skewed: any network has bad runs (exponential)", _additive(_skewed)),
    "unstable": World("skewed: gated networks alone have bad runs", _additive(_unstable)),
}


def gains_of(truth: str, variants: int, *, gain: float = 8.0) -> np.ndarray:
    """The true gain of the plain network, every attention variant and the control.

    "none": no network differs. "size": all that are larger gain the same. "half": every second
    attention variant gains, the first among them, and the control does not.
    """
    gains = np.zeros(variants + 2)
    if truth == "size":
        gains[1:] = gain
    elif truth == "half":
        gains[1:-1:2] = gain
    return gains


def studies(
    world: str,
    gains: np.ndarray,
    *,
    seeds: int,
    count: int,
    random: Generator,
    until_sure: float | None = None,
) -> Iterator[dict[str, Any]]:
    """Results as a study writes them, as far as statistics and verdict read them."""
    names = ["none", *(f"gate{index}" for index in range(len(gains) - 2)), "wider"]
    roles = ["baseline", *["attention"] * (len(gains) - 2), "control"]
    variants = [{"name": n, "role": r} for n, r in zip(names, roles, strict=True)]
    for drawn in WORLDS[world].draw(random, gains, (count, len(gains), seeds)):
        yield {
            "settings": {"until_sure": until_sure},
            "variants": variants,
            "trials": [
                {
                    "variant": name,
                    "seed": seed,
                    "status": "finished",
                    "test": {"accuracy": float(value) / 100},
                }
                for name, row in zip(names, drawn, strict=True)
                for seed, value in enumerate(row)
            ],
        }
