"""Which samples go where: the cuts a source lacks, and the first-look limit; row numbers only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from whatwhere.study.data.base import DataError, DataSettings, Samples

SplitName = Literal["train", "val", "test"]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Some rows of stored samples, and the label of each."""

    samples: Samples
    rows: Ints
    labels: Ints

    def take(self, positions: Ints) -> "Part":
        """The rows at these positions."""
        return replace(self, rows=self.rows[positions], labels=self.labels[positions])


def stratified(labels: Ints, count: int, *, seed: int) -> Ints:
    """Sorted positions of ``count`` samples, every class with its share of them.

    Every class gets at least one as long as ``count`` is no less than the number of classes, and
    a larger count keeps what a smaller one chose.

    >>> stratified(np.array([0] * 6 + [1] * 2), 4, seed=0).tolist()
    [2, 3, 4, 6]
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    # The share of its class that comes before a sample: the first of each class has 0.
    before = np.empty(len(labels))
    for label in np.unique(labels):
        mine = np.flatnonzero(labels[shuffled] == label)
        before[mine] = np.arange(len(mine)) / len(mine)
    return np.sort(shuffled[np.argsort(before, kind="stable")[:count]])


def complete(
    parts: Mapping[SplitName, Part], settings: DataSettings, classes: Sequence[str]
) -> dict[SplitName, Part]:
    """Train, val and test: what the source has, and the rest cut from its training samples.

    A source with val but no test keeps its val for the test, since that is what others report on.
    """
    done = dict(parts)
    train = done["train"]
    if "test" not in done and "val" in done:
        done["test"] = done.pop("val")
    fractions: dict[SplitName, float] = {
        "test": settings.test_fraction,
        "val": settings.validation_fraction,
    }
    cut: list[SplitName] = ["train"]
    for name, fraction in fractions.items():
        if name not in done:
            count = max(round(fraction * len(parts["train"].rows)), len(classes))
            chosen = stratified(train.labels, count, seed=settings.split_seed)
            done[name] = train.take(chosen)
            train = train.take(np.setdiff1d(np.arange(len(train.rows)), chosen))
            cut.append(name)
    done["train"] = train
    _check_every_class_in(cut, done, parts["train"], classes)
    return done


def limit(parts: Mapping[SplitName, Part], settings: DataSettings) -> dict[SplitName, Part]:
    """At most ``max_train`` training samples, and the same proportion of the other splits."""
    total = len(parts["train"].rows)
    if settings.max_train is None or settings.max_train >= total:
        return dict(parts)
    classes = len(np.unique(parts["train"].labels))
    if settings.max_train < classes:
        raise DataError(
            f"expected max_train to be at least the number of classes, {classes}, "
            f"got {settings.max_train}"
        )
    return {
        name: part.take(
            stratified(
                part.labels,
                max(round(len(part.rows) * settings.max_train / total), classes),
                seed=settings.split_seed,
            )
        )
        for name, part in parts.items()
    }


def _check_every_class_in(
    cut: Sequence[SplitName],
    parts: Mapping[SplitName, Part],
    source: Part,
    classes: Sequence[str],
) -> None:
    had = np.bincount(source.labels, minlength=len(classes))
    for split in cut:
        has = np.bincount(parts[split].labels, minlength=len(classes))
        for name, before, now in zip(classes, had, has, strict=True):
            if now == 0:
                raise DataError(
                    f"class {name!r} has {before} training samples, "
                    f"too few to give at least one to each of: {', '.join(cut)}"
                )
