"""Image folders: one folder per class, with or without ``train``, ``val`` and ``test`` above."""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from whatwhere.study.data.assemble import Found
from whatwhere.study.data.base import DataError, DataSettings, Samples, SkippedFile
from whatwhere.study.data.pixels import fit, in_rgb, to_pixels
from whatwhere.study.data.splitting import Part, SplitName
from whatwhere.study.data.views import views

SIZE = 64
# Stored a little larger than seen, as is usual (256 and 224): room for the random crops.
MARGIN = 8 / 7
MEMORY = 2**30  # bytes of pixels to keep; folders with more are decoded as they are used
PROGRESS_FROM = 500  # files
SPLIT_NAMES: dict[str, SplitName] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


@dataclass(frozen=True)
class ImageFile:
    """A file that says it is an image, and what the folders it is in say about it."""

    path: Path
    split: SplitName
    label: int


@dataclass(frozen=True)
class Checked:
    """What decoding a file showed."""

    problem: str | None = None
    grey: bool = False
    digest: str = ""


class LazyImages:
    """Images decoded when asked for."""

    def __init__(self, paths: Sequence[Path], *, side: int, grey: bool) -> None:
        self.paths = paths
        self.side = side
        self.grey = grey

    def __getitem__(self, row: int, /) -> Tensor:
        """The pixels of one image."""
        try:
            pixels = fit(decode(self.paths[row].read_bytes(), self.side), self.side)
        except Exception as problem:
            raise DataError(
                f"{self.paths[row]} was readable at first and no longer is: {_reason(problem)}"
            ) from problem
        return pixels if self.grey else in_rgb(pixels)


def find(settings: DataSettings) -> Found:
    """Check every image of the folder, and keep the pixels if they fit in memory."""
    root = Path(settings.source)
    size = SIZE if settings.size is None else settings.size
    side = round(size * MARGIN)
    classes, files = list_images(root)
    kept = _room_for(len(files), side)
    checked = _check_all(files, side, kept)
    skipped = tuple(
        SkippedFile(str(file.path), result.problem)
        for file, result in zip(files, checked, strict=True)
        if result.problem is not None
    )
    check_skipped(skipped, len(files), settings.max_unreadable)
    usable = [row for row, result in enumerate(checked) if result.problem is None]
    grey = all(checked[row].grey for row in usable)
    samples: Samples = LazyImages([file.path for file in files], side=side, grey=grey)
    if kept is not None:
        samples = kept[:, :1].contiguous() if grey else kept
    content = [f"{files[row].path.relative_to(root)} {checked[row].digest}" for row in usable]
    return Found(
        name=root.resolve().name,
        classes=classes,
        parts=_parts(samples, files, usable, classes),
        views=views("photographs", (1 if grey else 3, side, side), size),
        digest=hashlib.sha256("\n".join([str(side), *content]).encode()).hexdigest(),
        skipped=skipped,
    )


def list_images(root: Path) -> tuple[tuple[str, ...], list[ImageFile]]:
    """The classes, and every file with the ending of an image, sorted by split, class and path."""
    splits = _split_folders(root)
    tree = {
        split: {each.name: _images_below(each) for each in _folders(folder)}
        for split, folder in splits.items()
    }
    if not any(tree["train"].values()):
        direct = len(_images_below(splits["train"]))
        raise DataError(
            f"expected one folder of images per class in {splits['train']}, found "
            f"{len(tree['train'])} folders without images and {direct} images beside them"
        )
    classes = tuple(tree["train"])
    for split, by_class in tree.items():
        if tuple(by_class) != classes:
            missing = ", ".join(sorted(set(classes) - set(by_class)))
            added = ", ".join(sorted(set(by_class) - set(classes)))
            raise DataError(
                f"expected the same classes in {splits['train'].name}/ and "
                f"{splits[split].name}/, but the latter lacks [{missing}] and adds [{added}]"
            )
        for name, paths in by_class.items():
            if not paths:
                raise DataError(f"class {name!r} has no images in {splits[split]}")
    files = [
        ImageFile(path, split, classes.index(name))
        for split, by_class in tree.items()
        for name, paths in by_class.items()
        for path in paths
    ]
    return classes, files


