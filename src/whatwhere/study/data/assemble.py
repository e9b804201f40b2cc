"""From what a source found to data ready to train on: splits, limit, normalisation, fingerprint."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from whatwhere.study.data.base import (
    DataError,
    DataSettings,
    Scale,
    SkippedFile,
    Split,
    StudyData,
    Truth,
    Views,
)
from whatwhere.study.data.splitting import Ints, Part, SplitName, complete, limit
from whatwhere.study.data.stream.order import Layout

SAMPLES_FOR_SCALE = 1000
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Moments:
    """Of the stored values of every sample, by row: what normalisation needs."""

    mean: Floats  # (N, C)
    variance: Floats  # (N, C)
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Found:
    """What a source has, before anything is cut, limited or normalised."""

    name: str
    classes: tuple[str, ...]
    parts: Mapping[SplitName, Part]  # "train" at least
    views: Views
    digest: str  # of the content of all samples
    skipped: tuple[SkippedFile, ...] = ()
    truth: Truth | None = None  # by row of the test part
    moments: Moments | None = None  # if None, they are taken from some of the samples
    layout: Layout | None = None  # if None, samples can be read in any order as fast


def assemble(found: Found, settings: DataSettings) -> StudyData:
    """Cut what is missing, limit, normalise."""
    if len(found.classes) < 2:
        raise DataError(
            f"{found.name}: expected at least 2 classes, got {len(found.classes)}: "
            f"{', '.join(found.classes)}"
        )
    parts = limit(complete(found.parts, settings, found.classes), settings)
    rows = parts["train"].rows
    moments = _moments(parts["train"], found.views) if found.moments is None else found.moments
    floats = parts["train"].samples[int(rows[0])].is_floating_point()
    chosen = np.arange(len(moments.low)) if found.moments is None else rows
    scale, value_range = _scale(moments, chosen, full=1.0 if floats else 255.0)
    splits = {
        name: Split(
            part.samples,
            rows=part.rows,
            labels=part.labels,
            views=found.views,
            scale=scale,
            layout=None if found.layout is None else found.layout.take(part.rows),
        )
        for name, part in parts.items()
    }
    shape = tuple(splits["train"][0][0].shape)
    return StudyData(
        name=found.name,
        classes=found.classes,
        shape=shape,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        skipped=found.skipped,
        truth=_truth_of(found.truth, parts["test"]),
        fingerprint=_fingerprint(found, parts, shape),
        mean=scale.mean,
        std=scale.std,
        value_range=value_range,
        stored=parts["train"].samples[int(parts["train"].rows[0])].shape[-1],
    )


def digest(*arrays: torch.Tensor) -> str:
    """The sha256 of tensors' shapes, dtypes and values.

    >>> digest(torch.zeros(2))[:8] == digest(torch.zeros(2, 1))[:8]
    False
    """
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{tuple(array.shape)} {array.dtype}".encode())
        total.update(array.contiguous().numpy().data.cast("B"))
    return total.hexdigest()


def _moments(train: Part, views: Views) -> Moments:
    # Evenly spread rows, so that sources sorted by class give every class its say.
    step = -(-len(train.rows) // SAMPLES_FOR_SCALE)
    means, variances, lows, highs = [], [], [], []
    for row in train.rows[::step]:
        flat = views.evaluate(train.samples[int(row)]).flatten(1).double()
        means.append(flat.mean(1))
        variances.append(flat.var(1, correction=0))
        lows.append(float(flat.min()))
        highs.append(float(flat.max()))
    return Moments(
        mean=torch.stack(means).numpy(),
        variance=torch.stack(variances).numpy(),
        low=np.array(lows),
        high=np.array(highs),
    )


def _scale(moments: Moments, rows: Ints, *, full: float) -> tuple[Scale, tuple[float, float]]:
    # All samples have one shape: the mean of their means is the mean, and the variances add up.
    every = torch.from_numpy(moments.mean[rows]).double()
    variance = torch.from_numpy(moments.variance[rows]).double().mean(0)
    std = (variance + every.var(0, correction=0)).sqrt() / full
    std = torch.where(std > 0, std, 1.0)  # a constant channel becomes 0
    mean = every.mean(0) / full
    low, high = (0.0, 1.0)
    if full == 1.0:
        low, high = float(moments.low[rows].min()), float(moments.high[rows].max())
    if low == high:
        high = low + 1.0
    return Scale(tuple(mean.tolist()), tuple(std.tolist()), full), (low, high)


def _truth_of(truth: Truth | None, test: Part) -> Truth | None:
    if truth is None:
        return None
    rows = torch.from_numpy(test.rows)
    return Truth(
        where=None if truth.where is None else truth.where[rows],
        when=None if truth.when is None else truth.when[rows],
    )


def _fingerprint(found: Found, parts: Mapping[SplitName, Part], shape: tuple[int, ...]) -> str:
    total = hashlib.sha256(f"{found.digest} {found.classes} {shape}".encode())
    for name in sorted(parts):
        total.update(name.encode())
        total.update(parts[name].rows.astype(np.int64).tobytes())
        total.update(parts[name].labels.astype(np.int64).tobytes())
    return total.hexdigest()[:12]
