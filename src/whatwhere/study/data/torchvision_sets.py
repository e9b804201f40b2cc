"""torchvision's classification sets by name, through whatever parameters their class has."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor

from whatwhere.study.data.assemble import Found, digest
from whatwhere.study.data.base import DataError, DataSettings
from whatwhere.study.data.pixels import fit, in_rgb, to_pixels
from whatwhere.study.data.splitting import Part, SplitName
from whatwhere.study.data.views import views

PREFIX = "torchvision:"
ROOT = "data"
MEMORY = 4 * 2**30  # bytes of pixels
# What the sets call their splits, by preference.
SPLIT_WORDS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train", "trainval"),
    "val": ("val", "valid"),
    "test": ("test",),
}


def find(settings: DataSettings) -> Found:
    """Every split that the set has, as uint8 tensors."""
    name = settings.source.removeprefix(PREFIX)
    sets = _open_all(name, settings)
    stored: dict[SplitName, Tensor] = {}
    labels: dict[SplitName, list[int]] = {}
    for split, opened in sets.items():
        stored[split], labels[split] = _store(f"{name} ({split})", opened, settings.size)
    # Some sets have grey images among the others, and so possibly in one split alone.
    if len({len(pixels[0]) for pixels in stored.values()}) > 1:
        stored = {
            split: pixels if len(pixels[0]) == 3 else pixels.repeat(1, 3, 1, 1)
            for split, pixels in stored.items()
        }
    if len({pixels.shape[1:] for pixels in stored.values()}) > 1:
        raise DataError(f"{name}: the images of its splits differ in size: give a size")
    shape = tuple(stored["train"].shape[1:])
    return Found(
        name=name,
        classes=_classes(sets["train"], labels),
        parts={
            split: Part(pixels, np.arange(len(pixels)), np.array(labels[split], np.int64))
            for split, pixels in stored.items()
        },
        views=views("photographs" if shape[0] == 3 else "pixels", shape),
        digest=digest(*stored.values()),
    )


def _open_all(name: str, settings: DataSettings) -> dict[SplitName, Any]:
    if name not in torchvision.datasets.__all__:
        raise DataError(
            f"expected torchvision:NAME to name a class of torchvision.datasets, got {name!r}"
        )
    make: Callable[..., Any] = getattr(torchvision.datasets, name)
    parameters = inspect.signature(make).parameters
    root = Path(ROOT if settings.root is None else settings.root)
    fixed: dict[str, Any] = {}
    if "root" in parameters:
        fixed["root"] = root
    if "download" in parameters:
        fixed["download"] = settings.download
    if "train" in parameters:
        return {
            "train": _open(name, make, root, fixed | {"train": True}),
            "test": _open(name, make, root, fixed | {"train": False}),
        }
    if "split" not in parameters:
        return {"train": _open(name, make, root, fixed)}
    opened: dict[SplitName, Any] = {}
    for split, words in SPLIT_WORDS.items():
        for word in words:
            try:
                opened[split] = _open(name, make, root, fixed | {"split": word})
                break
            except _NoSuchSplitError as problem:
                refusal = problem
    if "train" not in opened:
        raise DataError(f"{name}: expected a split named train or trainval: {refusal}")
    return opened


class _NoSuchSplitError(DataError):
    pass


def _open(name: str, make: Callable[..., Any], root: Path, arguments: dict[str, Any]) -> Any:
    try:
        return make(**arguments)
    except ValueError as problem:
        raise _NoSuchSplitError(f"{name}: {problem}") from problem
    except (RuntimeError, OSError, ImportError) as problem:
        advice = "" if arguments.get("download", True) else "; pass --download to fetch it"
        raise DataError(
            f"{name} cannot be read from {root.absolute()}{advice}: {problem}"
        ) from problem
    except TypeError as problem:
        raise DataError(f"{name} needs more than a root and a split: {problem}") from problem


def _store(name: str, opened: Any, size: int | None) -> tuple[Tensor, list[int]]:
    images: list[Tensor] = []
    labels: list[int] = []
    for index in range(_length(name, opened)):
        image, label = _sample(name, opened, index)
        pixels = image if size is None else fit(image, size)
        if not images and (needed := pixels.numel() * len(opened)) > MEMORY:
            raise DataError(
                f"{name}: its pixels take {needed / 2**30:.1f} GiB, more than "
                f"{MEMORY / 2**30:.0f}: give a smaller size"
            )
        if images and pixels.shape[1:] != images[0].shape[1:]:
            raise DataError(
                f"{name}: its images differ in size, {tuple(images[0].shape[1:])} and "
                f"{tuple(pixels.shape[1:])}: give a size"
            )
        images.append(pixels)
        labels.append(label)
    if len({len(pixels) for pixels in images}) > 1:
        images = [in_rgb(pixels) for pixels in images]
    return torch.stack(images), labels


def _length(name: str, opened: Any) -> int:
    try:
        return len(opened)
    except (TypeError, NotImplementedError) as problem:
        raise DataError(f"{name}: expected a set of known length, got none") from problem


def _sample(name: str, opened: Any, index: int) -> tuple[Tensor, int]:
    try:
        sample = opened[index]
    except (OSError, RuntimeError, NotImplementedError) as problem:
        raise DataError(f"{name}: its sample {index} can't be read: {problem}") from problem
    if isinstance(sample, tuple) and len(sample) == 2 and isinstance(sample[0], Image.Image):
        image, label = sample
        if isinstance(label, int | np.integer):
            return to_pixels(image), int(label)
    raise DataError(f"{name}: expected images with one class each; it is no classification set")


def _classes(train: Any, labels: dict[SplitName, list[int]]) -> tuple[str, ...]:
    count = max(max(numbers) for numbers in labels.values()) + 1
    names = getattr(train, "classes", [])
    return tuple(str(names[i] if len(names) == count else i) for i in range(count))