def _split_folders(root: Path) -> dict[SplitName, Path]:
    found: dict[SplitName, Path] = {}
    for folder in _folders(root):
        # A class may be called "train" too: only a split has folders inside.
        split = SPLIT_NAMES.get(folder.name.lower())
        if split is not None and _folders(folder):
            if split in found:
                raise DataError(
                    f"expected one folder for {split} in {root}, found {found[split].name} "
                    f"and {folder.name}"
                )
            found[split] = folder
    if not found:
        return {"train": root}
    if "train" not in found:
        listed = ", ".join(folder.name for folder in found.values())
        raise DataError(f"expected a train folder in {root} beside {listed}, found none")
    return found


def _folders(root: Path) -> list[Path]:
    return sorted(each for each in root.iterdir() if each.is_dir() and not _is_hidden(each))


def _images_below(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMG_EXTENSIONS and path.is_file() and not _is_hidden(path)
    )


def _is_hidden(path: Path) -> bool:
    # What macOS leaves in archives looks like images and is none.
    return path.name.startswith((".", "__MACOSX"))


def _room_for(count: int, side: int) -> Tensor | None:
    if count * 3 * side**2 > MEMORY:
        return None
    return torch.empty((count, 3, side, side), dtype=torch.uint8)


def _check_all(files: Sequence[ImageFile], side: int, kept: Tensor | None) -> list[Checked]:
    def check(row: int) -> Checked:
        try:
            content = files[row].path.read_bytes()
            pixels = fit(decode(content, side), side)
        # PIL's readers raise whatever their parser runs into, not only OSError.
        except Exception as problem:
            return Checked(problem=_reason(problem))
        if kept is not None:
            kept[row] = pixels
        return Checked(grey=len(pixels) == 1, digest=hashlib.sha256(content).hexdigest())

    with ThreadPoolExecutor() as pool:
        results: Iterable[Checked] = track(
            pool.map(check, range(len(files))),
            description="Checking images",
            total=len(files),
            console=Console(stderr=True),
            transient=True,
            disable=len(files) <= PROGRESS_FROM,
        )
        return list(results)


def decode(content: bytes, side: int) -> Tensor:
    """The pixels of an image file, of a JPEG perhaps at a fraction of its size above ``side``."""
    with Image.open(BytesIO(content)) as image:
        # JPEG decodes large photographs faster at a fraction of their size, never below ``side``.
        image.draft(None, (side, side))
        return to_pixels(image)


def _reason(problem: Exception) -> str:
    return f"{type(problem).__name__}: {problem}"


def check_skipped(skipped: Sequence[SkippedFile], total: int, most: int) -> None:
    """Refuse data of which more than ``most`` images can't be read."""
    if len(skipped) > most:
        listed = "\n".join(f"  {each.path}: {each.reason}" for each in skipped[:5])
        raise DataError(
            f"{len(skipped)} of {total} images cannot be read, more than max_unreadable={most}; "
            f"the first are\n{listed}"
        )


def _parts(
    samples: Samples, files: Sequence[ImageFile], usable: Sequence[int], classes: Sequence[str]
) -> dict[SplitName, Part]:
    rows: dict[SplitName, list[int]] = {file.split: [] for file in files}
    for row in usable:
        rows[files[row].split].append(row)
    parts: dict[SplitName, Part] = {}
    for split, mine in rows.items():
        labels = np.array([files[row].label for row in mine], np.int64)
        parts[split] = Part(samples, np.array(mine, np.int64), labels)
        for label in set(range(len(classes))) - set(labels.tolist()):
            raise DataError(f"class {classes[label]!r} has no readable images for {split}")
    return parts
